"""DICOM: through the file's own window, or by --range; compared with what pydicom itself makes of it."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

from multitl.contracts import Decoding
from multitl.data.depths import FLOATS, GREY16, PLAIN
from multitl.data.images import UnreadableImage, check_image, count_pixels, decode_rgb, suffix_of

VALUES = np.arange(-1000, 2000, 10, dtype=np.int16).reshape(15, 20)  # Hounsfield units


def file_of(pixels: np.ndarray, **tags) -> bytes:
    """A DICOM file of frames or one image. tags: beside those that pixels need."""
    pydicom = pytest.importorskip("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    colours = pixels.ndim == 3 and pixels.shape[-1] == 3
    data.Rows, data.Columns = pixels.shape[-3:-1] if colours else pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colours else (1, "MONOCHROME2")
    if colours:
        data.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    for name, value in tags.items():
        setattr(data, name, value)
    data.add_new("PixelData", "OB" if pixels.itemsize == 1 else "OW", pixels.tobytes())
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def grey(data: bytes, decoding: Decoding = Decoding()) -> np.ndarray:  # noqa: B008  (frozen)
    image = np.asarray(decode_rgb(data, decoding))
    assert (image[..., :1] == image).all()
    return image[..., 0].astype(int)


@pytest.mark.parametrize("function", [None, "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("window", [(40, 400), ([-600, 40], [1500, 400])])
def test_the_window_of_a_ct(function, window):
    tags = dict(zip(("WindowCenter", "WindowWidth"), window, strict=True))
    tags |= {"VOILUTFunction": function} if function else {}
    data = file_of(VALUES + 1024, RescaleSlope=1, RescaleIntercept=-1024, **tags)
    from pydicom import dcmread
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    read = dcmread(io.BytesIO(data))
    there = apply_voi_lut(apply_modality_lut(read.pixel_array, read), read)
    low, high = -1024 - 32768, 32767 - 1024  # of signed 16 bits
    assert np.abs(grey(data) - 255 * (there - low) / (high - low)).max() <= 0.51
    assert check_image(data).kind == PLAIN and count_pixels(data) == 300 and suffix_of(data) == ".dcm"


def test_a_range_goes_before_the_window():
    data = file_of(VALUES, WindowCenter=40, WindowWidth=400)
    expected = np.clip((VALUES + 1000) / 2000, 0, 1) * 255
    assert np.abs(grey(data, Decoding(values=(-1000, 1000))) - expected).max() <= 1


def test_without_a_window_values_are_measured_ones():
    assert check_image(file_of(VALUES)) == (GREY16, -1000, 1990, 1, 1)
    with pytest.raises(UnreadableImage, match="outside") as error:
        decode_rgb(file_of(VALUES))
    assert "--range" in error.value.fix
    scaled = file_of(np.abs(VALUES), RescaleSlope="0.5", RescaleIntercept="0")
    assert check_image(scaled) == (FLOATS, 0, 995, 1, 1)
    plain = (np.arange(300) % 256).astype(np.uint16).reshape(15, 20)
    assert np.array_equal(grey(file_of(plain * 257)), plain)


def test_white_may_be_zero():
    tags = {"WindowCenter": 40, "WindowWidth": 400}
    inverted = file_of(VALUES, PhotometricInterpretation="MONOCHROME1", **tags)
    assert np.array_equal(grey(inverted), 255 - grey(file_of(VALUES, **tags)))
    values = np.abs(VALUES).astype(np.uint16)
    told = check_image(file_of(values, PhotometricInterpretation="MONOCHROME1"))
    assert (told.low, told.high) == (65535 - 1990, 65535)


def test_colours_and_frames():
    colours = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    assert np.array_equal(np.asarray(decode_rgb(file_of(colours))), colours)
    frames = np.random.default_rng(0).integers(0, 256, (4, 6, 8), np.uint8)
    data = file_of(frames, WindowCenter=128, WindowWidth=256)
    assert np.array_equal(grey(data), frames[0]) and np.array_equal(grey(data, Decoding(page=3)), frames[2])
    with pytest.raises(UnreadableImage, match="no page 9"):
        decode_rgb(data, Decoding(page=9))


def test_damaged_files_and_large_ones():
    data = file_of(VALUES, WindowCenter=40, WindowWidth=400)
    for cut in (132, 200, 400, len(data) - 100):
        with pytest.raises(UnreadableImage):
            decode_rgb(data[:cut])
    with pytest.raises(UnreadableImage, match="too large"):
        check_image(file_of(VALUES, Rows=60000, Columns=60000))


def test_without_the_package_the_pip_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnreadableImage, match=r"pip install 'multitl\[dicom\]'"):
        decode_rgb(bytes(128) + b"DICM" + bytes(100))


def test_a_file_that_is_deflated_as_a_whole_is_not_inflated():
    pydicom = pytest.importorskip("pydicom")
    data = pydicom.dcmread(io.BytesIO(file_of(np.zeros((2000, 2000), np.uint8))))
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data["PixelData"].VR = "OB"
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    with pytest.raises(UnreadableImage, match="deflated as a whole"):
        count_pixels(file.getvalue())
