"""What `predict` gives, written as it comes: a table of CSV, or an object of JSON a line.

Every line is handed over whole, so that whoever stops the program keeps what was finished.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from multitl.contracts import VALUE
from multitl.errors import RunError
from multitl.files.csv_cells import write_row
from multitl.judging.predictions import JOINT
from multitl.system.writing import cannot_write

Row = Mapping[str, Any]
COLUMNS = ("path", "predicted", "confidence", "familiarity", "error")  # and "p:CLASS" for each class
NUMBER_COLUMNS = ("path", VALUE, "familiarity", "error")


def check_new(file: str, *, overwrite: bool) -> None:
    """Raises RunError for a file that is there already and is not to be replaced."""
    if os.path.lexists(file) and not overwrite:
        raise RunError(
            f"{file} exists already.",
            expected="a new file, or permission",
            received=file,
            fix="add --overwrite to replace it, or choose another --csv",
        )


def write_csv(path: str, rows: Iterable[Row], class_names: Sequence[str]) -> tuple[int, int]:
    """How many rows there were, and how many of them of files that cannot be read.

    Of classes that a row does not list the cell is empty. Where an image may have several labels, those that it was
    given stand in one cell, with | between them, and there is no confidence. Of a number there is nothing else.
    """
    if tuple(class_names) == (VALUE,):
        return _write_rows(path, NUMBER_COLUMNS, rows, _number_cells)
    header = [*COLUMNS, *(f"p:{name}" for name in class_names)]
    return _write_rows(path, header, rows, partial(_class_cells, class_names))


def write_heads(path: str, rows: Iterable[Row], heads: Sequence[str]) -> tuple[int, int]:
    """The same of several heads: a column for what each says, named as it is, and one for how sure it is of a class."""
    header = ["path", *(name for head in heads for name in (head, f"{head}:confidence")), "error"]
    return _write_rows(path, header, rows, partial(_head_cells, heads))


def _write_rows(
    path: str, header: Sequence[str], rows: Iterable[Row], cells: Callable[[Row], Sequence[str]]
) -> tuple[int, int]:
    count = faults = 0
    try:
        with Path(path).open("w", newline="", encoding="utf-8", errors="surrogateescape", buffering=1) as file:
            write_row(file, header)
            for row in rows:
                write_row(file, cells(row))
                count, faults = count + 1, faults + ("error" in row)
    except OSError as error:
        raise cannot_write(Path(path), error) from error
    return count, faults


def _class_cells(class_names: Sequence[str], row: Row) -> list[str]:
    known = row.get("probabilities", {})
    values = [_digits(known[name]) if name in known else "" for name in class_names]
    return [row["path"], answer_text(row), *_known(row, "confidence", "familiarity"), row.get("error", ""), *values]


def _number_cells(row: Row) -> list[str]:
    return [row["path"], *_known(row, VALUE, "familiarity"), row.get("error", "")]


def _head_cells(heads: Sequence[str], row: Row) -> list[str]:
    cells = [row["path"]]
    for head in heads:
        said = row.get(head, {})
        cells += [answer_text(said), *_known(said, "confidence")]
    return [*cells, row.get("error", "")]


def _known(row: Row, *names: str) -> list[str]:
    """Numbers; an empty cell for one that is not told."""
    return [_digits(row[name]) if name in row else "" for name in names]


def answer_text(said: Mapping[str, Any]) -> str:
    """What one head says of an image: a class, labels, or a number; "" for nothing."""
    if VALUE in said:
        return _digits(said[VALUE])
    predicted = said.get("predicted", "")
    return predicted if isinstance(predicted, str) else JOINT.join(predicted)


def print_lines(rows: Iterable[Row]) -> None:
    """JSON lines on stdout."""
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


def _digits(value: float) -> str:
    return f"{value:.9g}"  # they bring a float32 back exactly
