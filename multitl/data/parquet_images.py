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
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import PurePosixPath
from typing import Any

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

    about = _about(*_stamp(path))
    kind, count = about.schema.to_arrow_schema().field(column).type, about.num_rows
    names: list[str | None] = [None] * count
    if types.is_struct(kind) and kind.get_field_index("path") >= 0:
        with parquet.ParquetFile(path) as file:
            cells = file.read(columns=[f"{column}.path"]).column(column).to_pylist()
        names = [(cell or {}).get("path") for cell in cells]
    digits = len(str(max(count - 1, 0)))
    return [f"{column}/" + _member(row, digits, name) for row, name in enumerate(names)]


def holds(path: str, member: str) -> bool:
    """Raises OSError and what pyarrow raises."""
    about, (column, row) = _about(*_stamp(path)), _parse(member)
    return column in about.schema.to_arrow_schema().names and row < about.num_rows


def read_member(path: str, member: str) -> bytes:
    """Raises OSError, KeyError for a row without an image, and what pyarrow raises."""
    column, row = _parse(member)
    stamp = _stamp(path)
    about = _about(*stamp)
    starts = [0, *accumulate(about.row_group(group).num_rows for group in range(about.num_row_groups))]
    if not 0 <= row < starts[-1]:
        raise KeyError(member)
    group = bisect_right(starts, row) - 1
    size = _size_of(about.row_group(group), column)
    with _reading:
        if size <= MOST_GROUP:
            cell = _group(*stamp, column, group)[row - starts[group]].as_py()
        else:
            rows = max(1, about.row_group(group).num_rows * MOST_ROWS // size)
            cell = _rows(*stamp, column, group, rows).at(row - starts[group])
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if not data:
        raise KeyError(member)
    return data


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
    file = PurePosixPath(str(name or "").replace("\\", "/")).name
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


@lru_cache(TABLES_KNOWN)
def _about(path: str, size: int, changed: int) -> Any:
    """What a table says of itself. size, changed: so that one that is written anew is looked at anew."""
    from pyarrow import parquet

    return parquet.read_metadata(path)


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
            yield batch.column(0)


def _size_of(group: Any, column: str) -> int:
    """Bytes of a column, not compressed; of one of structs that of all its parts."""
    parts = [group.column(place) for place in range(group.num_columns)]
    return sum(one.total_uncompressed_size for one in parts if f"{one.path_in_schema}.".startswith(f"{column}."))


@lru_cache(GROUPS_KEPT)
def _rows(path: str, size: int, changed: int, column: str, group: int, count: int) -> _Rows:
    return _Rows(path, column, group, count)


@lru_cache(GROUPS_KEPT)
def _group(path: str, size: int, changed: int, column: str, group: int) -> Any:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return file.read_row_group(group, columns=[column]).column(column)
