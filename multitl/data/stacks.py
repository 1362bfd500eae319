"""Images of other channels than red, green and blue, of which `--channels 4,3,2` picks three: arrays in .npy files, and
TIFFs of any number of channels, also one a page. Those need the package tifffile.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from multitl.contracts import Decoding

NPY = b"\x93NUMPY"
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
LONGEST_HEADER = 4096
PLAINLY = {1: (1, 1, 1), 3: (1, 2, 3)}  # number of channels -> which are red, green and blue, where nobody says
TIFFFILE = "pip install 'multitl[multispectral]'"


def is_stack(data: bytes, decoding: Decoding) -> bool:
    """An array always, a TIFF where channels are picked."""
    return data.startswith(NPY) or (decoding.channels is not None and data.startswith(TIFFS))


def measure(data: bytes) -> tuple[int, int, int]:
    """Height, width and channels, by the header alone. Raises ImportError without tifffile, ValueError and others."""
    return _arrange(*_describe(data))[0]


def read_stack(data: bytes) -> np.ndarray:
    """The values (height, width, channels). Raises as `measure`."""
    shape, axes = _describe(data)
    (_, _, channels), order = _arrange(shape, axes)
    if data.startswith(NPY):
        values = np.load(io.BytesIO(data), allow_pickle=False, max_header_size=LONGEST_HEADER)
    else:
        from tifffile import TiffFile

        with TiffFile(io.BytesIO(data)) as file:
            values = file.series[0].asarray()
    return values.reshape(shape).transpose(order).reshape(*(shape[axis] for axis in order[:2]), channels)


def as_band(values: np.ndarray) -> Image.Image:
    """A channel (height, width) as an image of 8 bits, of 16, of whole numbers or of floats. Raises ValueError."""
    if values.dtype == bool:
        return Image.fromarray(values.astype(np.uint8) * np.uint8(255))
    if values.dtype.kind not in "uif":
        raise ValueError(f"values of type {values.dtype}")
    if values.dtype.kind == "f":
        return Image.fromarray(np.ascontiguousarray(values, np.float32))
    if values.dtype.itemsize > 2 or values.dtype.kind == "i":
        if not -(2**31) <= int(values.min()) <= int(values.max()) < 2**31:
            raise ValueError(f"whole numbers of more than 32 bits: {values.min()} to {values.max()}")
        return Image.fromarray(np.ascontiguousarray(values, np.int32))
    return Image.fromarray(np.ascontiguousarray(values, values.dtype.newbyteorder("=")))


def _describe(data: bytes) -> tuple[tuple[int, ...], str]:
    """Shape and names of the axes as they lie in the file; "" where nobody names them."""
    if not data.startswith(NPY):
        from tifffile import TiffFile

        with TiffFile(io.BytesIO(data)) as file:
            return tuple(map(int, file.series[0].shape)), file.series[0].axes
    array, form = io.BytesIO(data), np.lib.format
    read = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}[form.read_magic(array)]
    shape, _, kind = read(array, max_header_size=LONGEST_HEADER)
    if len(data) - array.tell() < math.prod(shape) * kind.itemsize:
        raise EOFError("an array that is shorter than its header says")
    return shape, ""


def _arrange(shape: tuple[int, ...], axes: str) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Height, width and channels, and which axes these are. Unnamed ones: the shortest of the outer two is channels."""
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"an array of shape {shape}, which is no image")
    if len(shape) == 2:
        return (*shape, 1), (0, 1)
    place = next((axis for axis, name in enumerate(axes) if name not in "YX"), 0 if shape[0] < shape[2] else 2)
    height, width = (axis for axis in range(3) if axis != place)
    return (shape[height], shape[width], shape[place]), (height, width, place)
