"""The values in a checkpoint of TensorFlow 2 or 1 ("tensor bundle"), read in Python.

TensorFlow's own reader is C++ that ends the process at what a damaged index claims (a negative size, say), and gets
memory for any length of text. An index is a table of LevelDB, see leveldb/doc/table_format.md, whose values are the
messages of tensorflow/core/protobuf/tensor_bundle.proto; the numbers lie in the files beside it as they are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

from multitl.system.regular_files import MOST_MODEL, open_regular, read_regular
from multitl_tensorflow.checksums import masked_crc32c

_FOOTER, _MAGIC = 48, bytes.fromhex("57fb808b247547db")
_TRAILER = 5  # bytes after a block: its compression, its checksum
_MOST_INDEX = 2**28  # bytes; that of a network with 3,000 variables has 200,000


class DamagedBundle(ValueError):  # noqa: N818  (it becomes the error that a user meets)
    """A checkpoint that TensorFlow did not write, or of a kind that is not read."""


class Bundle:
    """A checkpoint by its prefix, such as variables/variables. `shapes`: of every value, by key."""

    def __init__(self, prefix: Path) -> None:
        """Reads the index. Raises DamagedBundle, OSError."""
        self._prefix = prefix
        records = list(_records(prefix.with_name(f"{prefix.name}.index")))
        try:
            self._header = BundleHeaderProto.FromString(dict(records).get(b"", b""))
            self._entries = {key.decode(): BundleEntryProto.FromString(value) for key, value in records if key}
        except (DecodeError, UnicodeDecodeError) as error:
            raise DamagedBundle(f"an index that makes no sense: {error}") from error
        if self._header.endianness != BundleHeaderProto.LITTLE:
            raise DamagedBundle("numbers of a big-endian machine")
        self.shapes = {key: _shape(key, entry) for key, entry in self._entries.items()}
        if (claimed := sum(entry.size for entry in self._entries.values())) > self._bytes():
            raise DamagedBundle(f"variables of {claimed} bytes in files of {self._bytes()} bytes")

    def read(self, key: str) -> np.ndarray | bytes:
        """A value: an array, or for a single text its bytes. Raises DamagedBundle, OSError; KeyError for none."""
        entry = self._entries[key]
        content = self._content(key, entry)
        if entry.dtype == tf.string.as_datatype_enum:
            return _text(key, content, entry)
        if masked_crc32c(content) != entry.crc32c:
            raise DamagedBundle(f"{key} does not have its checksum")
        return np.frombuffer(content, _dtype(key, entry)).reshape(self.shapes[key]).copy()

    def _content(self, key: str, entry: BundleEntryProto) -> bytes:
        if entry.slices:
            raise DamagedBundle(f"{key} lies there in parts")
        with open_regular(self._shard(entry.shard_id), MOST_MODEL) as file:
            file.seek(entry.offset)
            content = file.read(entry.size)
        if len(content) != entry.size:
            raise DamagedBundle(f"the file ends within {key}")
        return content

    def _shard(self, number: int) -> Path:
        return self._prefix.with_name(f"{self._prefix.name}.data-{number:05}-of-{self._header.num_shards:05}")

    def _bytes(self) -> int:
        return sum(file.stat().st_size for file in self._prefix.parent.glob("*.data-*"))


def _dtype(key: str, entry: BundleEntryProto) -> np.dtype:
    """Raises DamagedBundle for what is no array of numbers."""
    try:
        return np.dtype(tf.as_dtype(entry.dtype).as_numpy_dtype)
    except (TypeError, KeyError) as error:
        raise DamagedBundle(f"{key} is of no type of numbers") from error


def _shape(key: str, entry: BundleEntryProto) -> list[int]:
    """Raises DamagedBundle for a shape that does not go with the number of bytes."""
    shape = [dim.size for dim in entry.shape.dim]
    if entry.shape.unknown_rank or min([*shape, entry.offset, entry.size, entry.shard_id], default=0) < 0:
        raise DamagedBundle(f"{key} is of no size")
    is_of_numbers = entry.dtype != tf.string.as_datatype_enum and not entry.slices
    if is_of_numbers and math.prod(shape) * _dtype(key, entry).itemsize != entry.size:
        raise DamagedBundle(f"{key} of shape {shape} in {entry.size} bytes")
    return shape


def _text(key: str, content: bytes, entry: BundleEntryProto) -> bytes:
    """One text: its length, that number's checksum, the text itself; of all that the checksum."""
    length, start = _varint(content, 0)
    text = content[start + 4 :]
    if entry.shape.dim or len(text) != length:
        raise DamagedBundle(f"{key} is not a single text")
    if masked_crc32c(struct.pack("<I", length) + content[start:]) != entry.crc32c:
        raise DamagedBundle(f"{key} does not have its checksum")
    return text


def _records(index: Path) -> Iterator[tuple[bytes, bytes]]:
    """The table's keys and values. Raises DamagedBundle."""
    data = read_regular(index, _MOST_INDEX)
    if len(data) < _FOOTER or not data.endswith(_MAGIC):
        raise DamagedBundle("an index that is cut off, or is none")
    footer = data[-_FOOTER:]
    _, at = _varint(footer, _varint(footer, 0)[1])
    for _, place in _pairs(_block(data, footer[at:])):
        yield from _pairs(_block(data, place))


def _block(data: bytes, place: bytes) -> bytes:
    """The block at (offset, size), without its list of restarts."""
    start, at = _varint(place, 0)
    size, _ = _varint(place, at)
    end = start + size
    if end + _TRAILER > len(data) or size < 4:
        raise DamagedBundle("a block that reaches beyond the index")
    if int.from_bytes(data[end + 1 : end + _TRAILER], "little") != masked_crc32c(data[start : end + 1]):
        raise DamagedBundle("a block that does not have its checksum")
    if data[end]:
        raise DamagedBundle("a compressed index")
    restarts = int.from_bytes(data[end - 4 : end], "little")
    if 4 * restarts + 4 > size:
        raise DamagedBundle("a block of restarts alone")
    return data[start : end - 4 - 4 * restarts]


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """A key says how much of the one before it begins with."""
    key, at = b"", 0
    while at < len(block):
        shared, at = _varint(block, at)
        rest, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + rest + length > len(block):
            raise DamagedBundle("an entry that reaches beyond its block")
        key = key[:shared] + block[at : at + rest]
        yield key, block[at + rest : at + rest + length]
        at += rest + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        value, at = value | (data[at] & 0x7F) << shift, at + 1
        if not data[at - 1] & 0x80:
            return value, at
    raise DamagedBundle("a number that does not end")
