"""A sealed file is read back exactly or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from multitl.files.sealed_arrays import NAMES, DamagedError, read_sealed, write_sealed

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "weights/0": RANDOM.normal(size=(3, 4)).astype("float32"),
    "weights/1": np.arange(6, dtype="uint32").reshape(2, 3).T,  # not in C order
    "none": np.zeros((0, 5), "float32"),
    "one": np.array(7, "int64"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sealed") / "a.safetensors"
    write_sealed(path, ARRAYS, "über".encode())
    return path.read_bytes()


def seal(content: bytes) -> bytes:
    """As somebody would who wants a file to be taken for a good one."""
    return content + hashlib.sha256(content).digest()


def forge(header: dict, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return seal(len(text).to_bytes(8, "little") + text + data)


def refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        read_sealed(path)


@pytest.mark.parametrize("kind", NAMES, ids=str)
@pytest.mark.parametrize("order", "<>")
def test_every_type_comes_back(tmp_path: Path, kind: np.dtype, order: str) -> None:
    array = RANDOM.integers(0, 2, (2, 3)).astype(kind.newbyteorder(order))
    write_sealed(tmp_path / "a", {"a": array}, b"")
    arrays, about = read_sealed(tmp_path / "a")
    np.testing.assert_array_equal(arrays["a"], array)
    assert arrays["a"].dtype == kind.newbyteorder("=") and arrays["a"].flags.writeable and about == b""


def test_shapes_names_and_text_come_back(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "a").write_bytes(whole)
    arrays, about = read_sealed(tmp_path / "a")
    assert sorted(arrays) == sorted(ARRAYS) and about.decode() == "über"
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].shape == array.shape


def test_any_reader_of_safetensors_can_read_it(whole: bytes) -> None:
    tensors = safetensors.numpy.load(whole)
    assert tensors["sha256"].tobytes() == hashlib.sha256(whole[:-32]).digest()
    np.testing.assert_array_equal(tensors["weights/0"], ARRAYS["weights/0"])


@pytest.mark.parametrize("bit", [0, 7])
def test_no_flipped_bit_goes_unnoticed(tmp_path: Path, whole: bytes, bit: int) -> None:
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        refuse(tmp_path / "a", flipped)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_nor_does_anything_cut_or_added(tmp_path_factory, whole: bytes, data: st.DataObject) -> None:
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    other = data.draw(st.binary(max_size=40))
    if (changed := whole[:first] + other + whole[last:]) != whole:
        refuse(tmp_path_factory.mktemp("cut") / "a", changed)


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_sealed_again_it_is_read_or_refused(tmp_path_factory, whole: bytes, data: st.DataObject) -> None:
    """The digest is right, so the header itself is what has to hold."""
    place = data.draw(st.integers(0, len(whole) - 33))
    content = bytearray(whole[:-32])
    content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    path = tmp_path_factory.mktemp("forged") / "a"
    path.write_bytes(seal(content))
    try:
        arrays, _ = read_sealed(path)
    except DamagedError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= len(whole)


SHA = {"dtype": "U8", "shape": [32], "data_offsets": [0, 32]}


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"sha256": SHA},
        {"about": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}},
        {"sha256": SHA, "about": {"dtype": "F8_E4M3", "shape": [0], "data_offsets": [0, 0]}},
        {"sha256": SHA, "about": {"dtype": "S2000000000", "shape": [0], "data_offsets": [0, 0]}},
        {"sha256": SHA, "about": {"dtype": "U8", "shape": [0, 2**62, 4], "data_offsets": [0, 0]}},
        {"sha256": SHA, "about": {"dtype": "U8", "shape": [2**70], "data_offsets": [0, 0]}},
        {"sha256": SHA, "about": {"dtype": "U8", "shape": [1] * 70 + [0], "data_offsets": [0, 0]}},
        {"sha256": SHA, "about": {"dtype": "U8", "shape": [10**9], "data_offsets": [0, 10**9]}},
        {"sha256": SHA, "about": []},
    ],
)
def test_headers_that_ask_for_what_is_not_there(tmp_path: Path, header: dict) -> None:
    refuse(tmp_path / "a", forge(header))


@pytest.mark.parametrize("content", [b"", b"x", bytes(31), bytes(32), seal(b""), seal(bytes(8)), seal(b"\xff" * 16)])
def test_files_of_next_to_nothing(tmp_path: Path, content: bytes) -> None:
    refuse(tmp_path / "a", content)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "zero"):
        with pytest.raises(DamagedError):
            read_sealed(path)
    with pytest.raises(FileNotFoundError):
        read_sealed(tmp_path / "nowhere")
