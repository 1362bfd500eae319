"""Arrays and TIFFs of many channels, of which three are picked, or any number taken."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import numpy as np
import pytest
from image_folders import scan_simply
from PIL import Image

from multitl.contracts import Decoding, Preprocess
from multitl.data.depths import FLOATS, GREY16, PLAIN
from multitl.data.images import UnreadableImage, check_image, count_pixels, decode_pixels, decode_rgb
from multitl.errors import DataError, RecipeError
from multitl.recipes import Recipe
from multitl.system.budgets import Budget

PICKED = Decoding(channels=(4, 3, 2))
RANDOM = np.random.default_rng(0)
EIGHT = RANDOM.integers(0, 256, (9, 7, 5), np.uint8)


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def tiff(values: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    pytest.importorskip("tifffile").imwrite(file, values, **options)
    return file.getvalue()


def rgb(data: bytes, decoding: Decoding = PICKED) -> np.ndarray:
    return np.asarray(decode_rgb(data, decoding))


FILES = {
    "channels last": lambda: npy(EIGHT),
    "channels first": lambda: npy(EIGHT.transpose(2, 0, 1)),
    "columns first in memory": lambda: npy(np.asfortranarray(EIGHT)),
    "TIFF": lambda: tiff(EIGHT, photometric="minisblack", planarconfig="contig"),
    "TIFF of planes": lambda: tiff(EIGHT.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate"),
    "TIFF of pages": lambda: tiff(EIGHT.transpose(2, 0, 1), photometric="minisblack"),
    "compressed TIFF": lambda: tiff(EIGHT, photometric="minisblack", planarconfig="contig", compression="zlib"),
    "big-endian TIFF": lambda: tiff(EIGHT, photometric="minisblack", planarconfig="contig", byteorder=">"),
}


@pytest.mark.parametrize("name", FILES)
def test_three_channels_are_picked(name):
    data = FILES[name]()
    assert np.array_equal(rgb(data), EIGHT[..., [3, 2, 1]])
    assert count_pixels(data, PICKED) == 2 * 63 and check_image(data, PICKED).kind == PLAIN


@pytest.mark.parametrize(("kind", "most"), [(np.uint16, 65535), (">u2", 65535), (np.float32, 1), (np.float64, 1)])
def test_more_bits_as_for_grey(kind, most):
    values = (RANDOM.random((9, 7, 5)) * most).astype(kind)
    expected = np.rint(values.astype(float)[..., [3, 2, 1]] * 255 / most)
    assert np.abs(rgb(npy(values)) - expected).max() <= 1
    look = check_image(npy(values), PICKED)
    assert look.kind == (FLOATS if most == 1 else GREY16) and look.high == pytest.approx(values[..., 1:4].max())


def test_a_range_is_for_all_three():
    values = RANDOM.integers(-2000, 9000, (9, 7, 5)).astype(np.int16)
    with pytest.raises(UnreadableImage, match="outside"):
        rgb(npy(values))
    expected = np.clip(values[..., [3, 2, 1]].astype(float) / 4000, 0, 1) * 255
    assert np.abs(rgb(npy(values), Decoding(values=(0, 4000), channels=(4, 3, 2))) - expected).max() <= 0.51


def test_arrays_of_one_or_three_channels_need_no_choice():
    assert np.array_equal(rgb(npy(EIGHT[..., :3]), Decoding()), EIGHT[..., :3])
    for grey in (EIGHT[..., 0], EIGHT[..., :1]):
        assert np.array_equal(rgb(npy(grey), Decoding()), np.repeat(EIGHT[..., :1], 3, axis=2))


@pytest.mark.parametrize(
    ("data", "decoding", "words"),
    [
        (npy(EIGHT), Decoding(), "5 channels"),
        (npy(EIGHT), Decoding(channels=(6, 1, 1)), "5 channels"),
        (npy(EIGHT)[:-1], PICKED, "truncated"),
        (npy(EIGHT)[:40], PICKED, "damaged|truncated"),
        (npy(np.zeros((2, 3, 4, 5), np.uint8)), PICKED, "no image"),
        (npy(np.zeros((0, 3, 4), np.uint8)), PICKED, "no image"),
        (npy(np.zeros((6, 5, 4), complex)), PICKED, "type complex128"),
        (npy(np.array([[None, 1]])), Decoding(), "truncated|damaged|Object"),
        (npy(np.full((6, 5, 4), np.nan)), PICKED, "outside"),
        (npy(np.full((6, 5, 4), 2**40)), PICKED, "32 bits"),
        (npy(np.zeros((1, 1), np.uint8)).replace(b"(1, 1)", b"(9, 9)"), PICKED, "truncated"),
        (npy(EIGHT).replace(b"|u1", b"|z1"), PICKED, "damaged"),
        (npy(EIGHT).replace(b"shape", b"shave"), PICKED, "does not say its shape"),
        (npy(np.zeros((3, 3), "u1,u2")), PICKED, "does not say its descr"),
    ],
)
def test_what_cannot_be_read(data, decoding, words):
    for function in (check_image, decode_rgb):
        if words != "outside" or function is decode_rgb:
            with pytest.raises(UnreadableImage, match=words):
                function(data, decoding)


def test_a_header_that_others_wrote():
    numpy = b"{'descr': '|u1', 'fortran_order': False, 'shape': (9, 7, 5), }"
    others = b"{'shape':(9L,7L,5L),'fortran_order':False,'descr':'u1'}"
    data = npy(EIGHT)
    assert data.count(numpy) == 1
    assert np.array_equal(rgb(data.replace(numpy, others.ljust(len(numpy)))), EIGHT[..., [3, 2, 1]])


def test_versions_of_the_header():
    for version in ((1, 0), (2, 0), (3, 0)):
        file = io.BytesIO()
        np.lib.format.write_array(file, EIGHT, version)
        assert np.array_equal(rgb(file.getvalue()), EIGHT[..., [3, 2, 1]])


def test_no_python_is_parsed_which_fails_in_threads(monkeypatch):
    def fail(*_, **__):
        raise SystemError("AST constructor recursion depth mismatch (before=57, after=50)")  # python/cpython#106905

    data = npy(EIGHT)
    monkeypatch.setattr("ast.parse", fail)
    monkeypatch.setattr("ast.literal_eval", fail)
    assert check_image(data, PICKED).kind == PLAIN and rgb(data).shape == (9, 7, 3)


def test_without_the_package_the_pip_line_is_told(monkeypatch):
    data = FILES["TIFF"]()
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(UnreadableImage, match=r"pip install 'multitl\[multispectral\]'"):
        decode_rgb(data, PICKED)


def test_a_folder_of_arrays(tmp_path):
    for name in ("sea", "wood"):
        (tmp_path / name).mkdir()
        for index in range(6):
            np.save(tmp_path / name / f"{index}.npy", RANDOM.integers(0, 4000, (9, 7, 5), np.uint16))
    dataset = scan_simply(tmp_path, decoding=PICKED)
    assert len(dataset.examples) == 12
    assert any("nearly black" in warning and "--bits 12" in warning for warning in dataset.warnings)


def test_the_option_and_the_card():
    assert Recipe(channels="4, 3,2").decoding == PICKED
    assert Recipe(channels="all").decoding.channels == () and Recipe(channels="2").decoding.count == 1
    assert Recipe(channels="all").with_all_channels(4).channels == "1,2,3,4"
    for wrong in ("0,1,2", "a,b,c", "1,,2", "-1,2,3", "ALL", "1," * 512 + "1"):
        with pytest.raises(RecipeError, match="R,G,B"):
            Recipe(channels=wrong)
    told = {"height": 8, "width": 8, "decoding": {"page": 0, "values": None, "channels": [4, 3, 2]}}
    assert Preprocess.from_mapping(told).decoding == PICKED
    told |= {"scale": [1, 2], "offset": [0, 0], "fill": [0, 0]}
    told["decoding"]["channels"] = [4, 9]
    assert Preprocess.from_mapping(told).shape == (8, 8, 2)
    told["decoding"]["channels"] = [4, 3, 2]
    with pytest.raises(ValueError, match=r"\[2, 3\] channels"):
        Preprocess.from_mapping(told)
    for name in ("scale", "offset", "fill"):
        del told[name]
    told["decoding"].pop("channels")  # of an older card
    assert Preprocess.from_mapping(told).decoding == Decoding()


def test_tiffs_of_many_channels_are_trained_on(tmp_path):
    """Pillow cannot open these by itself: whoever counts their pixels has to know of the channels."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(4):
            values = RANDOM.integers(0, 256, (9, 7, 12), np.uint8)
            data = tiff(values, photometric="minisblack", planarconfig="contig")
            (tmp_path / name / f"{index}.tif").write_bytes(data)
    dataset = scan_simply(tmp_path, decoding=PICKED)
    assert len(dataset.examples) == 8 and not dataset.unreadable


GREY = Image.fromarray(EIGHT[..., 0])
COLOUR = Image.fromarray(np.ascontiguousarray(EIGHT[..., :3]))
HOW = Preprocess(6, 6, "fit", fill=(7,) * 5, scale=(1.0,) * 5, offset=(0.0,) * 5, decoding=Decoding(channels=()))


def picture(image: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def pixels_of(data: bytes, channels: tuple[int, ...], count: int) -> np.ndarray:
    of = {name: getattr(HOW, name)[:count] for name in ("fill", "scale", "offset")}
    return decode_pixels(data, replace(HOW, decoding=Decoding(channels=channels), **of), Budget(10**6))


@pytest.mark.parametrize("antialias", [True, False])
def test_any_number_of_channels_is_resized_as_three_are(antialias, monkeypatch):
    monkeypatch.setitem(globals(), "HOW", replace(HOW, antialias=antialias))
    five = pixels_of(npy(EIGHT), (), 5)
    assert five.shape == (6, 6, 5) and five[0, -1].tolist() == [7] * 5  # taller than wide: filled at the sides
    for taken in ((4, 3, 2), (2,), (5, 1, 1, 2)):
        assert np.array_equal(pixels_of(npy(EIGHT), taken, len(taken)), five[..., [one - 1 for one in taken]])


def test_pictures_are_of_one_channel_or_of_three():
    grey = pixels_of(npy(EIGHT), (1,), 1)
    deep = Image.fromarray(EIGHT[..., 0].astype(np.uint16) * 257)
    for data in (picture(GREY), picture(GREY, "TIFF"), picture(deep), picture(deep, "TIFF"), picture(COLOUR)):
        assert np.array_equal(pixels_of(data, (1,), 1), grey)
    assert np.array_equal(pixels_of(picture(COLOUR), (3, 1), 2), pixels_of(npy(EIGHT), (3, 1), 2))
    for data, held in ((picture(GREY), 1), (picture(GREY, "JPEG"), 1), (picture(COLOUR, "JPEG"), 3)):
        assert check_image(data, Decoding(channels=())).channels == held
        for function in (check_image, decode_rgb):
            with pytest.raises(UnreadableImage, match=f"{held} channel"):
                function(data, Decoding(channels=(1, 4)))


def test_the_first_three_channels_are_shown():
    assert np.array_equal(rgb(npy(EIGHT), Decoding(channels=())), EIGHT[..., :3])
    assert np.array_equal(rgb(npy(EIGHT), Decoding(channels=(2, 4))), EIGHT[..., [1, 1, 1]])


def test_all_channels_are_as_many_in_every_file(tmp_path):
    for name, held in (("a", 4), ("b", 4)):
        (tmp_path / name).mkdir()
        for index in range(5):
            np.save(tmp_path / name / f"{index}.npy", RANDOM.integers(0, 256, (9, 7, held), np.uint8))
    for _ in range(2):  # from what was found before, too
        assert scan_simply(tmp_path, decoding=Decoding(channels=())).channels == 4
    assert scan_simply(tmp_path, decoding=PICKED).channels == 0
    COLOUR.save(tmp_path / "a" / "5.png")
    with pytest.raises(DataError, match=r"(?s)4 in 10 files, 3 in 1 files.*--channels 1,2,3, which all have"):
        scan_simply(tmp_path, decoding=Decoding(channels=()))


def test_channels_count_as_pixels_do():
    planes = (np.zeros((3000, 3000), np.uint8) for _ in range(400))
    data = tiff(planes, shape=(400, 3000, 3000), dtype="uint8", photometric="minisblack", compression="zlib")
    assert len(data) < 5e6
    with pytest.raises(UnreadableImage, match=r"of many channels.*decompression bomb"):
        decode_rgb(data, PICKED)
