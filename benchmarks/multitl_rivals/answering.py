"""The frame of every rival: `python -m multitl_rivals.RIVAL TABLE SIZE SEED PREDICTIONS`.

It reads a table path,label,split, makes the pixels that multitl would see, asks the rival for the probabilities of the
test images, writes them as multitl does, and prints in one line what the rival chose.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from multitl.contracts import Dataset, Preprocess, Split
from multitl.data.pixels import PixelReader
from multitl.judging.predictions import write_predictions
from multitl_rivals.tables import look_at


@dataclass(frozen=True, eq=False)
class Part:
    """Images of one split: uint8 (n, size, size, 3) and class indices int64 (n,)."""

    pixels: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Task:
    """What a rival gets. `test` has labels too: it is trusted not to look at them."""

    train: Part
    validation: Part
    test: Part
    classes: int
    seed: int


Rival: TypeAlias = Callable[[Task], tuple[np.ndarray, str]]  # (test images, classes), and what it chose


def answer(rival: Rival) -> None:
    """Be the program of a rival."""
    table, size, seed, predictions = sys.argv[1:]
    found = look_at(Path(table), int(seed))
    preprocess = lite0_pixels(int(size))
    train, validation, test = (_read(found, split, preprocess) for split in ("train", "validation", "test"))
    probabilities, chosen = rival(Task(train, validation, test, len(found.class_names), int(seed)))
    examples = found.split("test")
    rows = [("test", one.path, found.class_names[one.labels[0]], values)
            for one, values in zip(examples, probabilities, strict=True)]  # fmt: skip
    write_predictions(predictions, rows, found.class_names)
    print(chosen)


def lite0_pixels(size: int) -> Preprocess:
    """How `pypi/efficientnet_lite0` of multitl sees a photo, without building the network (tested to be equal)."""
    return Preprocess(
        height=size,
        width=size,
        resize="crop",
        shorter_side=round(size * 256 / 224),
        interpolation="bicubic",
        antialias=True,
        scale=(1 / 128,) * 3,
        offset=(-127 / 128,) * 3,
    )


def _read(found: Dataset, split: Split, preprocess: Preprocess) -> Part:
    examples = found.split(split)
    pixels = PixelReader(examples, preprocess).read(range(len(examples)))
    return Part(pixels, np.array([one.label for one in examples], np.int64))
