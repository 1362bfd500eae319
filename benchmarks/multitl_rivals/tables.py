"""The data sets of benchmarks/recipes.py as tables path,label,split, so that every contender has the same splits."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from multitl.cli.demo import write_labels
from multitl.contracts import Dataset
from multitl.data.scanning import scan_for_training
from multitl.recipes import Recipe

FEW = 500  # training images below which luck decides, so that several seeds are run
HEADER = ("path", "label", "split")

Rows = list[tuple[str, str, str]]  # path, class name, split


@dataclass(frozen=True)
class DataSet:
    """place: relative to the folder DATA, or the name of a program or package that makes a table.  size: pixels."""

    place: str
    size: int


DATA_SETS = {
    "clothing_tiny": DataSet("clothing_tiny", 224),
    "clothing_medium": DataSet("clothing_medium", 224),
    "deeppcb_split": DataSet("split_deeppcb.py", 96),
    "deeppcb_crops": DataSet("deeppcb_crops", 96),
    "elpv": DataSet("elpv-dataset", 224),
    "emoji_google": DataSet("emoji_vendors/google", 96),
    "emoji_twitter": DataSet("emoji_vendors/twitter", 96),
}


def open_table(folder: Path, name: str, seed: int, data: Path) -> Path:
    """FOLDER/NAME-SEED.csv: made from the data set once, with what splits it lacks cut off by the seed.

    Raises DataError (a MultitlError) where the data are not there.
    """
    table = folder / f"{name}-{seed}.csv"
    if not table.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        source = _source(DATA_SETS[name].place, folder, data)
        found = look_at(source, seed)
        write_rows(table, [(str(Path(one.path).resolve()), found.class_names[one.labels[0]], one.split)
                       for one in found.examples])  # fmt: skip
    return table


def open_few(folder: Path, name: str, shots: int, draw: int, data: Path) -> Path:
    """FOLDER/NAME-SHOTSshots-DRAW.csv: of train and validation, so many images a class; the whole test part."""
    table = folder / f"{name}-{shots}shots-{draw}.csv"
    if not table.is_file():
        write_rows(table, draw_few(read_rows(open_table(folder, name, 0, data)), shots, draw))
    return table


def look_at(source: Path, seed: int) -> Dataset:
    """As `multitl finetune` looks at it by default. Raises DataError."""
    return scan_for_training(source, Recipe(seed=seed))


def draw_few(rows: Rows, shots: int, draw: int) -> Rows:
    """`shots` training images of every class, drawn by the seed `draw` from train and validation; all test images."""
    pool = defaultdict(list)
    for path, label, split in rows:
        if split != "test":
            pool[label].append(path)
    luck = random.Random(draw)
    chosen = [(path, label, "train") for label in sorted(pool) for path in luck.sample(sorted(pool[label]), shots)]
    return chosen + [row for row in rows if row[2] == "test"]


def read_rows(table: Path) -> Rows:
    with table.open(newline="", encoding="utf-8") as file:
        return [(path, label, split) for path, label, split in list(csv.reader(file))[1:]]


def count_splits(table: Path) -> dict[str, int]:
    """Split -> images."""
    return dict(Counter(split for _, _, split in read_rows(table)))


def _source(place: str, folder: Path, data: Path) -> Path:
    """What `scan` takes."""
    if place == "elpv-dataset":
        return write_labels(folder / "elpv.csv")
    if place.endswith(".py"):
        table = folder / Path(place).with_suffix(".csv")
        subprocess.run([sys.executable, str(data / place), str(table)], check=True)
        return table
    return data / place


def write_rows(table: Path, rows: Rows) -> None:
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *rows])
