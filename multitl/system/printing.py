"""Where results go: plain text and tables on stdout.

Text comes from file names and class folders, so Rich's markup is off: a class may be called "[red]".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 10_000  # no line breaks inside a table that goes to a file or another program


def results() -> Console:
    """Where results go."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table; the columns named in `right` are aligned to the right."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return grid


def printable(text: str | os.PathLike[str]) -> str:
    """File names may hold bytes that are no text; show those as \\x.. instead of failing to print."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
