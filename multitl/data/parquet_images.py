"""Images in a Parquet table: a column of bytes, or of {bytes, path} as Hugging Face writes them.

An image is read with the row group it is in, which stays in memory for a while, since neighbours come next. Of a group
that is too large for that, as of writers who put a whole file into one, a few rows are in memory at a time, and the
page that they are in: read in order they cost no more, but each step back begins at the group's first row.
"""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any, NamedTuple

GROUPS_KEPT = 2
MOST_GROUP = 2**28  # bytes of a group that is read whole
MOST_ROWS = 2**24  # bytes of the rows of a larger one, and at least one row
TABLES_KNOWN = 256
LONGEST = 80  # characters of a file's name that are kept
_reading = threading.Lock()  # threads that want one group wait for the one that reads it


def picture_column(schema: Any, asked: str, names: Sequence[str]) -> str:
    """The column that holds images: the one asked for, one of these names, or the only one; "" if it is none.

    schema: a pyarrow.Schema.
    """
    pictures = [field.name for field in schema if _holds_bytes(field.type)]
    if asked:
        return asked if asked in pictures else ""
    by_name = {name.strip().lower(): name for name in pictures}
    known = [by_name[name] for name in names if name in by_name]
    return known[0] if known else pictures[0] if len(pictures) == 1 else ""


def list_members(path: str, column: str) -> list[str]:
    """What each row's image is called in the table: image/row-017-robin.jpg, of a file that was once robin.jpg."""
    from pyarrow import parquet, types

    kind, count = parquet.read_schema(path).field(column).type, _about(*_stamp(path)).starts[-1]
    digits, members = len(str(max(count - 1, 0))), list[str]()
    if not (types.is_struct(kind) and kind.get_field_index("path") >= 0):
        return [f"{column}/" + _member(row, digits, None) for row in range(count)]
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=[f"{column}.path"]):  # the names of all rows at once are large
            names = batch.column(column).field("path").to_pylist()
            members += [f"{column}/" + _member(row, digits, name) for row, name in enumerate(names, len(members))]
    return members


def holds(path: str, member: str) -> bool:
    """Raises OSError and what pyarrow raises."""
    about, (column, row) = _about(*_stamp(path)), _parse(member)
    return column in about.columns and row < about.starts[-1]


def read_member(path: str, member: str) -> bytes:
    """Raises OSError, KeyError for a row without an image, and what pyarrow raises."""
    column, row = _parse(member)
    stamp = _stamp(path)
    starts = _about(*stamp).starts
    if not 0 <= row < starts[-1]:
        raise KeyError(member)
    group = bisect_right(starts, row) - 1
    with _reading:
        if (size := _sizes(*stamp, column)[group]) <= MOST_GROUP:
            data = _group(*stamp, column, group)[row - starts[group]].as_py()
        else:
            count = max(1, (starts[group + 1] - starts[group]) * MOST_ROWS // size)
            data = _rows(*stamp, column, group, count).at(row - starts[group])
    if not data:
        raise KeyError(member)
    return data


def group_of(path: str, member: str) -> int:
    """The row group that an image is in. Raises as `read_member` does."""
    return bisect_right(_about(*_stamp(path)).starts, _parse(member)[1]) - 1


def class_names(schema: Any) -> dict[str, list[str]]:
    """Names of the classes that numbers stand for, by column, where Hugging Face wrote them into a table."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: list(map(str, one["names"])) for name, one in features.items() if "names" in one}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def named(cells: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Numbers as the names that they stand for; others, such as -1 for unknown, are missing."""
    return [names[cell] if isinstance(cell, int) and 0 <= cell < len(names) else None for cell in cells]


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _holds_bytes(kind.field(place).type)
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _member(row: int, digits: int, name: str | None) -> str:
    file = str(name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    return f"row-{row:0{digits}}" + (f"-{file[-LONGEST:]}" if file else "")


def _parse(member: str) -> tuple[str, int]:
    """Raises KeyError for what is no name of ours."""
    column, _, name = member.rpartition("/")
    number = name.removeprefix("row-").partition("-")[0]
    if not column or not number.isdecimal():
        raise KeyError(member)
    return column, int(number)


def _stamp(path: str) -> tuple[str, int, int]:
    status = os.stat(path)  # noqa: PTH116
    return path, status.st_size, status.st_mtime_ns


class _About(NamedTuple):
    """What a table says of itself. starts: the first row of each row group, and how many rows there are."""

    columns: frozenset[str]
    starts: tuple[int, ...]


@lru_cache(TABLES_KNOWN)
def _about(path: str, size: int, changed: int) -> _About:
    """size, changed: so that one that is written anew is looked at anew."""
    from pyarrow import parquet

    told = parquet.read_metadata(path)
    counts = (told.row_group(group).num_rows for group in range(told.num_row_groups))
    return _About(frozenset(told.schema.to_arrow_schema().names), (0, *accumulate(counts)))


class _Rows:
    """The rows of a group in order, a few at a time."""

    def __init__(self, path: str, column: str, group: int, count: int) -> None:
        self._open = partial(_batches, path, column, group, count)
        self._rest, self._first, self._held = self._open(), 0, list[Any]()

    def at(self, row: int) -> Any:
        if row < self._first:
            self._rest, self._first, self._held = self._open(), 0, []
        while row >= self._first + len(self._held):
            self._first += len(self._held)
            self._held = next(self._rest).to_pylist()
        return self._held[row - self._first]


def _batches(path: str, column: str, group: int, count: int) -> Iterator[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(path, buffer_size=MOST_ROWS, pre_buffer=False) as file:
        for batch in file.iter_batches(count, row_groups=[group], columns=[column], use_threads=False):
            yield _bytes_of(batch.column(0))


@lru_cache(TABLES_KNOWN)
def _sizes(path: str, size: int, changed: int, column: str) -> list[int]:
    """Bytes of a column in each row group, not compressed; of one of structs those of all its parts."""
    from pyarrow import parquet

    told = parquet.read_metadata(path)
    return [_size_of(told.row_group(group), column) for group in range(told.num_row_groups)]


def _size_of(group: Any, column: str) -> int:
    parts = [group.column(place) for place in range(group.num_columns)]
    return sum(one.total_uncompressed_size for one in parts if f"{one.path_in_schema}.".startswith(f"{column}."))


@lru_cache(GROUPS_KEPT)
def _rows(path: str, size: int, changed: int, column: str, group: int, count: int) -> _Rows:
    return _Rows(path, column, group, count)


@lru_cache(GROUPS_KEPT)
def _group(path: str, size: int, changed: int, column: str, group: int) -> Any:
    """A pyarrow array of the bytes of each row."""
    from pyarrow import chunked_array, parquet

    with parquet.ParquetFile(path) as file:
        cells = file.read_row_group(group, columns=[column]).column(column)
    return chunked_array([_bytes_of(chunk) for chunk in cells.chunks]).combine_chunks()


def _bytes_of(cells: Any) -> Any:
    """Of a pyarrow array of bytes, or of structs that hold some."""
    from pyarrow import types

    return cells.flatten()[cells.type.get_field_index("bytes")] if types.is_struct(cells.type) else cells
