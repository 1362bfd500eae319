"""HDF5 runs in a process of its own: every array comes back as it was, and what ends that process is a refusal."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from multitl.errors import RunError, WeightsError
from multitl.files.hdf5_contents import ask_for_model
from multitl.files.hdf5_files import open_weight_file

CORPUS = Path(__file__).parents[1] / "corpus" / "hdf5"
NUMBERS = np.random.default_rng(0).normal(size=(70, 9, 5)).astype("float32")

Write = Callable[[h5py.Group], object]


def write(path: Path, *arrays: Write) -> Path:
    """A file of Keras 3's layout with one layer."""
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense/vars")
        for array in arrays:
            array(group)
    return path


def read(path: Path) -> list[np.ndarray]:
    with open_weight_file(path) as file:
        (layer,) = file.layers
        return [file.read(weight) for weight in layer.weights]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (16, 4, 5)},
        {"chunks": True, "compression": "gzip", "shuffle": True},
        {"chunks": (70, 9, 5), "compression": "lzf", "fletcher32": True},
        {"maxshape": (None, 9, 5)},
        {"dtype": ">f4"},
        {"dtype": "f8"},
        {"dtype": "f2"},
    ],
    ids=str,
)
def test_however_an_array_is_stored_it_comes_back(tmp_path: Path, options: dict):
    path = write(tmp_path / "x.weights.h5", lambda group: group.create_dataset("0", data=NUMBERS, **options))
    (found,) = read(path)
    np.testing.assert_array_equal(found, NUMBERS.astype(options.get("dtype", "f4")))
    assert found.dtype.isnative


def test_scalars_empty_arrays_integers_and_odd_kinds_of_numbers_come_back(tmp_path: Path):
    def odd(group: h5py.Group) -> None:
        kind = h5py.h5t.IEEE_F32LE.copy()  # bfloat16: the upper half of a float32
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_size(2)
        group.create_dataset("3", (3,), h5py.Datatype(kind))[:] = [1.5, -2.0, 0.25]

    path = write(
        tmp_path / "x.weights.h5",
        lambda group: group.create_dataset("0", data=np.float32(3)),
        lambda group: group.create_dataset("1", shape=(0, 4), dtype="f4"),
        lambda group: group.create_dataset("2", data=np.arange(6, dtype="i8").reshape(2, 3)),
        odd,
    )
    scalar, empty, whole, bfloat16 = read(path)
    assert scalar == 3 and scalar.shape == () and empty.shape == (0, 4)
    assert whole.tolist() == [[0, 1, 2], [3, 4, 5]] and whole.dtype == np.int64
    assert bfloat16.tolist() == [1.5, -2.0, 0.25]


@pytest.mark.parametrize(
    "array",
    [
        lambda group: group.create_dataset("0", shape=(10**6, 1000), dtype="f4"),  # never written
        lambda group: group.create_dataset("0", shape=(10**6, 1000), dtype="f4", chunks=(1000, 1000)),
        lambda group: group.create_dataset("0", data=np.zeros(2**23, "f4"), compression="gzip"),
        lambda group: group.create_dataset("0", data=np.zeros(4, "S2000")),
        lambda group: group.create_dataset("0", data=np.zeros(4, [("a", "f4"), ("b", "f4")])),
        lambda group: group.create_dataset("0", data=np.zeros(4, "c8")),
        lambda group: group.create_dataset("0", data=np.zeros(4, "?")),
    ],
)
def test_what_is_claimed_and_what_is_no_number_is_refused(tmp_path: Path, array: Write):
    with pytest.raises(WeightsError, match="Cannot read weights"):
        read(write(tmp_path / "x.weights.h5", array))


def test_many_names_of_one_array_cannot_fill_the_memory(tmp_path: Path):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/a/vars/0"] = np.ones(2**20, "f4")
        for number in range(40):
            file[f"layers/b{number}/vars/0"] = file["layers/a/vars/0"]
    with pytest.raises(WeightsError, match="far more bytes than the file has"):
        read(path)


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_files_that_crashed_hdf5_or_filled_the_memory_are_refused(path: Path):
    """Also when asked for the model: of a file with a fault in its weights alone the description may be read."""
    with pytest.raises(WeightsError, match="damaged or unreadable"):
        read(path)
    try:
        ask_for_model(path)
    except ValueError as error:
        assert str(error)


def _in_the_worker(code: str) -> subprocess.CompletedProcess[str]:
    whole = f"from multitl.files import hdf5_worker; hdf5_worker._limit(10_000)\n{code}"
    return subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_the_process_that_reads_is_limited_in_memory_and_time():
    assert "MemoryError" in _in_the_worker("bytearray(2**30)").stderr
    assert _in_the_worker("while True: pass").returncode < 0
    assert _in_the_worker("import numpy; print(numpy.ones(2**20).sum())").stdout == "1048576.0\n"


def test_a_full_disk_is_no_damage_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = write(tmp_path / "x.weights.h5", lambda group: group.create_dataset("0", data=NUMBERS))
    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(RunError, match="No space left"):
        read(path)
