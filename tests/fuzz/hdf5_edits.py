"""Damage to HDF5 files: to what describes them rather than to the numbers in them, and to the JSON of whole models."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from random import Random

import h5py

from . import byte_edits, json_edits

_CONFIG = "model_config"
_MOST_INLINE = 60_000  # bytes of an attribute; longer texts lie in a heap


def edit(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Bytes, nearly always of the descriptions."""
    places = described(data) if random.random() < 0.9 else ()
    return byte_edits.edit(random, data, others, places)


@lru_cache(maxsize=64)
def described(data: bytes) -> tuple[byte_edits.Range, ...]:
    """The ranges of a file that hold no numbers of arrays, as far as arrays lie in one piece."""
    raw: list[byte_edits.Range] = []

    def note(_: str, found: h5py.Group | h5py.Dataset) -> None:
        if isinstance(found, h5py.Dataset) and found.id.get_offset() is not None:
            raw.append((found.id.get_offset(), found.id.get_offset() + found.id.get_storage_size()))

    with h5py.File(io.BytesIO(data), "r") as file:
        file.visititems(note)
    edges = [0, *(edge for one in sorted(raw) for edge in one), len(data)]
    return tuple((start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end)


def edit_config(random: Random, data: bytes) -> bytes:
    """The description of the network, in an attribute; of a file without one, bytes."""
    target = io.BytesIO(data)
    with h5py.File(target, "r+") as file:
        if _CONFIG not in file.attrs:
            return edit(random, data)
        text = file.attrs[_CONFIG]
        text = json_edits.edit(random, text if isinstance(text, bytes) else text.encode())
        del file.attrs[_CONFIG]
        length = len(text) + 1 if len(text) < _MOST_INLINE else None
        file.attrs.create(_CONFIG, text.replace(b"\0", b""), dtype=h5py.string_dtype(length=length))
    return target.getvalue()
