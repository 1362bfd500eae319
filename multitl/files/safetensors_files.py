"""Read .safetensors files: a JSON header of names, types, shapes and places, then the raw numbers. Nothing in one runs.

The `safetensors` package checks the header (every byte belongs to just one tensor, every shape to its bytes) and hands
over raw bytes; they become arrays here, because its own numpy functions fail on bfloat16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from multitl.errors import WeightsError
from multitl.files.torch_files import other_kind
from multitl.files.torch_tensors import widen_bfloat16
from multitl.system.regular_files import MOST_MODEL, read_regular

# safetensors' name -> (numpy's type in the file, type to make of it or "" for the same), as for torch_files.
_TYPES = {
    "F64": ("<f8", ""),
    "F32": ("<f4", ""),
    "F16": ("<f2", ""),
    "BF16": ("<u2", "bfloat16"),
    "I64": ("<i8", ""),
    "I32": ("<i4", ""),
    "I16": ("<i2", ""),
    "I8": ("i1", ""),
    "U8": ("u1", ""),
    "BOOL": ("u1", "bool"),
}


def read_safetensors_file(path: str | Path) -> dict[str, np.ndarray]:
    """Read a .safetensors file: name -> array in native byte order, its own memory; bfloat16 becomes float32.

    Raises WeightsError for a file that is missing, damaged, no safetensors file, or of types that numpy does not have.
    """
    try:
        data = _content(Path(path))
        return {name: _array(name, entry) for name, entry in sorted(deserialize(data))}
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} cannot be read as a safetensors file: {error}.",
            expected="an undamaged .safetensors file of float, integer or bool tensors",
            fix="check the path, or download or save the file again",
        ) from error


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError("it is a folder" if path.is_dir() else "there is no such file")
    data = read_regular(path, MOST_MODEL)
    if not is_safetensors(data):
        raise ValueError(f"it is {other_kind(data[:32])}")
    return data


def is_safetensors(beginning: bytes) -> bool:
    """By the first 9 bytes of a file: 8 of the header's length, then JSON. No file of torch.save begins so."""
    return beginning[8:9] == b"{"


def _array(name: str, entry: dict[str, Any]) -> np.ndarray:
    if entry["dtype"] not in _TYPES:
        raise ValueError(f"{name[:80]} is stored as {entry['dtype']}")
    stored, becomes = _TYPES[entry["dtype"]]
    array = np.frombuffer(entry["data"], stored).reshape(entry["shape"])
    return widen_bfloat16(array) if becomes == "bfloat16" else array.astype(becomes or array.dtype.newbyteorder("="))
