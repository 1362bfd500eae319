"""Cells of CSV files that no spreadsheet takes for a formula, and back.

Excel, LibreOffice and Google Sheets run a cell that begins with one of these signs (CWE-1236; OWASP, "CSV Injection"),
and a class or a file may be called anything. Such a cell is written with an apostrophe before it, which spreadsheets
take for "this is text". So is one that begins with an apostrophe itself: what was written can be told exactly.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import IO

RUN_BY_SPREADSHEETS = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")  # the last four: = + - @ of full width
MARK = "'"
MARKED = (MARK, *RUN_BY_SPREADSHEETS)
SEPARATORS = ("\r", ";", "\t")


def write_row(file: IO[str], cells: Iterable[object]) -> None:
    """One line of a CSV file; texts are made harmless, numbers written as they are.

    All cells are quoted if one holds what another program might take for the end of a cell; and Python's csv leaves a
    lone carriage return without quotes, and then cannot read it back.
    """
    texts = [harmless(cell) if isinstance(cell, str) else str(cell) for cell in cells]
    must_quote = any(sign in text for text in texts for sign in SEPARATORS)
    csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if must_quote else csv.QUOTE_MINIMAL).writerow(texts)


def harmless(text: str) -> str:
    """The cell to write for a text."""
    return MARK + text if text.startswith(MARKED) else text


def original(cell: str) -> str:
    """The text of a cell that `harmless` made."""
    return cell[1:] if cell.startswith(MARK) and cell[1:].startswith(MARKED) else cell
