"""Named arrays and a text about them in one file that shows any damage: checkpoints and feature shards.

A safetensors file whose last tensor, `sha256`, is the digest of every byte before it. Nothing in one runs; the
`safetensors` package checks that every byte belongs to just one tensor and every shape to its bytes; no more memory is
asked for than the file has bytes. A digest proves that a file is whole, not who wrote it: what is in there is for its
reader to check.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from multitl.errors import RunError
from multitl.system.regular_files import MOST_MODEL, read_regular
from multitl.system.writing import atomic_write

ABOUT, SEAL = "about", "sha256"
SEAL_BYTES = 32
TYPES = {  # safetensors' name -> numpy's type in the file
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
NO_FILE_OF_OURS = (errno.EINVAL, errno.EISDIR)  # a folder, a pipe, a file beyond all sizes: see regular_files.py
NAMES = {np.dtype(kind): name for name, kind in TYPES.items()}


class DamagedError(ValueError):
    """A file that is not as it was sealed. Callers know what its loss means, and say so to the user."""


def write_sealed(path: str | Path, arrays: Mapping[str, np.ndarray], about: bytes) -> None:
    """Write arrays of floats, integers or bools, and a text about them, atomically: see `runs.atomic_write`."""
    stored = {ABOUT: np.frombuffer(about, "u1")} | {name: _as_stored(array) for name, array in arrays.items()}
    digest = hashlib.sha256()
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        parts: list[bytes | memoryview] = [_header(stored), *(array.data for array in stored.values() if array.size)]
        for part in parts:
            digest.update(part)
            file.write(part)  # one by one: never a copy of them all
        file.write(digest.digest())


def read_sealed(path: str | Path) -> tuple[dict[str, np.ndarray], bytes]:
    """The arrays, each in memory of its own, and the text. Raises DamagedError for whatever else lies there.

    Raises OSError, or MemoryError, where it cannot be told what lies there: too many files are open, a network drive
    does not answer. Such a file may be whole.
    """
    try:
        data = read_regular(path, MOST_MODEL)
        if hashlib.sha256(memoryview(data)[:-SEAL_BYTES]).digest() != data[-SEAL_BYTES:]:
            raise DamagedError("its checksum is not that of its content")
        arrays = {name: _array(entry) for name, entry in deserialize(data)}
        del arrays[SEAL]
        return arrays, arrays.pop(ABOUT).tobytes()
    except (SafetensorError, OSError, ValueError, KeyError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno not in NO_FILE_OF_OURS:
            raise
        raise DamagedError(f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)) from error


def cannot_read(what: str, error: OSError | MemoryError, fix: str) -> RunError:
    """The RunError for a file that `read_sealed` cannot tell anything of. what: its name.  fix: what comes then."""
    return RunError(
        f"{what} cannot be read: {getattr(error, 'strerror', None) or 'no memory left'}.",
        expected="the file that training left, which may be whole",
        received=type(error).__name__,
        fix=f"mend that, {fix}",
    )


def place_of(path: str | Path, name: str) -> int:
    """At which byte of a sealed file an array begins; for one that `read_sealed` found whole. Raises OSError."""
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return 8 + length + json.loads(file.read(length))[name]["data_offsets"][0]


def _as_stored(array: np.ndarray) -> np.ndarray:
    """In the file's order of bytes and of axes."""
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _header(arrays: Mapping[str, np.ndarray]) -> bytes:
    """As https://huggingface.co/docs/safetensors has it: length, then JSON of each tensor's type, shape and place."""
    entries: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        entries[name] = _entry(NAMES[array.dtype], array.shape, end, array.nbytes)
        end += array.nbytes
    entries[SEAL] = _entry("U8", (SEAL_BYTES,), end, SEAL_BYTES)
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _entry(kind: str, shape: tuple[int, ...], start: int, size: int) -> dict[str, Any]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": [start, start + size]}


def _array(entry: dict[str, Any]) -> np.ndarray:
    stored = np.dtype(TYPES[entry["dtype"]])
    return np.frombuffer(entry["data"], stored).reshape(entry["shape"]).astype(stored.newbyteorder("="), copy=False)
