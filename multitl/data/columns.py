"""A table with several targets, each of its own kind, taken apart: for each target a table of the images that have it.

All of them share one cut into parts: an image is of the same part in each. It is cut by all classes, labels and bins of
numbers together, so that each is in every part.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multitl.contracts import Labels, Split
from multitl.data.bins import bins_of
from multitl.data.images import UnreadableImage, read_file
from multitl.data.listings import Listing, Record, check_exists
from multitl.data.splits import cut_by_labels
from multitl.data.tables import TABLE_SUFFIXES, Reading, list_table
from multitl.errors import DataError, RecipeError
from multitl.recipes import Recipe
from multitl.system.writing import atomic_write

KINDS: Mapping[str, Labels] = {"class": "one", "labels": "several", "number": "number"}
BINS = 10  # of numbers, in which they are cut
SEPARATORS = "|;,+/"


@dataclass(frozen=True)
class Target:
    """A column of a table, and what stands in it."""

    name: str
    labels: Labels


def parse_targets(text: str) -> list[Target]:
    """ "kind=class, angle=number" -> both. Raises RecipeError."""
    pairs = [[part.strip() for part in one.split("=")] for one in text.split(",")]
    names = [pair[0] for pair in pairs]
    is_right = all(len(pair) == 2 and pair[0] and pair[1] in KINDS for pair in pairs)
    if not is_right or len(set(names)) < len(names) or len(names) < 2:
        raise RecipeError(
            f"{text!r} does not say what each head is to learn.",
            expected=f"two columns of the table or more, each with one of {', '.join(KINDS)}",
            received=text or "nothing",
            fix='--heads "defect=class, angle=number"',
        )
    if strange := [name for name in names if Path(name).name != name or name.startswith(".") or not name.isprintable()]:
        raise RecipeError(
            f"A head cannot be called {strange[0]!r}, since that is no name of a folder.",
            expected="names of columns without / and without a dot in front",
            received=strange[0],
            fix="rename the column",
        )
    return [Target(name, KINDS[kind]) for name, kind in pairs]


def list_targets(data: str | os.PathLike[str], targets: Sequence[Target], recipe: Recipe) -> dict[str, Listing]:
    """For each target the images that have it; an image without labels has none, which is known. Raises DataError."""
    path = Path(data)
    check_exists(path, "a table of images with a column for each head")
    if path.suffix.lower() not in TABLE_SUFFIXES or not path.is_file():
        raise DataError(
            f"{path} is no table, and an image in it has one target.",
            expected="for several heads a table, CSV or Parquet, with a column for each",
            received=f"{path}, heads {', '.join(target.name for target in targets)}",
            fix="write a table of path and one column a head",
        )
    readings = {
        one.name: Reading(recipe.images, recipe.path_column, one.name, one.labels, recipe.label_separator,
                          skip_empty=one.labels != "several")
        for one in targets
    }  # fmt: skip
    return {name: list_table(path, reading) for name, reading in readings.items()}


def write_tables(listings: Mapping[str, Listing], folder: Path, recipe: Recipe, *, is_cut: bool) -> dict[str, Path]:
    """FOLDER/NAME.csv of each target: path, label, split. is_cut: where the data has no parts they are cut here."""
    parts = _cut(listings, recipe) if is_cut else {}
    tables = {}
    for name, listing in listings.items():
        texts = _texts(listing.records)
        rows = [(one.path, label, one.split or parts.get(one.path)) for one, label in texts]
        has_parts = any(split for _, _, split in rows)
        header, count = ("path", "label", "split"), 3 if has_parts else 2
        tables[name] = folder / f"{name}.csv"
        with atomic_write(tables[name]) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(row[:count] for row in (header, *rows))
    return tables


def _texts(records: Sequence[Record]) -> list[tuple[Record, str]]:
    """Records and their cells: several labels with something between them that is in none."""
    labels = {label for record in records for label in record.labels}
    between = next((one for one in SEPARATORS if not any(one in label for label in labels)), SEPARATORS[0])
    cells = [
        between.join(one.label) if isinstance(one.label, tuple)
        else repr(one.label) if isinstance(one.label, float)
        else one.label
        for one in records
    ]  # fmt: skip
    return list(zip(records, cells, strict=True))


def _cut(listings: Mapping[str, Listing], recipe: Recipe) -> dict[str, Split]:
    """Path -> part, of data that brings no parts."""
    if any(record.split for listing in listings.values() for record in listing.records):
        return {}
    sets: dict[str, set[str]] = defaultdict(set)
    for name, listing in listings.items():
        numbers = [record.label for record in listing.records if isinstance(record.label, float)]
        bins = [(str(one),) for one in bins_of(numbers, BINS)] if numbers else [one.labels for one in listing.records]
        for record, labels in zip(listing.records, bins, strict=True):
            sets[record.path].update(f"{name}:{label}" for label in labels)
    hashes = {path: _hash(path) for path in sorted(sets)}
    fractions: dict[Split, float] = {"test": recipe.test_fraction, "validation": recipe.validation_fraction}
    images = [(tuple(sorted(sets[path])), sha256) for path, sha256 in hashes.items()]
    return dict(zip(hashes, cut_by_labels(images, fractions, recipe.seed), strict=True))


def _hash(path: str) -> str:
    """Of a file's bytes; of one that cannot be read, which is told later, of its name."""
    try:
        data = read_file(path)
    except UnreadableImage:
        data = path.encode("utf-8", "surrogateescape")
    return hashlib.sha256(data).hexdigest()
