"""What a person decided about images: the column `verdict` of an issues.csv that `multitl review` wrote.

A recipe keeps the rows that have a verdict, not the file's name, as it does with tables of classes (class_tables.py).
Cells are as they stand in the file; data/relabelling.py says which images they mean.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import NamedTuple

from multitl.errors import RecipeError, nearest_names, shorten

KEEP, REMOVE = "keep", "remove"
PREFIX = "sha256:"  # so that no spreadsheet takes sixteen digits for a number
COLUMNS = ("path", "issue", "verdict", "sha256")
CONTENT = re.compile(rf"{PREFIX}[0-9a-f]{{16}}")
FORM = "an issues.csv that multitl review wrote, with verdicts in it: keep, remove, or the name of a class"


class Verdict(NamedTuple):
    """A row. content: the first 16 hex digits of the SHA-256 of the image's file.  path: where it was."""

    path: str
    issue: str
    verdict: str
    content: str


def verdicts_in(text: str) -> str:
    """The rows of a file that have a verdict, as the option relabel keeps them. Raises RecipeError if none has."""
    rows = [one for one in _rows_of(text) if one.verdict]
    if not rows:
        raise _bad("There is no verdict in this table.", "empty cells in the column verdict")
    return _write(rows)


def check_verdicts(text: str) -> None:
    """Raises RecipeError for what relabel cannot be; a file is not opened."""
    if not text.lower().endswith(".csv"):
        parse_verdicts(text)


def parse_verdicts(text: str) -> list[Verdict]:
    """The rows that `verdicts_in` gave; of an empty option none. Raises RecipeError."""
    return _rows_of(text) if text else []


def _rows_of(text: str) -> list[Verdict]:
    header = text.partition("\n")[0]
    separator = max(",;\t", key=header.count)  # a spreadsheet's own, when it saves
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        names, rows = reader.fieldnames or [], list(reader)
    except csv.Error as error:
        raise _bad(f"The option relabel is no CSV: {error}.", header) from error
    if missing := [name for name in COLUMNS if name not in names]:
        raise _bad(f"The table of verdicts has no column {missing[0]}.", header, nearest_names(missing[0], names))
    found = [Verdict(*((row[name] or "").strip(" ") for name in COLUMNS)) for row in rows]
    if wrong := [one.content for one in found if not CONTENT.fullmatch(one.content)]:
        raise _bad(f"The column sha256 holds what multitl review did not write: {shorten(wrong)}.", shorten(wrong))
    return [Verdict(*one[:-1], one.content.removeprefix(PREFIX)) for one in found]


def _write(rows: Iterable[Verdict]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *((*one[:-1], PREFIX + one.content) for one in rows)])
    return text.getvalue()


def _bad(problem: str, received: str, nearest: Iterable[str] = ()) -> RecipeError:
    return RecipeError(
        problem,
        expected=FORM,
        received=f"relabel: {received[:200]}",
        nearest=nearest,
        fix="multitl review RUN, write verdicts into RUN-review/issues.csv, and give that file: --relabel issues.csv",
    )
