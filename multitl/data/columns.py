"""A table with several targets, each of its own kind, taken apart: for each a data set of the images that have it.

All of them share one cut into parts: an image is of the same part in each. It is cut by all classes, labels and bins of
numbers together, so that each is in every part.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from multitl.contracts import SPLITS, Dataset, Labels, Split
from multitl.data.bins import bins_of
from multitl.data.checks import TRAINED, check_every_class_trained, check_trainable
from multitl.data.inspection import Progress, check_files
from multitl.data.listings import Listing, Record, check_exists
from multitl.data.scanning import part_to_judge, place_to_judge, place_to_train
from multitl.data.splits import cut_by_labels
from multitl.data.tables import TABLE_SUFFIXES, Reading, list_table
from multitl.errors import DataError, RecipeError, nearest_names
from multitl.recipes import Recipe
from multitl.system.writing import atomic_write

KINDS: Mapping[str, Labels] = {"class": "one", "labels": "several", "number": "number"}
BINS = 10  # of numbers, in which they are cut
SEPARATORS = "|;,+/"
ANSWERED = ("path", "error")  # by `predict`, beside what each head says
MOST_WEIGHT = 1e6  # of a head's loss


Placed = tuple[Dataset, Listing]  # what a target is learned from, and the same by name


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
            nearest=[
                near for pair in pairs for kind in pair[1:2] if kind not in KINDS for near in nearest_names(kind, KINDS)
            ],
            fix='--heads "defect=class, angle=number"',
        )
    if strange := [name for name in names if Path(name).name != name or name.startswith(".") or not name.isprintable()]:
        raise RecipeError(
            f"A head cannot be called {strange[0]!r}, since that is no name of a folder.",
            expected="names of columns without / and without a dot in front",
            received=strange[0],
            fix="rename the column",
        )
    if taken := [name for name in names if name in ANSWERED]:
        raise RecipeError(
            f"A head cannot be called {taken[0]!r}: answers have a key of that name.",
            expected=f"names of columns other than {' and '.join(ANSWERED)}",
            received=taken[0],
            fix="rename the column",
        )
    return [Target(name, KINDS[kind]) for name, kind in pairs]


def parse_head_weights(text: str, targets: Sequence[Target]) -> list[float]:
    """ "defect=2, angle=0.5" -> what each head's loss weighs, 1 where it is not named. Raises RecipeError."""
    weights = dict.fromkeys((target.name for target in targets), 1.0)
    for one in text.split(",") if text else ():
        name, _, number = (part.strip() for part in one.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if name not in weights or not 0 < weight <= MOST_WEIGHT:
            raise RecipeError(
                f"{one.strip()!r} does not say what a head's loss weighs.",
                expected=f"learned, or NAME=WEIGHT,... with weights above 0, of the heads {', '.join(weights)}",
                received=text,
                nearest=nearest_names(name, weights),
                fix=f'--head-weights "{targets[0].name}=2", or learned',
            )
        weights[name] = weight
    return list(weights.values())


def list_targets(
    data: str | os.PathLike[str], targets: Sequence[Target], recipe: Recipe, *, judges: bool = False
) -> dict[str, Listing]:
    """For each target the images that have it; an image without labels has none, which is known.

    judges: see `Reading`.  Raises DataError.
    """
    if not isinstance(data, str | os.PathLike):
        raise DataError(
            "Several heads are read from a file.",
            expected="the path of a table, CSV or Parquet, with a column for each head",
            received=type(data).__name__,
            fix='data.to_csv("table.csv")',
        )
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
                          skip_empty=one.labels != "several", judges=judges)
        for one in targets
    }  # fmt: skip
    return {name: list_table(path, reading) for name, reading in readings.items()}


def scan_targets(
    listings: Mapping[str, Listing], recipe: Recipe, progress: Progress | None = None
) -> dict[str, Placed]:
    """For each target its data set, and the same by name, once each image has a part. Every file is opened once.

    Raises DataError as `scan` does.
    """
    for listing in listings.values():
        check_trainable(listing)
    files = check_files(_all(listings), recipe.max_unreadable, recipe.decoding, progress)
    parts = _cut(listings, files.hashes, recipe)
    found = {}
    for name, listing in listings.items():
        readable = [record for record in listing.records if record.path in files.hashes]
        check_every_class_trained(listing, readable)
        placed = tuple(replace(record, split=parts.get(record.path, record.split)) for record in readable)
        dataset = place_to_train(listing, placed, files, recipe.decoding)
        found[name] = dataset, replace(listing, records=placed)
    return found


def scan_targets_to_judge(
    listings: Mapping[str, Listing], class_names: Mapping[str, Sequence[str]], split: Split, recipe: Recipe,
    progress: Progress | None = None,
) -> dict[str, Dataset]:  # fmt: skip
    """The images to judge each head on, all of them in split "test". Every file is opened once.

    class_names: of each head.  Raises DataError as `scan_for_evaluation` does.
    """
    chosen = {name: part_to_judge(listing, class_names[name], split) for name, listing in listings.items()}
    files = check_files(_all(chosen), recipe.max_unreadable, recipe.decoding, progress)
    return {
        name: place_to_judge(listing, class_names[name], files, recipe.decoding) for name, listing in chosen.items()
    }


def images_of(datasets: Mapping[str, Dataset]) -> Dataset:
    """The images of all targets, each once, without labels. datasets: by target."""
    own = list(datasets.values())
    images = {(one.split, one.path): replace(one, label=-1) for dataset in own for one in dataset.examples}
    examples = sorted(images.values(), key=lambda one: (SPLITS.index(one.split), one.path))
    unreadable = {file.path: file for dataset in own for file in dataset.unreadable}
    names = "".join(f"{name}\n{dataset.fingerprint}\n" for name, dataset in datasets.items())
    fingerprint = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
    return Dataset(own[0].root, (), tuple(examples), tuple(unreadable.values()), fingerprint=fingerprint)


def write_table(listing: Listing, path: Path) -> None:
    """The images of a target as a table of path, label, split, by which a run of this target alone has the same."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = [(record.path, label, record.split) for record, label in _texts(listing.records)]
        csv.writer(file).writerows([("path", "label", "split"), *rows])


def _all(listings: Mapping[str, Listing]) -> Listing:
    """Every file once."""
    records = {record.path: record for listing in listings.values() for record in listing.records}
    return Listing(next(iter(listings.values())).root, (), tuple(records.values()))


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


def _cut(listings: Mapping[str, Listing], hashes: Mapping[str, str], recipe: Recipe) -> dict[str, Split]:
    """Path -> part, of the images that parts which the data does not bring are cut from. hashes: path -> sha256."""
    present = {record.split for listing in listings.values() for record in listing.records}
    fractions: dict[Split, float] = {"test": recipe.test_fraction, "validation": recipe.validation_fraction}
    if "validation" in present:
        return {}
    if "test" in present:
        del fractions["test"]
    sets: dict[str, set[str]] = defaultdict(set)
    for name, listing in listings.items():
        records = [one for one in listing.records if one.split in TRAINED and one.path in hashes]
        numbers = [record.label for record in records if isinstance(record.label, float)]
        bins = [(str(one),) for one in bins_of(numbers, BINS)] if numbers else [one.labels for one in records]
        for record, labels in zip(records, bins, strict=True):
            sets[record.path].update(f"{name}:{label}" for label in labels)
    images = [(tuple(sorted(sets[path])), hashes[path]) for path in sorted(sets)]
    return dict(zip(sorted(sets), cut_by_labels(images, fractions, recipe.seed), strict=True))
