"""What an HDF5 file holds, found out in a process of its own: `python -m multitl.files.hdf5_worker WHAT FILE COPIES`.

HDF5 is native code that trusts what it reads: damaged files crash it, hang it, or make it ask for gigabytes. No list of
checks can name what the next file will find, so all of HDF5 happens here, under a limit on memory and time, and
multitl's own process reads nothing but this one's answer, one JSON text on stdout. Of arrays that is their places:
nearly always their numbers lie in the file as they are. The others (compressed, in pieces, of an odd number format)
are written down plainly, one after another, in COPIES.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py

from multitl.errors import DISK_FULL
from multitl.files.hdf5_heaps import check_heaps

MOST_LAYERS = 100_000
MOST_GROWTH = 20  # bytes of arrays to a byte of the file; weights hardly compress
SPARE_BYTES = 2**24  # lets small files compress as they like
_MOST_DEPTH = 32  # of groups in groups; hard links can form a circle
_MOST_TEXT = 2**23  # letters of a description; that of NASNetLarge has one million
_MEMORY = 3 * 2**27  # bytes of address space, besides twice the file and what Python with h5py takes already
_SECONDS = 4  # of a processor, besides one for _BYTES_A_SECOND; a sound file of some hundred layers takes 0.2
_BYTES_A_SECOND = 10_000_000
_SLAB = 2**25  # bytes that are copied at a time
_DAMAGE = (OSError, LookupError, RuntimeError, ValueError, TypeError, ArithmeticError, EOFError)

Found = dict[str, Any]


def describe_model(path: Path, _: Path) -> Found:
    """{"config": JSON text or None, "keras_version": text, "holds_weights": whether it is of Keras}."""
    with h5py.File(path, "r", locking=False) as file:
        config = _text(file.attrs["model_config"]) if "model_config" in file.attrs else None
        if config is not None and len(config) > _MOST_TEXT:
            raise ValueError(f"a description of {len(config):,} letters")
        holds_weights = "layer_names" in file.attrs or "layer_names0" in file.attrs or "layers" in file
        version = _text(file.attrs.get("keras_version", ""))
    return {"config": config, "keras_version": version, "holds_weights": holds_weights}


def list_weights(path: Path, copies: Path) -> Found:
    """{"is_legacy": bool, "layers": [[name, path, [[name, dtype, shape, is_copy, offset], ...]], ...]}.

    offset: in bytes, of an array's numbers in the file, or in the copies.
    """
    size = path.stat().st_size
    with h5py.File(path, "r", locking=False) as file, copies.open("wb") as target:
        arrays = _Arrays(target, MOST_GROWTH * size + SPARE_BYTES)
        root = _child(file, "model_weights") if "model_weights" in file else file
        is_legacy = "layer_names" in root.attrs or "layer_names0" in root.attrs
        layers = list(_legacy_layers(root, arrays) if is_legacy else _layers_below(root, "", 0, arrays))
    return {"is_legacy": is_legacy, "layers": layers}


@dataclass
class _Arrays:
    """Finds arrays' numbers. copies: where those go that are not in the file.  left: bytes that more may claim."""

    copies: BinaryIO
    left: int

    def place(self, name: str, dataset: h5py.Dataset) -> list:
        """[name, dtype, shape, is_copy, offset]"""
        _check(name, dataset)
        self.left -= math.prod(dataset.shape) * dataset.dtype.itemsize
        if self.left < 0:
            raise ValueError("arrays of far more bytes than the file has")
        offset = dataset.id.get_offset() if h5py.h5t.py_create(dataset.dtype) == dataset.id.get_type() else None
        row = [_printable(name), dataset.dtype.str, list(dataset.shape)]
        return [*row, True, self._copy(dataset)] if offset is None else [*row, False, offset]

    def _copy(self, dataset: h5py.Dataset) -> int:
        start = self.copies.tell()
        if dataset.size and not dataset.id.get_storage_size():
            raise ValueError(f"{dataset.name} is an array whose numbers are not in the file")
        if not dataset.shape:
            self.copies.write(dataset[()].tobytes())
            return start
        row = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
        step = max(1, _SLAB // max(row, 1))
        for first in range(0, dataset.shape[0] if dataset.size else 0, step):
            dataset[first : first + step].tofile(self.copies)
        self.copies.seek(0, os.SEEK_END)
        return start


def _check(name: str, dataset: Any) -> None:
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or dataset.dtype.kind not in "fiu":
        raise ValueError(f"{name} is not an array of numbers")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name} points into other files")


def _legacy_layers(root: h5py.Group, arrays: _Arrays) -> Iterator[list]:
    for name in _names(root, "layer_names"):
        group = _child(root, name)
        weights = [arrays.place(weight, _child(group, weight)) for weight in _names(group, "weight_names")]
        if weights:
            yield [_printable(name), "", weights]


def _layers_below(group: h5py.Group, path: str, depth: int, arrays: _Arrays) -> Iterator[list]:
    if depth > _MOST_DEPTH:
        raise ValueError("groups nested too deeply")
    if "vars" in group:
        variables = _child(group, "vars")
        keys = sorted(variables, key=lambda key: (len(key), key))  # "0", "1", ... "10"
        weights = [arrays.place(key, _child(variables, key)) for key in keys]
        if weights:
            yield [_printable(str(variables.attrs.get("name", path))), _printable(path), weights]
    for key in group:
        if key != "vars" and not (depth == 0 and key == "optimizer"):
            child = _child(group, key)
            if isinstance(child, h5py.Group):
                yield from _layers_below(child, f"{path}/{key}".lstrip("/"), depth + 1, arrays)


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of strings that Keras splits over several attributes if it is long: layer_names0, layer_names1, ..."""
    found = [group.attrs[attribute]] if attribute in group.attrs else []
    while f"{attribute}{len(found)}" in group.attrs:
        found.append(group.attrs[f"{attribute}{len(found)}"])
    names = [name.decode() if isinstance(name, bytes) else str(name) for part in found for name in part]
    if len(names) > MOST_LAYERS:
        raise ValueError(f"{len(names)} names in {attribute}")
    return names


def _child(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """What lies at `name` ("a/b"), refusing links that lead elsewhere."""
    here = group
    for part in re.split("/+", name.strip("/")):
        if here.get(part, getclass=True, getlink=True) is not h5py.HardLink:
            raise KeyError(f"no plain member {part!r} in {here.name}")
        here = here[part]
    return here


def _text(value: Any) -> str:
    if isinstance(value, bytes | str):
        return value.decode() if isinstance(value, bytes) else value
    raise TypeError("a description that is no text")


def _printable(name: str) -> str:
    """Names need not be Unicode in HDF5, but they are printed."""
    return name.encode("utf-8", "replace").decode()


def _limit(size: int) -> None:
    """What a file of `size` bytes may take. On Windows nothing is limited here but the time, by whoever waits."""
    if sys.platform != "win32":
        import resource

        _lower(resource.RLIMIT_AS, _taken() + _MEMORY + 2 * size)
        _lower(resource.RLIMIT_CPU, _SECONDS + size // _BYTES_A_SECOND)
        _lower(resource.RLIMIT_CORE, 0)


def _taken() -> int:
    """Bytes of address space of this process: 160 million, but some builds of NumPy take a gigabyte at once."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no Linux
        return 2**30


def _lower(kind: int, limit: int) -> None:
    import resource

    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def main(arguments: list[str]) -> int:
    """WHAT is "model" or "weights". What is wrong with FILE is an answer too: {"refused": text}, {"full": errno}."""
    what, path, copies = arguments[0], Path(arguments[1]), Path(arguments[2])
    _limit(path.stat().st_size)
    try:
        check_heaps(path)
        found = (describe_model if what == "model" else list_weights)(path, copies)
    except MemoryError:
        found = {"refused": "it asks for far more memory than its size justifies"}
    except _DAMAGE as error:
        is_full = isinstance(error, OSError) and error.errno in DISK_FULL
        found = {"full": error.errno} if is_full else {"refused": str(error)[:1000]}  # type: ignore[union-attr]
    sys.stdout.write(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
