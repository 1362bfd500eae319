"""Features of any number: an array where they fit into memory with ease, else rows of shards that stay on disk.

`Rows` are either. Of both a part is an array: `rows[first:last]`, `rows[indices]`. What goes over all of them goes
block by block, and so needs no more memory for a million images than for a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from multitl.errors import RunError

IN_MEMORY = 2**29  # bytes of features of one kind, up to which they are an array
BLOCK_BYTES = 2**24  # of a block of rows
SOME = 10_000  # rows, of which means and covariances are taken

Map = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class OnDisk:
    """Rows (count, channels) float32 in a file, little-endian, from a byte on. The file is not written again."""

    path: Path
    offset: int
    count: int
    channels: int

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """rows: (k,), rising. Those from the first to the last are read at once: a map of the file would end the
        process where its disk fails. Raises RunError.
        """
        first, last = int(rows[0]), int(rows[-1]) + 1
        try:
            start = self.offset + first * self.channels * 4
            values = np.fromfile(self.path, "<f4", (last - first) * self.channels, offset=start)
            return values.reshape(last - first, self.channels)[rows - first].astype("float32", copy=False)
        except (OSError, ValueError) as error:  # ValueError: the file is shorter now
            raise RunError(
                f"Stored features went missing: {self.path}.",
                expected="the file that was there when the run began",
                received=str(error),
                fix="run the same command with --resume; what is missing is computed again",
            ) from error


class Shard(Protocol):
    """Where rows lie: an array, or a file."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """rows: (k,), rising. Returns (k, channels) float32."""


@dataclass(frozen=True, eq=False)
class Mapped:
    """What a map of rows, which leaves their width, makes of those of a shard."""

    shard: Shard
    bring: Map

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.bring(self.shard[rows])


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Rows in any order from any shards. shard, place: (n,), where each lies."""

    shards: tuple[Shard, ...]
    shard: np.ndarray
    place: np.ndarray
    channels: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.shard), self.channels

    def __len__(self) -> int:
        return len(self.shard)

    def __getitem__(self, chosen: slice | Sequence[int] | np.ndarray) -> np.ndarray:
        """(k, channels) float32, in memory. chosen: as of an array's first axis."""
        shard, place = self.shard[chosen], self.place[chosen]
        found = np.empty((len(shard), self.channels), "float32")
        order = np.lexsort((place, shard))  # each shard is opened once, and read forwards
        for part in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1) if len(order) else ():
            found[part] = self.shards[shard[part[0]]][place[part]]
        return found


Rows: TypeAlias = np.ndarray | StoredRows


def joined(parts: Sequence[Rows]) -> Rows:
    """One after the other."""
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts):
        return np.concatenate(arrays)
    stored = [_as_stored(part) for part in parts]
    firsts = np.cumsum([0, *(len(one.shards) for one in stored[:-1])])
    return StoredRows(
        tuple(shard for one in stored for shard in one.shards),
        np.concatenate([one.shard + first for one, first in zip(stored, firsts, strict=True)]),
        np.concatenate([one.place for one in stored]),
        stored[0].channels,
    )


def chosen(rows: Rows, indices: Sequence[int] | np.ndarray) -> Rows:
    """Some of them, in this order; of stored ones none is read."""
    if isinstance(rows, StoredRows):
        indices = np.asarray(indices, "int64")
        return replace(rows, shard=rows.shard[indices], place=rows.place[indices])
    return rows[indices]


def mapped(rows: Rows, bring: Map) -> Rows:
    """What a map that leaves the width makes of rows: of stored ones once they are read."""
    if isinstance(rows, StoredRows):
        return replace(rows, shards=tuple(Mapped(shard, bring) for shard in rows.shards))
    return bring(rows)


def some_of(rows: Rows, seed: int) -> np.ndarray:
    """An array as it is; of stored ones SOME that are drawn, without a change of their order."""
    if isinstance(rows, np.ndarray):
        return rows
    return rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:SOME])]


def block_rows(channels: int) -> int:
    """How many rows make a block."""
    return max(1, BLOCK_BYTES // (4 * channels))


def size_of(rows: Rows) -> int:
    """Bytes that they would take in memory."""
    return 4 * rows.shape[0] * rows.shape[1]


def _as_stored(rows: Rows) -> StoredRows:
    if isinstance(rows, StoredRows):
        return rows
    return StoredRows((rows,), np.zeros(len(rows), "int32"), np.arange(len(rows), dtype="int32"), rows.shape[1])
