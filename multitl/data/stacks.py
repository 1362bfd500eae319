"""Images of other channels than red, green and blue, which `--channels` picks or takes: arrays in .npy files, and TIFFs
of any number of channels, also one a page. Those need the package tifffile.
"""

from __future__ import annotations

import io
import math
import re
from typing import Literal

import numpy as np

from multitl.contracts import Decoding
from multitl.data.bands import LONGEST_HEADER, NPY, arrange, channels_last
from multitl.data.tiffs import is_ordinary

TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFFFILE = "pip install 'multitl[multispectral]'"
# What an .npy file says of its array; of no record, which is a list of fields. Python 2 wrote 3L for 3.
SAID = {
    "descr": re.compile(r"'descr': *'([<>=|]?[a-zA-Z]\d*)'"),
    "fortran_order": re.compile(r"'fortran_order': *(True|False)"),
    "shape": re.compile(r"'shape': *\(([\d, L]*)\)"),
}


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
        _, kind, order, start = _read_header(data)
        values = np.frombuffer(data, kind, math.prod(shape), start).reshape(shape, order=order)
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
    shape, kind, _, start = _read_header(data)
    if len(data) - start < math.prod(shape) * kind.itemsize:
        raise EOFError("an array that is shorter than its header says")
    return shape, ""


def _read_header(data: bytes) -> tuple[tuple[int, ...], np.dtype, Literal["C", "F"], int]:
    """Shape, type and order of an .npy file's array, and where its values begin. Raises ValueError.

    NumPy's own reader has the header parsed as Python, and while several threads do that, CPython 3.11 and 3.12 now and
    then fail with "AST constructor recursion depth mismatch" (python/cpython#106905): a sound image would be damaged.
    """
    length = 2 if np.lib.format.read_magic(io.BytesIO(data)) == (1, 0) else 4
    start = len(NPY) + 2 + length
    end = start + int.from_bytes(data[start - length : start], "little")
    if end - start > LONGEST_HEADER or end > len(data):
        raise ValueError("an array with a damaged header")
    header = data[start:end].decode("latin1")
    found = {name: pattern.search(header) for name, pattern in SAID.items()}
    if lacking := [name for name, match in found.items() if match is None]:
        raise ValueError(f"an array whose header does not say its {lacking[0]}")
    kind, is_fortran, sizes = (match[1] for match in found.values() if match)
    shape = tuple(int(size.strip(" L")) for size in sizes.split(",") if size.strip())
    return shape, np.dtype(kind), "F" if is_fortran == "True" else "C", end
