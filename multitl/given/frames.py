"""DataFrames of pandas and Polars, and tables of Arrow: a column of paths or images, one of labels, perhaps a split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multitl.data.tables import COLUMNS, Reading, is_known
from multitl.errors import DataError, nearest_names, shorten
from multitl.given.arrays import is_path
from multitl.given.rows import Row, cell_text, label_set_text
from multitl.system.paths import expanded

Columns = Mapping[str, list[Any]]


def read_pandas(frame: Any, reading: Reading) -> Iterator[Row]:
    _check_names([str(name) for name in frame.columns])
    return rows_of({str(name): frame[name].tolist() for name in frame.columns}, reading)


def read_polars(frame: Any, reading: Reading) -> Iterator[Row]:
    return rows_of({name: frame[name].to_list() for name in frame.columns}, reading)


def read_arrow(table: Any, reading: Reading) -> Iterator[Row]:
    _check_names(table.column_names)
    return rows_of({name: table.column(name).to_pylist() for name in table.column_names}, reading)


def rows_of(columns: Columns, reading: Reading, first: int = 0) -> Iterator[Row]:
    """Rows of columns in memory. An image is a path, the bytes of a file, {"bytes", "path"}, a PIL image or an array.

    first: the number of the first row, for people.
    """
    pictures = _pictures_in(columns, reading)
    for name in reading.listed or [reading.label_column]:
        check_column(columns, "label", name)
    if not columns[pictures]:
        raise DataError(
            "The table has no rows.", expected="one row an image", received="0 rows", fix="look where they were lost"
        )
    named = [reading.label_column, *reading.listed, *filter(is_known, columns)]
    others = {
        name: cells
        for name, cells in columns.items()
        if name != pictures and not _is_path(name, reading) and (name in named or not _is_content(cells))
    }
    for index, cell in enumerate(columns[pictures]):
        image, name = open_cell(cell, first + index)
        if is_path(image):
            image = str(expanded(Path(reading.images, image)).absolute())
        yield Row(image, {other: _text(cells[index], reading) for other, cells in others.items()}, name)


def _is_content(cells: list[Any]) -> bool:
    """Of another file, such as a second picture's, by the first that is there."""
    return isinstance(next((cell for cell in cells if cell is not None), None), bytes | Mapping)


def open_cell(cell: Any, index: int) -> tuple[Any, str]:
    """The image of a cell and the name of its file. Hugging Face has {"bytes", "path"}, either of which may be None."""
    if isinstance(cell, Mapping):
        data, path = cell.get("bytes"), cell.get("path")
        cell, name = (path, "") if data is None else (data, Path(path).name if isinstance(path, str) else "")
    else:
        name = ""
    if cell is None or isinstance(cell, float) or (is_path(cell) and not str(cell)):  # nan
        raise DataError(
            f"Row {index} has no image.", expected="a path or an image in every row", received=repr(cell),
            fix="drop the rows without one",
        )  # fmt: skip
    return cell, name


def _text(cell: Any, reading: Reading) -> str:
    """Several labels may be a list, or an array as pandas reads one from Parquet."""
    if reading.labels == "several":
        if isinstance(cell, np.ndarray | tuple):
            cell = list(cell)
        elif isinstance(cell, set | frozenset):
            cell = sorted(cell, key=str)
        if isinstance(cell, list) and all(isinstance(one, str) for one in cell):
            return label_set_text(cell, separator=reading.separator)
    return cell_text(cell)


def check_column(columns: Mapping[str, Any], meaning: str, asked: str) -> None:
    """Raises DataError if a column is asked for that is not there."""
    if asked and asked not in columns:
        raise DataError(
            f"The table has no column {asked!r}.",
            expected=f"the name of the column that holds the {meaning}s",
            received=shorten(columns, most=12) or "no columns",
            nearest=nearest_names(asked, columns),
            fix=f"{meaning}_column='NAME'",
        )


def _pictures_in(columns: Columns, reading: Reading) -> str:
    """The column that was asked for, or of those whose names are known the first with images, else with paths."""
    check_column(columns, "path", reading.path_column)
    if reading.path_column:
        return reading.path_column
    by_name = {name.strip().lower(): name for name in columns}
    known = [by_name[name] for name in COLUMNS["path"] if name in by_name]
    with_images = [name for name in known if columns[name] and not isinstance(columns[name][0], str | int)]
    if not known:
        raise DataError(
            "The table has no column of images.",
            expected=f"a column {', '.join(COLUMNS['path'][:9])}",
            received=shorten(columns, most=12) or "no columns",
            fix="path_column='NAME', whether it holds paths or images",
        )
    return (with_images or known)[0]


def _is_path(name: str, reading: Reading) -> bool:
    """Whether a column would be taken for the images' in the table that is written."""
    return name.strip().lower() in COLUMNS["path"] and name != reading.label_column


def _check_names(names: list[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            "The table has columns of the same name.",
            expected="names that differ",
            received=", ".join(twice),
            fix="rename them",
        )
