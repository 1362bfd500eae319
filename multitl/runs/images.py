"""RUN/images.csv: which images a run was made of, by their contents, so that another run can go on from it.

A line an image, in the order of the data set: the first 16 hex digits of the file's SHA-256, its part, its class. Like
everything in a run's folder it may have been made by anyone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from multitl.contracts import SPLITS, Example, Split
from multitl.errors import RunError
from multitl.files.csv_cells import original, write_row
from multitl.system.regular_files import MOST_TEXT, read_regular
from multitl.system.writing import write_text

IMAGES = "images.csv"
DIGITS = 16
BETWEEN = "|"  # several labels of an image
COLUMNS = ("sha256", "split", "label")


@dataclass(frozen=True)
class KnownImage:
    """content: see `content_of`.  label: name of the class."""

    content: str
    split: Split
    label: str


def content_of(sha256: str) -> str:
    """What stands in the file for an image."""
    return sha256[:DIGITS]


def write_images(folder: Path, examples: Iterable[Example], class_names: tuple[str, ...]) -> None:
    text = io.StringIO()
    write_row(text, COLUMNS)
    for one in examples:
        write_row(text, [content_of(one.sha256), one.split, BETWEEN.join(class_names[label] for label in one.labels)])
    write_text(folder / IMAGES, text.getvalue())


def read_images(folder: Path) -> tuple[KnownImage, ...] | None:
    """None for a run of an older version, which did not write them down. Raises RunError for a damaged file."""
    path = folder / IMAGES
    if not path.exists():
        return None
    try:
        rows = csv.reader(io.StringIO(read_regular(path, MOST_TEXT).decode("utf-8"), newline=""))
        if tuple(next(rows, ())) != COLUMNS:
            raise ValueError(f"columns other than {', '.join(COLUMNS)}")
        return tuple(_image(row) for row in rows)
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(
            f"Cannot read {path}.",
            expected="the file that training wrote",
            received=repr(error),
            fix="finish the run with --resume, or start it again with --overwrite",
        ) from error


def _image(row: list[str]) -> KnownImage:
    content, part, label = map(original, row)
    split = next((one for one in SPLITS if one == part), None)
    if split is None or len(content) != DIGITS or set(content) - set("0123456789abcdef"):
        raise ValueError(f"a line {row}")
    return KnownImage(content, split, label)
