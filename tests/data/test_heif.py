"""Photos of telephones: read by pillow-heif where it is installed, else the line that installs it."""

from __future__ import annotations

import io
import sys
import types

import numpy as np
import pytest
from image_folders import make_images, scan_simply
from PIL import Image, PngImagePlugin

from multitl.data.images import UnreadableImage, check_image, decode_rgb
from multitl.errors import DataError

BOX = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
PIP = "pip install 'multitl[heif]'"


def stand_in(colour: str) -> bytes:
    """The first box of a HEIC, and then a PNG."""
    png = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(png, "PNG")
    return BOX + png.getvalue()


@pytest.fixture
def reader(monkeypatch):
    module = types.ModuleType("pillow_heif")
    module.HeifImageFile = lambda file, name: PngImagePlugin.PngImageFile(io.BytesIO(file.getvalue()[len(BOX) :]), name)
    monkeypatch.setitem(sys.modules, "pillow_heif", module)


def test_without_the_package_the_pip_line_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for function in (check_image, decode_rgb):
        with pytest.raises(UnreadableImage, match="HEIC, which needs the package pillow-heif") as error:
            function(stand_in("red"))
        assert error.value.fix == PIP and PIP in str(error.value)
    make_images(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "a/IMG_1.HEIC").write_bytes(stand_in("red"))
    with pytest.raises(DataError, match="1 of 9 image files") as refusal:
        scan_simply(tmp_path)
    assert refusal.value.fix.startswith(PIP)
    (one,) = scan_simply(tmp_path, max_unreadable=0.2).unreadable
    assert one.fix == PIP


def test_with_the_package_it_is_an_image_like_others(reader, tmp_path):
    make_images(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "a/IMG_1.HEIC").write_bytes(stand_in("red"))
    dataset = scan_simply(tmp_path)
    assert len(dataset.examples) == 9 and not dataset.unreadable
    assert "HEIF" not in Image.OPEN  # Pillow's own list is left alone
    assert decode_rgb(stand_in("red")).getpixel((0, 0)) == (255, 0, 0)


def test_an_avif_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = io.BytesIO()
    Image.new("RGB", (8, 6), "blue").save(data, "AVIF")
    assert decode_rgb(data.getvalue()).size == (8, 6)


def test_a_real_one():
    heif = pytest.importorskip("pillow_heif")
    y, x = np.mgrid[0:48, 0:64]
    picture = np.stack([x * 4, y * 5, x + y], axis=-1).astype("uint8")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    heif.from_pillow(Image.fromarray(picture)).save(data, quality=95, exif=exif.tobytes())
    upright = np.asarray(decode_rgb(data.getvalue()))
    assert upright.shape == (64, 48, 3)
    assert np.abs(upright.astype(int) - np.rot90(picture, -1)).mean() < 3
