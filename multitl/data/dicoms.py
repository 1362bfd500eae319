"""DICOM, as clinics keep images: a frame in grey by the window that the file names, or in colour.

Where the file names no window, or `--range` names another, the measured values are given (of a CT in Hounsfield units),
and depths.py says what becomes of them. Needs the package pydicom, and of some compressed files others that it names.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageFile

MARK, START = b"DICM", 128  # where it stands
DEFLATED = b"1.2.840.10008.1.2.1.99"


def is_dicom(data: bytes) -> bool:
    return data[START : START + len(MARK)] == MARK


def open_dicom(data: bytes, *, is_windowed: bool) -> ImageFile.ImageFile:
    """As Pillow opens a file: its size at once, its pixels when it is loaded. Raises ImportError without pydicom, and
    ValueError for a file that is deflated as a whole: pydicom would inflate it before anyone knows how large it is.
    """
    import pydicom  # noqa: F401  (what is missing is told here)

    if DEFLATED in data:
        raise ValueError("deflated as a whole (transfer syntax 1.2.840.10008.1.2.1.99); save it as another")
    return (_Windowed if is_windowed else _Measured)(io.BytesIO(data))  # pydicom reads on to the end: says what lacks


class _Windowed(ImageFile.ImageFile):
    """Mode L or RGB where there is a window or colour, else as `_Measured`."""

    format, format_description = "DICOM", "Digital Imaging and Communications in Medicine"
    is_windowed = True

    def _open(self) -> None:
        import pydicom

        assert self.fp is not None
        self.fp.seek(0)
        header = pydicom.dcmread(self.fp, stop_before_pixels=True)
        self._size, self._frames = (int(header.Columns), int(header.Rows)), int(header.get("NumberOfFrames", 1) or 1)
        self._mode, self._frame, self._loaded = _mode_of(header, self.is_windowed), 0, -1

    def seek(self, frame: int) -> None:
        if not 0 <= frame < self._frames:
            raise EOFError(f"no frame {frame}")
        self._frame = frame

    def tell(self) -> int:
        return self._frame

    def load(self) -> Any:
        if self._loaded != self._frame:
            import pydicom

            assert self.fp is not None
            self.fp.seek(0)
            values = _values(pydicom.dcmread(self.fp), self._frame, self.is_windowed)
            image = Image.fromarray(values)
            self.im, self._mode, self._size, self._loaded = image.im, image.mode, image.size, self._frame
        return super().load()


class _Measured(_Windowed):
    """Without the file's window: mode I or F, or RGB."""

    is_windowed = False


def _mode_of(header: Any, is_windowed: bool) -> str:
    if int(header.get("SamplesPerPixel", 1)) > 1 or "PALETTE" in header.PhotometricInterpretation:
        return "RGB"
    if is_windowed and _window(header):
        return "L"
    return "I" if _is_whole(header) else "F"


def _values(data: Any, frame: int, is_windowed: bool) -> np.ndarray:
    """uint8 (height, width) or (height, width, 3), or int32 or float32 (height, width)."""
    from pydicom.pixels import apply_color_lut, pixel_array

    stored = pixel_array(data, index=frame)
    if "PALETTE" in data.PhotometricInterpretation:
        stored = apply_color_lut(stored, data)
    if stored.ndim == 3:
        return stored if stored.dtype == np.uint8 else (stored >> (8 * stored.itemsize - 8)).astype(np.uint8)
    window = _window(data) if is_windowed else None
    is_inverted = data.PhotometricInterpretation == "MONOCHROME1"
    if not window:
        return _measured((1 << int(data.BitsStored)) - 1 - stored.astype(np.int64) if is_inverted else stored, data)
    grey = np.rint(255 * _through(window, _measured(stored, data).astype(float))).astype(np.uint8)
    return 255 - grey if is_inverted else grey


def _measured(stored: np.ndarray, data: Any) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut

    return apply_modality_lut(stored, data).astype(np.int32 if _is_whole(data) else np.float32)


def _is_whole(data: Any) -> bool:
    return all(float(data.get(name, 1)).is_integer() for name in ("RescaleSlope", "RescaleIntercept"))


def _window(data: Any) -> tuple[str, float, float] | None:
    """Function, centre and width of the first window; None without one."""
    centre, width = (data.get(name) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or centre == "" or width == "":
        return None
    centre, width = (float(np.atleast_1d(np.asarray(it, float))[0]) for it in (centre, width))
    return str(data.get("VOILUTFunction", "") or "LINEAR"), centre, width


def _through(window: tuple[str, float, float], values: np.ndarray) -> np.ndarray:
    """Shares of white, 0 to 1: DICOM PS3.3, C.11.2.1."""
    function, centre, width = window
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width <= 1:
        return (values > centre - 0.5).astype(float)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
