"""Grey of more than 8 bits, pages and channels: how they come out, and what is said of them, once a data set."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from image_folders import make_images, scan_simply
from PIL import Image

from multitl.contracts import Decoding, Preprocess
from multitl.data import images, inspection
from multitl.data.depths import Looks
from multitl.data.images import CONVERT, UnreadableImage, check_image, decode_rgb, open_rgb
from multitl.data.pixel_store import PixelStore
from multitl.data.pixels import PixelReader, read_files
from multitl.errors import DataError
from multitl.recipes import Recipe

BITS, PHOTOMETRIC, EXTRA = 258, 262, 338


def save(folder, arrays: list[np.ndarray], suffix: str = ".tif", **options):
    """Two classes of as many files each, all different; the first as it is."""
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number, array in enumerate(arrays):
            values = np.roll(array.ravel(), number + 20 * (label == "b"))
            Image.fromarray(values.reshape(array.shape)).save(folder / label / f"{number}{suffix}", **options)
    return folder


def ramp(most: float, kind: type, least: float = 0, height: int = 6) -> np.ndarray:
    return np.linspace(least, most, height * 8).reshape(height, 8).astype(kind)


def grey_of(path, decoding: Decoding) -> np.ndarray:
    return np.asarray(open_rgb(path, decoding))[..., 0]


def tiff(channels: int, bits: int, numbers: int, photometric: int = 1, extra: int = 0, planes: bool = False) -> bytes:
    """One of 2 x 2 pixels, of zeros. numbers: its SampleFormat.  extra: how many ExtraSamples.  planes: by channel."""
    bytes_of_pixels = 4 * channels * bits // 8
    strips = channels if planes else 1
    all_tags = [
        (256, 3, [2]), (257, 3, [2]), (BITS, 3, [bits] * channels), (259, 3, [1]), (PHOTOMETRIC, 3, [photometric]),
        (273, 4, [8] * strips), (277, 3, [channels]), (278, 3, [2]), (279, 4, [bytes_of_pixels // strips] * strips),
        (284, 3, [1 + planes]), (EXTRA, 3, [0] * extra), (339, 3, [numbers] * channels),
    ]  # fmt: skip
    tags = [tag for tag in all_tags if tag[2]]
    start = 8 + bytes_of_pixels
    place, entries, beyond = start + 2 + 12 * len(tags) + 4, b"", b""
    for tag, kind, values in tags:
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            packed, beyond = struct.pack("<I", place + len(beyond)), beyond + packed
        entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    header = b"II*\0" + struct.pack("<I", start) + bytes(bytes_of_pixels)
    return header + struct.pack("<H", len(tags)) + entries + bytes(4) + beyond


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_twelve_bits_in_sixteen_are_said_once_and_mended(tmp_path, suffix):
    save(tmp_path, [ramp(4000, np.uint16)] * 8, suffix)
    (warning,) = scan_simply(tmp_path).warnings
    assert warning == (
        "16 files of 16-bit grey hold values from 0 to 4000, nearly black where 65535 is white: --bits 12 mends that."
    )
    assert grey_of(tmp_path / f"a/0{suffix}", Decoding()).max() == 16
    mended = Recipe(bits=12).decoding
    assert scan_simply(tmp_path, decoding=mended).warnings == ()
    expected = np.rint(ramp(4000, np.uint16) / 4095 * 255)
    np.testing.assert_array_equal(grey_of(tmp_path / f"a/0{suffix}", mended), expected)
    assert Recipe(range="0,4095").decoding == mended


def test_the_same_is_said_of_files_that_were_looked_at_before(tmp_path, monkeypatch):
    save(tmp_path, [ramp(900, np.uint16)] * 6)
    (warning,) = scan_simply(tmp_path).warnings
    monkeypatch.setattr(inspection, "check_image", None)  # nothing is decoded any more
    assert scan_simply(tmp_path).warnings == (warning,) and "--bits 10" in warning


@pytest.mark.parametrize(
    ("most", "kind", "option"),
    [
        (255, np.int32, "--bits 8"),
        (100, np.int32, "--range 0,100"),
        (9, np.uint16, "--range 0,9"),
        (16000, np.uint16, "--bits 14"),
        (40000, np.uint16, None),
        (30.5, np.float32, "--range 0,30.5"),
        (200.0, np.float32, None),
        (1.0, np.float32, None),
    ],
)
def test_what_is_nearly_black(tmp_path, most, kind, option):
    save(tmp_path, [ramp(most, kind)] * 6)
    warnings = scan_simply(tmp_path).warnings
    assert [option in warning for warning in warnings] == ([True] if option else [])


def test_a_few_dark_files_among_others_are_photos(tmp_path):
    save(tmp_path, [ramp(2000, np.uint16)] * 5 + [ramp(60000, np.uint16)])
    assert scan_simply(tmp_path).warnings == ()


def test_integers_of_32_bits_by_their_range(tmp_path):
    Image.fromarray(np.array([[0, 51, 255]], np.int32)).save(tmp_path / "a.tif")
    assert grey_of(tmp_path / "a.tif", Decoding()).tolist() == [[0, 0, 1]]
    assert grey_of(tmp_path / "a.tif", Recipe(range="0,255").decoding).tolist() == [[0, 51, 255]]


def test_values_without_a_meaning_are_unsupported_until_a_range_says_it(tmp_path):
    save(tmp_path, [ramp(3071, np.int32, least=-1024)] * 6)  # Hounsfield units
    with pytest.raises(DataError, match="None of the 12 image files") as error:
        scan_simply(tmp_path)
    assert "unsupported: integer values outside [0, 65535]: -1024 to 3071" in error.value.received
    assert error.value.fix == "--range=-1024,3071"
    decoding = Recipe(range="-1024,3071").decoding
    dataset = scan_simply(tmp_path, decoding=decoding)
    assert len(dataset.examples) == 12 and dataset.warnings == ()
    corners = grey_of(tmp_path / "a/0.tif", decoding)
    assert corners[-1, -1] == 255 and corners[0, 2] == 11 and corners[0, 0] == 0


@pytest.mark.parametrize("values", [[0, 1, float("nan")], [0, 1, float("inf")]])
def test_numbers_that_are_none_have_no_picture(tmp_path, values):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    for decoding in (Decoding(), Decoding(values=(0, 1))):
        with pytest.raises(UnreadableImage, match="unsupported: float values"):
            open_rgb(tmp_path / "a.tif", decoding)


def test_floats_of_two_scales_are_told_apart(tmp_path):
    save(tmp_path, [ramp(250, np.float32)] * 5 + [ramp(1, np.float32)] * 2)
    (warning,) = scan_simply(tmp_path).warnings
    assert "in a file up to 1 that is white, in others 255: --range 0,255 mends that" in warning


def test_a_range_that_is_far_too_small_is_noticed(tmp_path):
    save(tmp_path, [ramp(60000, np.uint16)] * 6)
    (warning,) = scan_simply(tmp_path, decoding=Recipe(bits=12).decoding).warnings
    assert "hold values from 0 to 60000, of which 4095 is white already: another --bits or --range" in warning


@pytest.mark.parametrize(
    ("values", "decoding", "expected"),
    [
        (np.array([[0, 257, 65535]], np.uint16), Decoding(), [255, 254, 0]),
        (np.array([[0, 819, 4095]], np.uint16), Decoding(values=(0, 4095)), [255, 204, 0]),
        (np.array([[0, 0.2, 1]], np.float32), Decoding(), [255, 204, 0]),
    ],
)
def test_white_is_zero_where_a_file_says_so(tmp_path, values, decoding, expected):
    Image.fromarray(values).save(tmp_path / "a.tif")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[data.find(struct.pack("<HHI", PHOTOMETRIC, 3, 1)) + 8] = 0
    assert np.asarray(decode_rgb(bytes(data), decoding))[0, :, 0].tolist() == expected


def test_twelve_bits_that_a_file_tells_of_are_known():
    data = bytearray(tiff(1, 12, 1))
    data[8:14] = b"\xff\xff\xff\x80\x00\x00"  # 4095, 4095; 2048, 0
    assert np.asarray(decode_rgb(bytes(data)))[..., 0].tolist() == [[255, 255], [128, 0]]


def pages(count: int) -> bytes:
    buffer = io.BytesIO()
    first, *others = [Image.new("L", (8, 6), 20 * page) for page in range(1, count + 1)]
    first.save(buffer, "TIFF", save_all=True, append_images=others)
    return buffer.getvalue()


def test_pages(tmp_path):
    make_images(tmp_path, {"a": 6, "b": 6})
    for label in ("a", "b"):
        (tmp_path / label / "stack.tif").write_bytes(pages(12))
    told = " ".join(scan_simply(tmp_path).warnings)
    assert "2 files have several pages, up to 12, and the first is taken unasked: --page 1, or another, mends" in told
    for page, grey in {0: 20, 1: 20, 7: 140, 12: 240}.items():
        assert grey_of(tmp_path / "a/stack.tif", Recipe(page=page).decoding)[0, 0] == grey
        assert "several pages" not in " ".join(scan_simply(tmp_path, decoding=Decoding(page or 1)).warnings)
    assert grey_of(tmp_path / "a/0.png", Decoding(page=7)).shape == (6, 8)  # the only one it has
    with pytest.raises(UnreadableImage, match="it has no page 13") as error:
        open_rgb(tmp_path / "a/stack.tif", Decoding(page=13))
    assert error.value.fix == "choose another with --page N"


def test_a_page_may_be_a_bomb_as_well(monkeypatch):
    small, large, buffer = Image.new("L", (8, 6)), Image.new("L", (80, 60)), io.BytesIO()
    small.save(buffer, "TIFF", save_all=True, append_images=[large])
    assert decode_rgb(buffer.getvalue(), Decoding(page=2)).size == (80, 60)
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    assert decode_rgb(buffer.getvalue()).size == (8, 6)
    with pytest.raises(UnreadableImage, match="too large: 80 x 60 pixels"):
        decode_rgb(buffer.getvalue(), Decoding(page=2))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_frames_are_pages_too(kind):
    frames, buffer = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")], io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], lossless=True)
    assert decode_rgb(buffer.getvalue(), Decoding(page=2)).getpixel((8, 8)) == (0, 255, 0)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(5, 8, 1), "5 channels of 8-bit unsigned integers"),
        (tiff(4, 16, 1), "4 channels of 16-bit unsigned integers"),
        (tiff(3, 32, 3, photometric=2), "3 channels of 32-bit floats"),
        (tiff(1, 64, 3), "1 channel of 64-bit floats"),
        (tiff(13, 16, 1), "13 channels of 16-bit unsigned integers"),
        (tiff(5, 16, 1, extra=4, planes=True), "5 channels of 16-bit unsigned integers"),
    ],
)
def test_what_is_not_supported_is_called_so(data, reason):
    for function in (check_image, decode_rgb):
        with pytest.raises(UnreadableImage, match="^unsupported: " + reason) as error:
            function(data)
        assert error.value.fix == CONVERT


def test_a_data_set_of_such_files_says_how_to_mend_it(tmp_path):
    make_images(tmp_path, {"a": 3, "b": 3})
    for number in range(3):
        (tmp_path / "a" / f"x{number}.tif").write_bytes(tiff(5, 8, 1) + bytes([number]))
    with pytest.raises(DataError, match="3 of 9") as error:
        scan_simply(tmp_path)
    assert error.value.fix.startswith(CONVERT) and "unsupported: 5 channels" in error.value.received


def test_a_fourth_channel_is_mentioned(tmp_path):
    make_images(tmp_path, {"a": 6, "b": 6})
    (tmp_path / "a/x.tif").write_bytes(tiff(4, 8, 1, photometric=2, extra=1))
    assert "1 files have more than three channels: the first three are taken" in " ".join(
        scan_simply(tmp_path).warnings
    )


def test_colour_of_twelve_bits_in_sixteen(tmp_path):
    make_images(tmp_path, {"a": 6, "b": 6})
    data = bytearray(tiff(3, 16, 1, photometric=2))
    data[8:32] = b"\xff\x0f" * 12
    (tmp_path / "a/x.tif").write_bytes(bytes(data))
    (warning,) = [one for one in scan_simply(tmp_path).warnings if "16-bit colour" in one]
    assert "1 files of 16-bit colour are nearly black: up to 15 in their upper 8 bits" in warning


def test_pixels_are_kept_by_how_they_were_decoded(tmp_path):
    save(tmp_path, [ramp(4000, np.uint16)] * 6)
    found = {}
    for bits in (0, 12):
        decoding = Recipe(bits=bits).decoding
        preprocess = Preprocess(6, 8, resize="squash", decoding=decoding)
        dataset = scan_simply(tmp_path, decoding=decoding)
        for _ in range(2):  # the second time from the store
            store = PixelStore(preprocess)
            pixels = PixelReader(dataset.examples, preprocess, store=store).read([0])
            assert found.setdefault(bits, pixels.max()) == pixels.max()
        (again,) = read_files([dataset.examples[0].path], preprocess)
        assert again.max() == pixels.max()
    assert found == {0: 16, 12: 249}


def test_what_is_predicted_is_looked_at_too(tmp_path):
    save(tmp_path, [ramp(4000, np.uint16)] * 2)
    make_images(tmp_path, {"a": 2})
    looks = Looks()
    paths = [str(path) for path in sorted(tmp_path.rglob("*.*"))]
    assert len(list(read_files(paths, Preprocess(6, 8), looks))) == 6
    (warning,) = looks.warnings(Decoding(), of_a_run=True)
    assert warning.endswith("a run reads files as in its training: convert them, or train with --bits 12.")
