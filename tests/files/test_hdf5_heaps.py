"""Damaged heaps of strings are found before HDF5 falls into an endless loop over them."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from multitl.files.hdf5_heaps import check_heaps

READ = "import sys, h5py; print(h5py.File(sys.argv[1]).attrs['names'].tolist())"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Strings of many lengths in several heaps, and arrays of noise."""
    names = ["x" * length for length in (0, 1, 7, 8, 9, 100, 3000)]
    with h5py.File(tmp_path / "file.h5", "w") as opened:
        opened.attrs["names"] = names
        opened["more"] = [name * 3 for name in names * 20]
        opened["noise"] = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)
    return tmp_path / "file.h5"


def test_sound_files_pass(file: Path) -> None:
    assert file.read_bytes().count(b"GCOL") > 1
    check_heaps(file)


def test_numbers_that_look_like_a_heap_pass(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"GCOL\x01" + 100 * b"\xff" + b"GCOL\x01")
    check_heaps(tmp_path / "file")


@pytest.mark.parametrize(
    ("index", "length"), [(0, 0), (0, 8), (0, 2**40), (0, 2**64 - 1), (1, 2**40), (1, 2**64 - 16), (1, 2**64 - 1)]
)
def test_object_of_impossible_length_is_refused(file: Path, index: int, length: int) -> None:
    data = bytearray(file.read_bytes())
    struct.pack_into("<H6xQ", data, data.index(b"GCOL") + 16, index, length)
    file.write_bytes(data)
    with pytest.raises(ValueError, match="damaged heap"):
        check_heaps(file)


def test_what_passes_is_read_to_an_end(file: Path) -> None:
    whole, chance = file.read_bytes(), random.Random(0)
    start, passed = whole.index(b"GCOL"), 0
    for _ in range(300):
        data = bytearray(whole)
        data[start + chance.randrange(200)] = chance.randrange(256)
        file.write_bytes(data)
        try:
            check_heaps(file)
        except ValueError:
            continue
        passed += 1
        if passed % 20 == 0:  # a process each: HDF5 cannot be interrupted
            subprocess.run([sys.executable, "-c", READ, str(file)], capture_output=True, timeout=60)
    assert passed >= 100
