"""Heaps of strings in HDF5 files, looked at before HDF5 does.

HDF5 (1.14.6 and 2.0.0) walks a damaged global heap in an endless loop that not even Ctrl-C interrupts. For the layout
see the HDF5 File Format Specification, III.E; lengths have 8 bytes, as h5py writes them.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_START = b"GCOL\x01"
_HEADER = 16  # bytes, of a heap and of an object in it
_SMALLEST = 4096


def check_heaps(path: Path) -> None:
    """Raise ValueError if a heap in the file does not add up. Reads the whole file once."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(_START)
        while start >= 0:
            _check_heap(data, start)
            start = data.find(_START, start + 1)


def _check_heap(data: mmap.mmap, start: int) -> None:
    if start + _HEADER > len(data):
        return
    (size,) = struct.unpack_from("<Q", data, start + 8)
    if not _SMALLEST <= size <= len(data) - start:
        return  # not a heap but numbers that look like one; HDF5 itself refuses heaps of such sizes
    here, end = start + _HEADER, start + size
    while here + _HEADER <= end:
        index, length = struct.unpack_from("<H6xQ", data, here)
        # index 0 is the free space at the end, whose length includes the header
        step = _HEADER + -(-length // 8) * 8 if index else length
        if not _HEADER <= step <= end - here:
            raise ValueError(f"damaged heap of strings at byte {here}")
        here += step
