"""safetensors_files.py against the safetensors package itself, and against damaged and malicious files."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitl.errors import WeightsError
from multitl.files.safetensors_files import is_safetensors, read_safetensors_file

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def small() -> dict[str, torch.Tensor]:
    """Tensors of every type and of awkward shapes."""
    random = torch.Generator().manual_seed(0)
    tensors = {name: torch.randint(0, 2, (3, 4), generator=random).to(getattr(torch, name)) for name in DTYPES}
    special = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-40, 3.3e38, 1 / 3])
    tensors |= {f"special {name}": special.to(getattr(torch, name)) for name in DTYPES[:4]}
    return tensors | {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "bf scalar": torch.tensor(2.5).bfloat16(),
    }


def file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_every_type_is_read_as_the_package_does(tmp_path: Path):
    safetensors.torch.save_file(small(), tmp_path / "small.safetensors", metadata={"format": "pt"})
    theirs = safetensors.torch.load_file(tmp_path / "small.safetensors")
    ours = read_safetensors_file(tmp_path / "small.safetensors")
    assert ours.keys() == theirs.keys() == small().keys()
    for name, array in ours.items():
        expected = theirs[name].float() if theirs[name].dtype == torch.bfloat16 else theirs[name]
        np.testing.assert_array_equal(array, expected.numpy(), strict=True)
        assert array.dtype.isnative and array.flags.c_contiguous and array.flags.writeable


def test_types_that_numpy_does_not_have_are_refused_by_name(tmp_path: Path):
    tensors = {"fc.weight": torch.ones(2).to(torch.float8_e4m3fn)}
    safetensors.torch.save_file(tensors, tmp_path / "small.safetensors")
    with pytest.raises(WeightsError, match=r"fc\.weight is stored as F8_E4M3"):
        read_safetensors_file(tmp_path / "small.safetensors")


DAMAGED = {
    "empty": (b"", "it is empty"),
    "short": (b"abc", "no known kind"),
    "only a length": (struct.pack("<Q", 2), "no known kind"),
    "web page": (b"<!DOCTYPE html><html></html>", "web page"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "header of 4 EiB": (struct.pack("<Q", 2**62) + b"{}", "header"),
    "header of 90 MB": (struct.pack("<Q", 90_000_000) + b"{}", "header"),
    "header of zeros": (struct.pack("<Q", 0) + b"{}", "header"),
    "no JSON": (file(b"{{{{{{{{"), "header"),
    "no UTF-8": (file(b'{"\xff": 1}'), "header"),
    "lists without end": (file(b'{"a":' + b"[" * 1_000_000), "header"),
    "dicts without end": (file(b'{"a":' * 1_000_000), "header"),
    "no offsets": (file({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)), "header"),
    "unknown type": (file({"a": entry([1], 0, 4, "F31")}, bytes(4)), "header"),
    "negative side": (file({"a": entry([-1], 0, 4)}, bytes(4)), "header"),
    "sides beyond 2**64": (file({"a": entry([2**40, 2**40], 0, 4)}, bytes(4)), "header|deserializing"),
    "sides beyond the memory": (file({"a": entry([2**40], 0, 2**42)}, bytes(4)), "deserializing"),
    "empty, of an absurd shape": (file({"a": entry([0, 2**62], 0, 0)}), "too big|maximum"),
    "100 axes": (file({"a": entry([1] * 100, 0, 4)}, bytes(4)), "dimension"),
    "overlapping": (file({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)), "deserializing"),
    "twice the same": (file({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, bytes(8)), "deserializing"),
    "a hole": (file({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)), "deserializing"),
    "backwards": (file({"a": entry([1], 4, 0)}, bytes(4)), "deserializing"),
    "shape of other size": (file({"a": entry([2], 0, 4)}, bytes(4)), "deserializing"),
    "beyond the end": (file({"a": entry([2], 0, 8)}, bytes(4)), "deserializing"),
    "too long": (file({"a": entry([1], 0, 4)}, bytes(8)), "deserializing"),
    "a name twice": (
        file(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
            bytes(8),
        ),
        "deserializing",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_files_are_refused_without_much_memory(tmp_path: Path, damage: str):
    content, message = DAMAGED[damage]
    (tmp_path / "bad.safetensors").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(WeightsError, match=rf"bad\.safetensors cannot be read as a safetensors file: .*({message})"):
        read_safetensors_file(tmp_path / "bad.safetensors")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000


def test_missing_files_and_folders(tmp_path: Path):
    with pytest.raises(WeightsError, match="no such file"):
        read_safetensors_file(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="it is a folder"):
        read_safetensors_file(tmp_path)


def test_files_of_torch_save_do_not_begin_like_safetensors(tmp_path: Path):
    for is_zip in (True, False):
        torch.save({"a": torch.ones(1)}, tmp_path / "file.pth", _use_new_zipfile_serialization=is_zip)
        assert not is_safetensors((tmp_path / "file.pth").read_bytes())
    assert is_safetensors(safetensors.torch.save({"a": torch.ones(1)}))


@pytest.fixture(scope="module")
def content() -> bytes:
    return safetensors.torch.save(small())


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "damaged.safetensors"


def test_every_truncation_is_refused(content: bytes, scratch: Path):
    for end in range(0, len(content), 7):
        scratch.write_bytes(content[:end])
        with pytest.raises(WeightsError):
            read_safetensors_file(scratch)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_gives_arrays_or_an_error_of_ours(content: bytes, scratch: Path, data: st.DataObject):
    changed = bytearray(content)
    place = st.integers(0, len(content) - 1)
    for position, byte in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4)):
        changed[position] = byte
    scratch.write_bytes(bytes(changed))
    try:
        arrays = read_safetensors_file(scratch)
    except WeightsError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= 2 * len(content)  # bfloat16 doubles
