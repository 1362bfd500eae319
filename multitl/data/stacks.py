"""Images of other channels than red, green and blue, which `--channels` picks or takes: arrays in .npy files, and TIFFs
of any number of channels, also one a page. Those need the package tifffile.
"""

from __future__ import annotations

import io
import math

import numpy as np

from multitl.contracts import Decoding
from multitl.data.bands import LONGEST_HEADER, NPY, arrange, channels_last
from multitl.data.tiffs import is_ordinary

TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFFFILE = "pip install 'multitl[multispectral]'"


def is_stack(data: bytes, decoding: Decoding) -> bool:
    """An array always; a TIFF where channels are asked for, and Pillow does not read all of them."""
    return data.startswith(NPY) or (decoding.channels is not None and data.startswith(TIFFS) and not is_ordinary(data))


def measure(data: bytes) -> tuple[int, int, int]:
    """Height, width and channels, by the header alone. Raises ImportError without tifffile, ValueError and others."""
    return arrange(*_describe(data))[0]


def read_stack(data: bytes) -> np.ndarray:
    """The values (height, width, channels). Raises as `measure`."""
    shape, axes = _describe(data)
    arrange(shape, axes)  # before anything large is read
    if data.startswith(NPY):
        values = np.load(io.BytesIO(data), allow_pickle=False, max_header_size=LONGEST_HEADER)
    else:
        from tifffile import TiffFile

        with TiffFile(io.BytesIO(data)) as file:
            values = file.series[0].asarray()
    return channels_last(values.reshape(shape), axes)


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
