"""Data sets that are listed in a table: CSV, TSV or Parquet with the columns path, label and, if there, split."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multitl.contracts import SPLITS
from multitl.data.listings import Listing, Record, list_records, parse_split
from multitl.errors import DataError, shorten

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "filepath", "file_path", "filename", "file_name", "file", "image_path", "image", "img"),
    "label": ("label", "class", "class_name", "target", "category", "label_name"),
    "split": ("split", "subset", "partition", "set"),
}
TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".pq")


def list_table(path: Path) -> Listing:
    """List a CSV, TSV or Parquet file. Relative paths are relative to its folder. Raises DataError."""
    table = _read_text(path) if path.suffix.lower() in TEXT_SUFFIXES else _read_parquet(path)
    raw_files = _required(path, table, "path")
    if any(isinstance(value, bytes | dict | list) for value in raw_files):
        raise _bad_table(path, "holds the images themselves", "paths of files", "bytes", "write them to files, named")
    files = [_text(value) for value in raw_files]
    labels = [_text(value) for value in _required(path, table, "label")]
    raw_splits = _find(table, "split")
    splits = None if raw_splits is None else [_text(value) for value in raw_splits]
    _check_cells(path, files, labels, splits)
    parsed = [parse_split(split) for split in splits] if splits else [None] * len(files)
    rows = zip(files, labels, parsed, strict=True)
    records = [Record(str(path.parent / file), label, split) for file, label, split in rows]
    _check_files(path, records)
    return list_records(path, records)


def _find(table: Mapping[str, list[Any]], meaning: str) -> list[Any] | None:
    by_name = {name.strip().lower(): values for name, values in table.items()}
    return next((by_name[name] for name in COLUMNS[meaning] if name in by_name), None)


def _required(path: Path, table: Mapping[str, list[Any]], meaning: str) -> list[Any]:
    values = _find(table, meaning)
    if values is None:
        expected = f"a header with {meaning} (or {', '.join(COLUMNS[meaning][1:])})"
        received = ", ".join(table) or "no header"
        raise _bad_table(path, f"has no column of the {meaning}s", expected, received, "make path,label the first line")
    return values


def _text(value: Any) -> str:
    """A cell as text; "" for a missing one. A whole number is written without a point."""
    if value is None or value != value:  # nan is not itself
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _check_cells(path: Path, files: list[str], labels: list[str], splits: list[str] | None) -> None:
    if not files:
        raise _bad_table(path, "has a header but no rows", "one row an image", "no rows", "add the images")
    for name, cells in (("path", files), ("label", labels)):
        if "" in cells:
            rows = [f"row {row}" for row, cell in enumerate(cells, start=1) if not cell]
            raise _bad_table(
                path, f"has {len(rows)} empty {name}s", f"a {name} in every row", shorten(rows), "fill or delete them"
            )
    unknown = sorted({cell for cell in splits or () if parse_split(cell) is None})
    if unknown:
        received = shorten(repr(cell) for cell in unknown)
        expected = ", ".join(SPLITS) + " (or common spellings) in every row"
        raise _bad_table(path, "names splits that are not known", expected, received, "rename them")


def _check_files(path: Path, records: Sequence[Record]) -> None:
    missing = [record.path for record in records if not os.path.isfile(record.path)]  # noqa: PTH113  (never raises)
    if missing:
        raise _bad_table(
            path,
            f"names {len(missing)} files that do not exist, of {len(records)}",
            f"paths that are absolute or relative to {path.parent}",
            shorten(missing),
            "correct the paths, or delete these rows",
        )


def _bad_table(path: Path, problem: str, expected: str, received: str, fix: str) -> DataError:
    return DataError(f"{path} {problem}.", expected=expected, received=received, fix=f"{fix} in {path.name}")


def _read_text(path: Path) -> dict[str, list[Any]]:
    """The columns of a text table by name; the separator is a comma, a semicolon or a tab, whatever the header has."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            separator = max(",;\t", key=header.count)
            rows = [row for row in csv.reader(file, delimiter=separator) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _bad_table(
            path, "cannot be read", "UTF-8 text with a header", str(error), "save it as UTF-8 CSV"
        ) from error
    names = rows[0] if rows else []
    return {name: [row[index] if index < len(row) else "" for row in rows[1:]] for index, name in enumerate(names)}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    """The columns of a Parquet file that `COLUMNS` knows, by name; others are named but not read."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise DataError(
            f"{path} needs the package pyarrow to be read.",
            expected="pyarrow, or the table as CSV",
            received="pyarrow is not installed",
            fix="pip install 'multitl[parquet]'",
        ) from error
    known = {name for names in COLUMNS.values() for name in names}
    try:
        names = parquet.read_schema(path).names
        wanted = [name for name in names if name.strip().lower() in known]
        values = parquet.read_table(path, columns=wanted).to_pydict()
    except (OSError, arrow.ArrowException) as error:
        problem = str(error).partition("\n")[0]
        raise _bad_table(path, "cannot be read", "a Parquet file", problem, "write the table again") from error
    return {name: values.get(name, []) for name in names}
