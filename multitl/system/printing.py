"""Where results go: plain text and tables on stdout.

Text comes from file names and class folders, so Rich's markup is off: a class may be called "[red]". Nothing that could
be a name is broken in two: where a table is too wide for the terminal even so, each of its rows becomes a paragraph.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 10_000  # no line breaks inside a table that goes to a file or another program
INDENT = 2


def results() -> Console:
    """Where results go."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


def table(*columns: str, right: Sequence[str] = (), prose: Sequence[str] = ()) -> Table:
    """An empty table; the columns named in `right` are aligned to the right, those in `prose` may be wrapped between
    words.
    """
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", no_wrap=column not in prose)
    return grid


def show(grid: Table, screen: Console | None = None) -> None:
    """Print a table: as wide as the terminal, or without a blank too many where it is piped."""
    screen = screen or results()
    if not screen.is_terminal:
        with screen.capture() as captured:
            screen.print(grid)
        lines = [line.rstrip() for line in captured.get().splitlines()]
        print(textwrap.dedent("\n".join(lines)).strip("\n"))
    elif fit(grid, screen):
        screen.print(grid)
    else:
        _show_paragraphs(grid, screen)


def fit(grid: Table, screen: Console) -> bool:
    """Give each column its width, so that nothing but prose is wrapped, and that between words; False if it is too
    wide.
    """
    cells = [[str(column.header), *map(str, column.cells)] for column in grid.columns]
    natural = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in cells]
    words = [max(cell_len(word) for cell in column for word in cell.split() or [""]) for column in cells]
    least = [
        whole if column.no_wrap else word for column, whole, word in zip(grid.columns, natural, words, strict=True)
    ]
    measured = Measurement.get(screen, screen.options.update(width=PIPE_WIDTH), grid).maximum
    spare = screen.width - (measured - sum(natural)) - sum(least)
    wanted = sum(natural) - sum(least)
    for column, low, high in zip(grid.columns, least, natural, strict=True):
        column.width = high if wanted <= spare else low + (high - low) * max(spare, 0) // wanted
    return spare >= 0


def _show_paragraphs(grid: Table, screen: Console) -> None:
    """The first cell of a row, and below it the others, each after the name of its column."""
    if grid.title:
        screen.print(str(grid.title), soft_wrap=True)
    _, *names = (str(column.header) for column in grid.columns)
    for first, *others in zip(*(map(str, column.cells) for column in grid.columns), strict=True):
        screen.print(first, soft_wrap=True)
        facts = [f"{name} {cell}".strip() for name, cell in zip(names, others, strict=True) if cell]
        for line in _packed(facts, screen.width - INDENT):
            screen.print(Padding(Text(line), (0, 0, 0, INDENT)))


def _packed(facts: Sequence[str], width: int) -> list[str]:
    """As many on a line as have room there."""
    lines = [""]
    for fact in facts:
        longer = f"{lines[-1]}   {fact}" if lines[-1] else fact
        lines[-1:] = [longer] if cell_len(longer) <= width or not lines[-1] else [lines[-1], fact]
    return lines


def printable(text: str | os.PathLike[str]) -> str:
    """File names may hold bytes that are no text; show those as \\x.. instead of failing to print."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")
