"""What `multitl.files.hdf5_worker` finds in an HDF5 file, asked for and checked. No HDF5 in this process."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from multitl.system import children

_DTYPES = {
    f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")
} | {"|i1", "|u1"}  # fmt: skip
_PATIENCE = 120  # seconds, besides one for each _BYTES_A_SECOND; the worker limits its time of a processor itself
_BYTES_A_SECOND = 1_000_000
_COPIES = "arrays"
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # each thread would take address space
    "HDF5_PLUGIN_PRELOAD": "::",  # no filters from other libraries: a file may ask for them
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True)
class Place:
    """An array's numbers: its first byte in a file. They lie there in order, without gaps."""

    file: Path
    offset: int
    dtype: str
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """The numbers, in native byte order. Raises OSError, and ValueError if the file has become shorter."""
        dtype = np.dtype(self.dtype)
        array = np.fromfile(self.file, dtype, math.prod(self.shape), offset=self.offset)
        return array.reshape(self.shape).astype(dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True)
class Description:
    """config: the network as JSON, None if the file holds none.  holds_weights: whether it is Keras' at all."""

    config: str | None
    keras_version: str
    holds_weights: bool


Layers = list[tuple[str, str, list[tuple[str, Place]]]]  # name, path, weights by name


def ask_for_model(file: Path) -> Description:
    """Raises ValueError for what is damaged or unsafe, OSError for a file or a machine that fails."""
    found = _ask("model", file, file.parent)  # nothing is written
    return Description(found["config"], found["keras_version"], found["holds_weights"])


def ask_for_weights(file: Path, scratch: Path) -> tuple[bool, Layers]:
    """Whether a file is of a legacy format, and its layers. scratch: a folder that lives as long as they are read.

    Raises as `ask_for_model` does.
    """
    found = _ask("weights", file, scratch)
    sizes = {one: one.stat().st_size for one in (file, scratch / _COPIES)}
    return found["is_legacy"], [
        (name, path, list(_places(weights, file, scratch / _COPIES, sizes))) for name, path, weights in found["layers"]
    ]


def _places(weights: list, file: Path, copies: Path, sizes: dict[Path, int]) -> Iterator[tuple[str, Place]]:
    for name, dtype, shape, is_copy, offset in weights:
        place = Place(copies if is_copy else file, offset, dtype, tuple(shape))
        if dtype not in _DTYPES:
            raise ValueError(f"{name} is not an array of numbers of a usual kind")
        if not 0 <= offset <= sizes[place.file] - math.prod(shape) * np.dtype(dtype).itemsize:
            raise ValueError(f"{name} is an array whose numbers are not in the file")
        yield name, place


def _ask(what: Literal["model", "weights"], file: Path, scratch: Path) -> dict[str, Any]:
    """The worker's answer. Whatever ends it early is the file's fault: a crash, a hang, too much memory."""
    arguments = [what, str(file), str(scratch / _COPIES)]
    patience = _PATIENCE + file.stat().st_size / _BYTES_A_SECOND
    ended = children.run("multitl.files.hdf5_worker", arguments, os.environ | _ENVIRONMENT, patience)
    if ended.code is None:
        raise ValueError("HDF5 does not come to an end with it")
    if ended.code:
        raise ValueError(f"HDF5 cannot read it: {children.last_words(ended)}")
    found = json.loads(ended.out)
    if "full" in found:
        raise OSError(found["full"], os.strerror(found["full"]), str(scratch))
    if "refused" in found:
        raise ValueError(found["refused"])
    return found
