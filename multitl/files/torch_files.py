"""Read files written by `torch.save` without PyTorch and without running anything in them.

Both layouts are known. Zip (since PyTorch 1.6): NAME/data.pkl, a pickle whose tensors name their storages, and one
NAME/data/KEY per storage. Legacy: five pickles (magic number, protocol, system, the object, the storage keys), then for
each key an int64 count and the raw numbers. What a pickle may name is listed in `_allowed`; anything else is refused.

Every tensor's reach is checked against its storage, and the arrays of a file together against the file's size, so that
a small file can neither read foreign memory nor fill it.
"""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multitl.errors import WeightsError
from multitl.files.plain_pickles import DamagedFileError, Function, Record, UnsafeFileError, ordered_dict, read_pickle
from multitl.system.regular_files import MOST_MODEL, open_regular, read_regular

Tree = Any  # a dict, list or tuple of Trees, or str, int, float, bool, None, np.ndarray

_ZIP_START = b"PK\x03\x04"
_LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of 0x1950a86a20f9469cfc6c
_OTHER_STARTS = {
    b"\x89HDF": "an HDF5 file (Keras .h5)",
    b"version https://git-lfs": "a Git LFS pointer: the file itself was never downloaded (git lfs pull)",
    b"<": "a web page, as servers send it in place of a file",
    b"\x80": "a Python pickle, but not one that torch.save wrote",
    b"": "of no known kind",
}
# PyTorch's name -> (numpy's type in the file, type to make of it or "" for the same). numpy has no bfloat16.
_STORAGES = {
    "DoubleStorage": ("f8", ""),
    "FloatStorage": ("f4", ""),
    "HalfStorage": ("f2", ""),
    "BFloat16Storage": ("u2", "bfloat16"),
    "LongStorage": ("i8", ""),
    "IntStorage": ("i4", ""),
    "ShortStorage": ("i2", ""),
    "CharStorage": ("i1", ""),
    "ByteStorage": ("u1", ""),
    "BoolStorage": ("u1", "bool"),
}
_MOST_DIMENSIONS = 32
_MOST_ELEMENTS = 2**48  # of an array; also where a side of 0 leaves nothing of it
_MOST_DEPTH = 50
_MOST_VALUES = 500_000
_SPARE_BYTES = 2**24  # lets small files use views and compression freely


@dataclass(frozen=True)
class _StorageKind:
    stored: str
    becomes: str


@dataclass(frozen=True)
class _Storage:
    key: str
    kind: _StorageKind
    count: int

    @property
    def size(self) -> int:
        return self.count * np.dtype(self.kind.stored).itemsize


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(path: str | Path) -> Tree:
    """Read a .pth or .pt file of tensors in plain containers, such as a state_dict or a checkpoint that holds some.

    Returns what `torch.load(path, weights_only=True)` does, with numpy arrays for tensors: C order, native byte order,
    their own memory (but equal views of one storage are one array). bfloat16 becomes float32, an OrderedDict a dict,
    an nn.Parameter its array, a torch.Size a tuple. An argparse.Namespace, in which training scripts keep their options
    (and which torch.load would have to be told of), becomes a dict too.

    Raises WeightsError for a file that is missing, damaged, not from torch.save, or asks for more than plain tensors.
    """
    try:
        layout = _read_zip if _beginning(Path(path)).startswith(_ZIP_START) else _read_legacy
        return layout(Path(path))
    except UnsafeFileError as error:
        raise WeightsError(
            f"{path} is not a plain file of tensors; it asks for {error}. "
            "Loading such a file can run code that its author put in, so multitl does not.",
            expected="tensors, numbers and texts in dicts, lists and tuples",
            received=str(error),
            fix="if you trust its author, load it in PyTorch once and torch.save(model.state_dict(), 'weights.pth')",
        ) from error
    except (DamagedFileError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be read as a PyTorch file: {error}.",
            expected="an undamaged file written by torch.save",
            fix="check the path, or download or save the file again",
        ) from error


def _beginning(path: Path) -> bytes:
    if not path.is_file():
        raise DamagedFileError("it is a folder" if path.is_dir() else "there is no such file")
    with open_regular(path, MOST_MODEL) as file:
        data = file.read(32)
    if not is_torch(data):
        raise DamagedFileError(f"it is {other_kind(data)}")
    return data


def is_torch(beginning: bytes) -> bool:
    """By the first 32 bytes of a file: a zip archive, or the legacy layout."""
    return beginning.startswith((_ZIP_START, _LEGACY_START))


def other_kind(beginning: bytes) -> str:
    """What a file that was not written by torch.save seems to be, by its first 32 bytes: "a web page, ..."."""
    return next(kind for start, kind in _OTHER_STARTS.items() if beginning.startswith(start)) if beginning else "empty"


# --- the two layouts ---


def _read_legacy(path: Path) -> Tree:
    data = read_regular(path, MOST_MODEL)
    protocol, position = read_pickle(data, len(_LEGACY_START))
    if protocol != 1001:
        raise DamagedFileError("its protocol number is not 1001")
    _, position = read_pickle(data, position)  # the writing machine; numbers are little-endian whatever it was
    storages: dict[str, _Storage] = {}
    value, position = read_pickle(data, position, _allowed(), _storage_reader(storages))
    keys, position = read_pickle(data, position)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise DamagedFileError("it has no list of storages")
    if len(keys) != len(storages) or set(keys) != set(storages):
        raise DamagedFileError("its list of storages does not fit its tensors")
    arrays = {}
    for storage in (storages[key] for key in keys):
        count, start = int.from_bytes(data[position : position + 8], "little"), position + 8
        if count != storage.count or start + storage.size > len(data):
            raise DamagedFileError("it is cut off, or a storage in it has another size than announced")
        arrays[storage.key] = np.frombuffer(data, f"<{storage.kind.stored}", storage.count, start)
        position = start + storage.size
    return _Finisher(arrays, len(data)).finish(value)


def _read_zip(path: Path) -> Tree:
    try:
        with open_regular(path, MOST_MODEL) as file, zipfile.ZipFile(file) as archive:
            return _read_archive(archive, path.stat().st_size)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise DamagedFileError(f"its zip archive is damaged ({error})") from error


def _read_archive(archive: zipfile.ZipFile, file_size: int) -> Tree:
    sizes = _entry_sizes(archive, file_size)
    folder = _archive_folder(sizes)
    order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in sizes else b"little"
    if order not in (b"little", b"big"):
        raise DamagedFileError("its byte order is neither little nor big")
    storages: dict[str, _Storage] = {}
    value, _ = read_pickle(archive.read(f"{folder}data.pkl"), 0, _allowed(), _storage_reader(storages))
    arrays = {}
    for key, storage in storages.items():
        name = f"{folder}data/{key}"
        if sizes.get(name) != storage.size:
            raise DamagedFileError("a storage in it is missing or has another size than announced")
        arrays[key] = np.frombuffer(archive.read(name), ("<" if order == b"little" else ">") + storage.kind.stored)
    return _Finisher(arrays, file_size).finish(value)


def _entry_sizes(archive: zipfile.ZipFile, file_size: int) -> dict[str, int]:
    """Unpacked size of each entry; refuses what unpacks to far more than the file (weights hardly compress)."""
    entries = archive.infolist()
    sizes = {entry.filename: entry.file_size for entry in entries}
    if len(sizes) != len(entries):
        raise DamagedFileError("its zip archive holds two entries of one name")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise DamagedFileError("its zip archive is compressed in an unusual way")
    if any(entry.compress_size > file_size for entry in entries):  # zipfile would get memory for all of it to read it
        raise DamagedFileError("an entry of its zip archive claims to be larger than the file")
    if sum(sizes.values()) > 20 * file_size + _SPARE_BYTES:
        raise UnsafeFileError("far more memory than its size justifies (a zip bomb)")
    return sizes


def _archive_folder(names: Mapping[str, int]) -> str:
    """ "archive/" or whatever the file was called when it was saved."""
    folders = [name[: -len("data.pkl")] for name in names if re.fullmatch(r"[^/]*/data\.pkl", name)]
    if len(folders) != 1:
        raise DamagedFileError(f"its zip archive holds {len(folders)} data.pkl in place of one")
    if f"{folders[0]}constants.pkl" in names:
        raise UnsafeFileError("a TorchScript program to be run")
    return folders[0]


# --- what the pickle may name ---


def _allowed() -> Mapping[str, Any]:
    """Everything that a pickle of tensors may name, and what it gets for it."""
    return {
        "collections OrderedDict": Function(ordered_dict),
        "argparse Namespace": Record(),
        "torch Size": Function(_size),
        "torch._utils _rebuild_tensor": Function(_tensor),
        "torch._utils _rebuild_tensor_v2": Function(_tensor),
        "torch._utils _rebuild_parameter": Function(_parameter),
        **{f"torch {name}": _StorageKind(*types) for name, types in _STORAGES.items()},
    }


def _storage_reader(storages: dict[str, _Storage]) -> Callable[[Any], _Storage]:
    """A reader of persistent ids ("storage", kind, key, device, count[, None]) that collects the storages by key."""

    def read(identity: Any) -> _Storage:
        fields = identity if type(identity) is tuple and len(identity) in (5, 6) else (None,) * 5
        tag, kind, key, _, count, view = (*fields, None)[:6]
        if type(kind) is not _StorageKind or type(key) is not str or tag != "storage" or view is not None:
            raise UnsafeFileError("a persistent object that is no storage of plain numbers")
        if not _is_counts((count,)) or len(key) > 256:
            raise DamagedFileError("a storage in it has no proper size or key")
        storage = _Storage(key, kind, count)
        if storages.setdefault(key, storage) != storage:
            raise DamagedFileError("it gives one storage two sizes or types")
        return storage

    return read


def _size(*arguments: Any) -> tuple:
    if len(arguments) != 1 or not _is_counts(arguments[0]):
        raise DamagedFileError("a torch.Size in it is not made of counts")
    return arguments[0]


def _tensor(*arguments: Any) -> _Tensor:
    """Arguments: storage, offset, shape, strides, requires_grad, hooks, metadata; the last three may be absent."""
    if not 4 <= len(arguments) <= 7 or type(arguments[0]) is not _Storage or not _is_counts((arguments[1],)):
        raise DamagedFileError("a tensor in it is not built from a storage")
    storage, offset, shape, strides = arguments[:4]
    if not _is_counts(shape) or not _is_counts(strides) or len(shape) != len(strides):
        raise DamagedFileError("a tensor in it has no proper shape and strides")
    if any(arguments[5:]):  # metadata can mean that the numbers are to be negated or conjugated
        raise UnsafeFileError("a tensor with hooks or metadata")
    tensor = _Tensor(storage, offset, shape, strides)
    _check_reach(tensor)
    return tensor


def _check_reach(tensor: _Tensor) -> None:
    if math.prod(side for side in tensor.shape if side) > _MOST_ELEMENTS:
        raise DamagedFileError("a tensor in it has an absurd shape")
    steps = (max(side - 1, 0) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True))
    if 0 not in tensor.shape and tensor.offset + sum(steps) >= tensor.storage.count:
        raise DamagedFileError("a tensor in it reaches beyond its storage")
    if math.prod(tensor.shape) > tensor.storage.count:
        raise DamagedFileError("a tensor in it is an expanded view, larger than its storage")


def _parameter(*arguments: Any) -> _Tensor:
    if len(arguments) != 3 or type(arguments[0]) is not _Tensor or arguments[2]:
        raise DamagedFileError("an nn.Parameter in it is not built from a tensor")
    return arguments[0]


def _is_counts(value: Any) -> bool:
    if type(value) is not tuple or len(value) > _MOST_DIMENSIONS:
        return False
    return all(type(item) is int and 0 <= item < 2**62 for item in value)


# --- from the pickle's value to arrays ---


class _Finisher:
    """Copies a pickle's value, with arrays in place of tensors, inside limits on depth, number and memory."""

    def __init__(self, storages: Mapping[str, np.ndarray], file_size: int) -> None:
        self.storages = storages
        self.arrays: dict[_Tensor, np.ndarray] = {}
        self.values_left, self.bytes_left = _MOST_VALUES, 8 * file_size + _SPARE_BYTES

    def finish(self, value: Any, depth: int = 0) -> Tree:
        self.values_left -= 1
        if depth > _MOST_DEPTH or self.values_left < 0:
            raise UnsafeFileError("containers nested without end")
        match value:
            case _Tensor():
                if value not in self.arrays:
                    self.arrays[value] = self._array(value)
                return self.arrays[value]
            case dict():
                return {key: self.finish(item, depth + 1) for key, item in value.items()}
            case list() | tuple():
                return type(value)(self.finish(item, depth + 1) for item in value)
            case None | bool() | int() | float() | str():
                return value
        raise UnsafeFileError("a value that is no tensor, number, text or container")

    def _array(self, tensor: _Tensor) -> np.ndarray:
        stored, kind = self.storages[tensor.storage.key], tensor.storage.kind
        self.bytes_left -= math.prod(tensor.shape) * stored.itemsize * 2
        if self.bytes_left < 0:
            raise UnsafeFileError("far more memory than its size justifies (many views of one storage)")
        view = _view(stored, tensor)
        if kind.becomes == "bfloat16":
            return widen_bfloat16(view)
        return view.astype(kind.becomes or stored.dtype.newbyteorder("="), order="C")


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """uint16 patterns of bfloat16, the upper half of a float32, as float32 of the same shape. numpy has no bfloat16."""
    wide = bits.astype(np.uint32, order="C") << np.uint32(16)
    return np.asarray(wide).view(np.float32)  # asarray: numpy makes a scalar of shape () otherwise


def _view(stored: np.ndarray, tensor: _Tensor) -> np.ndarray:
    if 0 in tensor.shape:
        return np.empty(tensor.shape, stored.dtype)
    # A side of 1 may come with any stride, even one that overflows.
    strides = [stored.itemsize * stride * (side > 1) for side, stride in zip(tensor.shape, tensor.strides, strict=True)]
    return np.ndarray(tensor.shape, stored.dtype, stored, stored.itemsize * tensor.offset, strides)
