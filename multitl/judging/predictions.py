"""RUN/predictions.csv: what a run says about every validation and test image, with all its probabilities."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from multitl.contracts import VALUE
from multitl.errors import RunError
from multitl.files.csv_cells import original, write_row
from multitl.standalone.decisions import decide
from multitl.system.regular_files import MOST_TEXT, read_regular
from multitl.system.writing import atomic_write

COLUMNS = ("split", "path", "label", "predicted", "confidence")  # and "p:CLASS" for each class
LABEL_COLUMNS = ("split", "path", "labels", "predicted")  # and "is:LABEL", then "p:LABEL" for each label
NUMBER_COLUMNS = ("split", "path", "true", "predicted")
JOINT = "|"  # between labels, for people: what is true stands in "is:LABEL", 0 or 1

Judged = tuple[str, str, Any, np.ndarray]  # split, path, what is true, probabilities (k,) of an image


@dataclass(frozen=True, eq=False)
class Predictions:
    """What predictions.csv holds. paths are absolute.

    labels: int (n,), or bool (n, k) where an image may have several, or numbers, float64 (n,).
    probabilities: float32 (n, k), k classes; of a number (n, 1), what was said.
    """

    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray

    def of(self, split: str) -> Predictions:
        """Only the images of one split."""
        rows = [row for row, name in enumerate(self.splits) if name == split]
        paths = tuple(self.paths[row] for row in rows)
        return Predictions(self.class_names, (split,) * len(rows), paths, self.labels[rows], self.probabilities[rows])


def write_predictions(
    path: str | os.PathLike[str], rows: Iterable[tuple[str, str, str, np.ndarray]], class_names: Sequence[str],
    costs: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Write predictions.csv. rows: split, path, true class name and probabilities (k,) of each image, in any order.
    costs: see `decisions.decide`.

    Paths become absolute, so that the file means the same from any working directory.
    """
    with atomic_write(path) as temporary, _open(temporary) as file:
        write_row(file, [*COLUMNS, *(f"p:{name}" for name in class_names)])
        for split, image, label, probabilities in rows:
            values = np.asarray(probabilities, np.float32)
            texts = [f"{value:.9g}" for value in values]  # nine digits bring a float32 back exactly
            best = int(decide(values[np.newaxis], costs)[0])
            write_row(file, [split, str(_absolute(image)), label, class_names[best], texts[best], *texts])


def write_label_predictions(
    path: str | os.PathLike[str], rows: Iterable[Judged], class_names: Sequence[str], thresholds: Sequence[float]
) -> None:
    """The same where an image may have several labels; what is true is bool (k,)."""
    with atomic_write(path) as temporary, _open(temporary) as file:
        write_row(
            file, [*LABEL_COLUMNS, *(f"is:{name}" for name in class_names), *(f"p:{name}" for name in class_names)]
        )
        for split, image, truth, probabilities in rows:
            values = np.asarray(probabilities, np.float32)
            texts = [f"{value:.9g}" for value in values]
            labels, given = (
                JOINT.join(name for name, has in zip(class_names, which, strict=True) if has)
                for which in (truth, values >= np.asarray(thresholds))
            )
            write_row(file, [split, str(_absolute(image)), labels, given, *(str(int(has)) for has in truth), *texts])


def write_number_predictions(path: str | os.PathLike[str], rows: Iterable[Judged]) -> None:
    """The same where a number is predicted: what is true is a float, what was said (1,)."""
    with atomic_write(path) as temporary, _open(temporary) as file:
        write_row(file, NUMBER_COLUMNS)
        for split, image, true, said in rows:
            write_row(file, [split, str(_absolute(image)), repr(float(true)), f"{np.float32(said[0]):.9g}"])


def read_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Read predictions.csv back. Raises RunError if it is missing or damaged."""
    try:
        text = read_regular(path, MOST_TEXT).decode("utf-8", "surrogateescape")
        header, *rows = ([original(cell) for cell in row] for row in csv.reader(io.StringIO(text, newline="")))
        if tuple(header[: len(LABEL_COLUMNS)]) == LABEL_COLUMNS:
            return _of_several(header[len(LABEL_COLUMNS) :], rows)
        if tuple(header) == NUMBER_COLUMNS:
            return _of_numbers(rows)
        names = tuple(column.removeprefix("p:") for column in header[len(COLUMNS) :])
        index = {name: i for i, name in enumerate(names)}
        probabilities = np.array([row[len(COLUMNS) :] for row in rows], np.float32).reshape(len(rows), len(names))
        labels = np.array([index[row[2]] for row in rows], np.int64)
        return Predictions(names, tuple(row[0] for row in rows), tuple(row[1] for row in rows), labels, probabilities)
    except (OSError, ValueError, KeyError, IndexError, csv.Error) as error:
        raise RunError(
            f"Cannot read {path}.",
            expected="the file that training wrote",
            received=repr(error),
            fix="finish the run with --resume, or start it again with --overwrite",
        ) from error


def _of_several(columns: list[str], rows: list[list[str]]) -> Predictions:
    """columns: after LABEL_COLUMNS. Raises ValueError where they are not those of as many labels twice."""
    count, start = len(columns) // 2, len(LABEL_COLUMNS)
    names = tuple(column.removeprefix("p:") for column in columns[count:])
    if tuple(column.removeprefix("is:") for column in columns[:count]) != names:
        raise ValueError("a header that is cut off")
    truth = np.array([row[start : start + count] for row in rows], np.int8).reshape(len(rows), count)
    probabilities = np.array([row[start + count :] for row in rows], np.float32).reshape(len(rows), count)
    return Predictions(names, tuple(row[0] for row in rows), tuple(row[1] for row in rows), truth > 0, probabilities)


def _of_numbers(rows: list[list[str]]) -> Predictions:
    """Raises ValueError for what is no number."""
    true = np.array([row[2] for row in rows], np.float64)
    said = np.array([row[3] for row in rows], np.float32).reshape(len(rows), 1)
    if not (np.isfinite(true).all() and np.isfinite(said).all()):
        raise ValueError("numbers that are not finite")
    return Predictions((VALUE,), tuple(row[0] for row in rows), tuple(row[1] for row in rows), true, said)


def _absolute(image: str) -> Path:
    """Like the data's path in the card, folders are resolved; the image itself keeps its name, also if it is a link."""
    return Path(image).parent.resolve() / Path(image).name


def _open(path: Path) -> IO[str]:
    """A CSV file to write that can hold any file name, also one that is not UTF-8."""
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")
