"""Arrays and TIFFs of many channels, of which three are picked."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from image_folders import scan_simply

from multitl.contracts import Decoding, Preprocess
from multitl.data.depths import FLOATS, GREY16, PLAIN
from multitl.data.images import UnreadableImage, check_image, count_pixels, decode_rgb
from multitl.errors import RecipeError
from multitl.recipes import Recipe

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
    ],
)
def test_what_cannot_be_read(data, decoding, words):
    for function in (check_image, decode_rgb):
        if words != "outside" or function is decode_rgb:
            with pytest.raises(UnreadableImage, match=words):
                function(data, decoding)


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
    for wrong in ("4,3", "0,1,2", "a,b,c", "1,2,3,4", "-1,2,3"):
        with pytest.raises(RecipeError, match="R,G,B"):
            Recipe(channels=wrong)
    told = {"height": 8, "width": 8, "decoding": {"page": 0, "values": None, "channels": [4, 3, 2]}}
    assert Preprocess.from_mapping(told).decoding == PICKED
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


def test_channels_count_as_pixels_do():
    planes = (np.zeros((3000, 3000), np.uint8) for _ in range(400))
    data = tiff(planes, shape=(400, 3000, 3000), dtype="uint8", photometric="minisblack", compression="zlib")
    assert len(data) < 5e6
    with pytest.raises(UnreadableImage, match=r"of many channels.*decompression bomb"):
        decode_rgb(data, PICKED)
