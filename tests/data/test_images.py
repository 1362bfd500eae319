"""Decoding: every pixel format, faults as one line, and the geometry against Pillow in two steps."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from multitl.contracts import Preprocess
from multitl.data import geometry, images
from multitl.data.geometry import fit_pixels
from multitl.data.images import (
    AT_ONCE,
    UnreadableImage,
    check_image,
    decode_pixels,
    decode_rgb,
    open_rgb,
    thumbnail_jpeg,
)
from multitl.system.budgets import Budget

ORIENTATION = 0x0112


def picture(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    """A smooth colour picture without symmetry, uint8 (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    phase = np.random.default_rng(seed).uniform(0, 6, (3, 3))
    waves = [np.sin(a + x / 9 * (1 + b / 6)) * np.cos(c + y / 7) for a, b, c in phase]
    return np.stack([127 + 120 * wave for wave in waves], axis=-1).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(image: Image.Image, kind: str, **options) -> np.ndarray:
    """Saved, checked as `scan` does, and decoded."""
    data = encode(image, kind, **options)
    check_image(data)
    result = decode_rgb(data)
    assert result.mode == "RGB"
    return np.asarray(result)


RGB = Image.fromarray(picture())
GREY = RGB.convert("L")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_lossless_formats_give_back_what_pillow_saved(kind, mode):
    if (kind, mode) == ("PPM", "P"):
        pytest.skip("PPM has no palettes")
    image = RGB.quantize(200) if (kind, mode) == ("GIF", "RGB") else RGB.convert(mode)
    np.testing.assert_array_equal(decoded(image, kind), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossy_formats_come_close(kind, mode):
    difference = decoded(RGB.convert(mode), kind).astype(int) - np.asarray(RGB.convert(mode).convert("RGB"))
    assert np.abs(difference).mean() < 4


def test_transparency_lies_over_white():
    alpha = np.zeros((40, 60), np.uint8)
    alpha[:20], alpha[20:30] = 255, 51
    image = RGB.convert("RGBA")
    image.putalpha(Image.fromarray(alpha))
    share = alpha[..., None] / 255
    expected = picture() * share + 255 * (1 - share)
    np.testing.assert_allclose(decoded(image, "PNG"), expected, atol=1)
    np.testing.assert_allclose(decoded(image, "TIFF"), expected, atol=1)
    grey = GREY.convert("LA")
    grey.putalpha(Image.fromarray(alpha))
    np.testing.assert_allclose(
        decoded(grey, "PNG")[..., 0], np.asarray(GREY) * share[..., 0] + 255 * (1 - share[..., 0]), atol=1
    )


def test_transparent_colours_of_palettes_and_keys_become_white():
    indices = np.arange(16, dtype=np.uint8).reshape(4, 4)
    palette = Image.fromarray(indices).convert("P")
    palette.putpalette([value for index in range(256) for value in (index, 2 * index % 256, 90)])
    for kind in ("PNG", "GIF"):
        pixels = decoded(palette, kind, transparency=5)
        assert pixels[1, 1].tolist() == [255, 255, 255]
        assert pixels[1, 2].tolist() == [6, 12, 90]
    keyed = Image.fromarray(np.full((4, 4, 3), 7, np.uint8))
    keyed.putpixel((0, 0), (9, 9, 9))
    pixels = decoded(keyed, "PNG", transparency=(9, 9, 9))
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[1, 1].tolist() == [7, 7, 7]
    half = palette.copy()
    assert decoded(half, "PNG", transparency=bytes([0] * 4 + [255] * 252))[0].min() == 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_by_the_full_range(kind):
    values = np.array([[0, 128, 129, 257, 40000, 65535]], np.uint16)
    expected = np.rint(values / 257)
    np.testing.assert_array_equal(decoded(Image.fromarray(values), kind)[..., 1], expected)


def test_big_endian_and_signed_sixteen_bit_tiffs():
    values = np.array([[0, 1000, 32767]], ">u2")
    image = Image.frombytes("I;16B", (3, 1), values.tobytes())
    np.testing.assert_array_equal(decoded(image, "TIFF")[..., 0], [[0, 4, 127]])
    wide = Image.fromarray(np.array([[0, 514, 65535]], np.int32))
    np.testing.assert_array_equal(decoded(wide, "TIFF")[..., 0], [[0, 2, 255]])
    for bad in ([[0, 70000]], [[-1, 5]]):
        with pytest.raises(UnreadableImage, match=r"outside \[0, 65535\]"):
            decoded(Image.fromarray(np.array(bad, np.int32)), "TIFF")


def test_float_tiffs():
    np.testing.assert_array_equal(
        decoded(Image.fromarray(np.array([[0, 0.5, 1]], "f")), "TIFF")[..., 2], [[0, 128, 255]]
    )
    np.testing.assert_array_equal(
        decoded(Image.fromarray(np.array([[0, 0.6, 254.6]], "f")), "TIFF")[..., 2], [[0, 1, 255]]
    )
    for bad in (-1, 256, np.nan, np.inf):
        with pytest.raises(UnreadableImage, match=r"outside \[0, 255\]"):
            decoded(Image.fromarray(np.array([[0, bad]], "f")), "TIFF")


def test_sixteen_bit_rgb_png():
    values = (picture().astype(np.uint16) * 256 + 0x80).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    data = png(60, 40, depth=16, colour=2, body=zlib.compress(rows))
    check_image(data)
    np.testing.assert_array_equal(np.asarray(decode_rgb(data)), picture())


def test_cmyk_and_inverted_cmyk():
    cmyk = RGB.convert("CMYK")
    np.testing.assert_array_equal(decoded(cmyk, "TIFF"), picture())
    adobe = encode(cmyk, "JPEG", quality=95)
    assert b"Adobe" in adobe  # Pillow writes these inverted, as Photoshop does
    check_image(adobe)
    assert np.abs(np.asarray(decode_rgb(adobe)).astype(int) - picture()).mean() < 4


def test_an_unknown_pixel_format_is_refused_by_name():
    data = bytearray(encode(Image.new("LA", (4, 4), (9, 100)), "TIFF"))
    extra_samples = data.find(struct.pack("<HHI", 338, 3, 1)) + 8
    data[extra_samples] = 1  # premultiplied grey, which Pillow opens and cannot convert
    for function in (check_image, decode_rgb):
        with pytest.raises(UnreadableImage, match="unsupported pixel format La"):
            function(bytes(data))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG", "AVIF"])
def test_the_first_of_several_frames_counts(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    pixels = decoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert pixels[8, 8, 0] > 240 and pixels[8, 8, 1:].max() < 15


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    upright = picture()
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1), 7: upright[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    pixels = decoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif.tobytes())
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).mean() < 4


@pytest.mark.filterwarnings("default:Corrupt EXIF data:UserWarning")
def test_damaged_exif_costs_nothing():
    data = encode(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff broken", quality=95)
    assert np.abs(np.asarray(decode_rgb(data)).astype(int) - picture()).mean() < 4


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "BMP", "TIFF", "lzw", "GIF", "WEBP", "AVIF", "PPM"])
def test_truncated_files_are_found_whatever_pillow_is_told(kind, share, lenient, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    options = {"progressive": {"progressive": True}, "lzw": {"compression": "tiff_lzw"}}.get(kind, {})
    data = encode(noise, {"progressive": "JPEG", "lzw": "TIFF"}.get(kind, kind), **options)
    check_image(data)
    decode_rgb(data)
    cut = data[: int(len(data) * share)]
    for function in (check_image, decode_rgb):
        with pytest.raises(UnreadableImage) as error:
            function(cut)
        assert "\n" not in str(error.value) and str(error.value)


@given(
    st.binary(max_size=300), st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM"]), st.integers(0, 400)
)
@settings(max_examples=150, deadline=None)
def test_garbage_gives_pixels_or_one_line(garbage, kind, position):
    """Bytes of a real file overwritten with noise never raise anything but UnreadableImage."""
    data = bytearray(encode(RGB.resize((12, 9)), kind))
    position %= len(data)
    data[position : position + len(garbage)] = garbage
    for function in (check_image, decode_rgb):
        try:
            function(bytes(data))
        except UnreadableImage as error:
            assert "\n" not in str(error) and len(str(error)) < 300


def png(width: int, height: int, depth: int = 8, colour: int = 2, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("limit", [None, 10])
def test_a_decompression_bomb_is_refused_by_its_header(limit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # neither Pillow's switch nor its warning has a say
    with pytest.raises(UnreadableImage, match=r"too large: 50,000 x 50,000 pixels, the limit is 178,956,970"):
        check_image(png(50_000, 50_000, body=zlib.compress(bytes(1000))))
    assert decode_rgb(encode(RGB, "PNG")).size == (60, 40)
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 60 - 1)
    with pytest.raises(UnreadableImage, match="too large: 60 x 40 pixels"):
        decode_rgb(encode(RGB, "PNG"))


def test_between_pillows_warning_and_its_error_there_is_no_warning():
    with pytest.raises(UnreadableImage, match="truncated"):  # 100 million pixels: read, and found short
        check_image(png(10_000, 10_000, body=zlib.compress(bytes(1000))))


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("I am no picture")
    (tmp_path / "script.eps").write_bytes(encode(RGB, "EPS"))
    os.mkfifo(tmp_path / "pipe.jpg")
    reasons = {
        "empty.jpg": "empty: 0 bytes",
        "text.jpg": "not an image in a supported format",
        "script.eps": "not an image in a supported format",
        "pipe.jpg": "not a file",
        ".": "not a file",
        "gone.jpg": "cannot be opened: No such file",
        "nul\0.jpg": r"cannot be opened: .*null",
        "x" * 300: "cannot be opened: File name too long",
    }
    for name, reason in reasons.items():
        with pytest.raises(UnreadableImage, match=reason):
            open_rgb(f"{tmp_path}/{name}")


def test_files_over_the_byte_limit_are_not_read(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encode(RGB, "PNG"))
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    with pytest.raises(UnreadableImage, match=r"too large: .* bytes"):
        open_rgb(tmp_path / "a.png")


def test_threads_agree_and_leave_pillow_as_it_was():
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    data, started = encode(RGB, "JPEG"), threading.Barrier(8)

    def work(_) -> bytes:
        started.wait()
        return decode_rgb(data).tobytes()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(work, range(8)))) == 1
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def torchvision_crop(image: Image.Image, how: Preprocess, method: Image.Resampling) -> np.ndarray:
    """Resize(shorter_side) and CenterCrop((height, width)), written out from torchvision/transforms/functional.py."""
    short, long = sorted(image.size)
    new_long = int(how.shorter_side * long / short)
    size = (how.shorter_side, new_long) if image.width <= image.height else (new_long, how.shorter_side)
    if size != image.size:
        image = image.resize(size, method)
    if how.width > image.width or how.height > image.height:
        left = (how.width - image.width) // 2 if how.width > image.width else 0
        top = (how.height - image.height) // 2 if how.height > image.height else 0
        padded = Image.new("RGB", (max(how.width, image.width), max(how.height, image.height)))
        padded.paste(image, (left, top))
        image = padded
    top, left = round((image.height - how.height) / 2.0), round((image.width - how.width) / 2.0)
    return np.asarray(image.crop((left, top, left + how.width, top + how.height)))


sides = st.integers(1, 90)
METHODS = geometry.FILTERS


@given(sides, sides, sides, sides, sides, st.sampled_from(sorted(METHODS)))
@settings(max_examples=300, deadline=None)
def test_crop_is_torchvisions(height, width, out_height, out_width, side, interpolation):
    pixels = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    how = Preprocess(out_height, out_width, shorter_side=side, interpolation=interpolation)
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(fit_pixels(image, how), torchvision_crop(image, how, METHODS[interpolation]))


@given(sides, sides, sides, sides, st.sampled_from(sorted(METHODS)))
@settings(max_examples=100, deadline=None)
def test_squash_is_pillows_resize(height, width, out_height, out_width, interpolation):
    image = Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8))
    how = Preprocess(out_height, out_width, resize="squash", interpolation=interpolation)
    np.testing.assert_array_equal(fit_pixels(image, how), image.resize((out_width, out_height), METHODS[interpolation]))


def test_crop_on_known_sizes():
    """Numbers worked out by hand: 500 x 375 -> 341 x 256 (341.33 truncated), offsets 58 (58.5 to even) and 16."""
    image = Image.fromarray(picture(375, 500))
    expected = image.resize((341, 256), Image.Resampling.BILINEAR).crop((58, 16, 282, 240))
    np.testing.assert_array_equal(fit_pixels(image, Preprocess(224, 224)), expected)


def test_a_squashed_image_is_larger_than_its_crop_where_the_box_is():
    image = Image.fromarray(picture(375, 500))
    expected = image.resize((120, 110), Image.Resampling.BILINEAR).crop((10, 5, 110, 105))
    np.testing.assert_array_equal(fit_pixels(image, Preprocess(100, 100, "squash", box=(110, 120))), expected)


def test_cover_on_known_sizes():
    """500 x 375 covers 80 x 60 as just that; over 80 x 70 the ratio is 375 / 70, so 93.33 x 70, rounded."""
    image = Image.fromarray(picture(375, 500))
    exact = image.resize((80, 60), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(fit_pixels(image, Preprocess(60, 80, "cover")), exact)
    wider = image.resize((93, 70), Image.Resampling.BILINEAR).crop((6, 0, 86, 70))  # offset 6.5 to even
    np.testing.assert_array_equal(fit_pixels(image, Preprocess(70, 80, "cover")), wider)


def test_fit_shows_the_whole_image_on_a_ground():
    """500 x 375 into 100 x 100: 100 x 75, with 12 rows above and 13 below."""
    image, ground = Image.fromarray(picture(375, 500)), (9, 99, 199)
    expected = Image.new("RGB", (100, 100), ground)
    expected.paste(image.resize((100, 75), Image.Resampling.BILINEAR), (0, 12))
    np.testing.assert_array_equal(fit_pixels(image, Preprocess(100, 100, "fit", fill=ground)), expected)


@pytest.mark.parametrize("resize", ["crop", "squash", "cover", "fit"])
def test_a_hair_thin_image_costs_no_memory(resize):
    image = Image.new("RGB", (20_000, 1), "white")  # resized whole it would be 5,120,000 x 256
    for interpolation in METHODS:
        for antialias in (True, False):
            how = Preprocess(224, 224, resize, interpolation=interpolation, antialias=antialias, fill=(255, 255, 255))
            assert fit_pixels(image, how).min() == 255


def test_decode_pixels_decodes_and_fits(tmp_path):
    RGB.save(tmp_path / "a.png")
    how = Preprocess(24, 32, shorter_side=30)
    pixels = decode_pixels((tmp_path / "a.png").read_bytes(), how, Budget(AT_ONCE))
    np.testing.assert_array_equal(pixels, fit_pixels(RGB, how))


def test_thumbnails_are_upright_small_jpegs(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    RGB.save(tmp_path / "a.jpg", exif=exif.tobytes())
    small = Image.open(io.BytesIO(thumbnail_jpeg(tmp_path / "a.jpg", 30)))
    assert (small.format, small.size, small.mode) == ("JPEG", (20, 30), "RGB")
    with pytest.raises(UnreadableImage):
        thumbnail_jpeg(tmp_path / "none.jpg", 30)
