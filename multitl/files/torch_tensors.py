"""Tensors in a pickle of torch.save: what such a pickle may name, and the arrays that its value is made into.

A storage is a row of numbers, which lies elsewhere in the file; a tensor is a view of one. Every tensor's reach is
checked against its storage, and the arrays of a file together against the file's size, so that a small file can neither
read foreign memory nor fill it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from multitl.files.plain_pickles import DamagedFileError, Function, Record, UnsafeFileError, ordered_dict

Tree = Any  # a dict, list or tuple of Trees, or str, int, float, bool, None, np.ndarray
SPARE_BYTES = 2**24  # lets small files use views and compression freely
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


@dataclass(frozen=True)
class _StorageKind:
    stored: str
    becomes: str


@dataclass(frozen=True)
class Storage:
    """A row of `count` numbers. key: by which the file knows it."""

    key: str
    kind: _StorageKind
    count: int

    @property
    def size(self) -> int:
        return self.count * np.dtype(self.kind.stored).itemsize


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def allowed() -> Mapping[str, Any]:
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


def storage_reader(storages: dict[str, Storage]) -> Callable[[Any], Storage]:
    """A reader of persistent ids ("storage", kind, key, device, count[, None]) that collects the storages by key."""

    def read(identity: Any) -> Storage:
        fields = identity if type(identity) is tuple and len(identity) in (5, 6) else (None,) * 5
        tag, kind, key, _, count, view = (*fields, None)[:6]
        if type(kind) is not _StorageKind or type(key) is not str or tag != "storage" or view is not None:
            raise UnsafeFileError("a persistent object that is no storage of plain numbers")
        if not _is_counts((count,)) or len(key) > 256:
            raise DamagedFileError("a storage in it has no proper size or key")
        storage = Storage(key, kind, count)
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
    if not 4 <= len(arguments) <= 7 or type(arguments[0]) is not Storage or not _is_counts((arguments[1],)):
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


class Finisher:
    """Copies a pickle's value, with arrays in place of tensors, inside limits on depth, number and memory."""

    def __init__(self, storages: Mapping[str, np.ndarray], file_size: int) -> None:
        self.storages = storages
        self.arrays: dict[_Tensor, np.ndarray] = {}
        self.values_left, self.bytes_left = _MOST_VALUES, 8 * file_size + SPARE_BYTES

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
