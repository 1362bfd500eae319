"""A look at a user's data before anything is trained on it: what is there, what is wrong with it, what is cut off.

`scan` gives the `Dataset` that training starts from; pixels.py reads its pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from multitl.class_tables import check_classes
from multitl.contracts import SPLITS, Dataset, Decoding, Example, Split, Unreadable
from multitl.data.checks import (
    check_every_class_left,
    check_every_class_trained,
    check_has_images,
    check_judgeable,
    check_known,
    check_readable,
    check_spread,
    check_trainable,
    printable,
    warn_of_copies,
    warn_of_gaps,
    warn_of_spellings,
)
from multitl.data.containers import TAR, holds, is_container, list_images_in, shards_in
from multitl.data.folders import find_files, is_image
from multitl.data.images import PLAINLY
from multitl.data.inspection import Files, Progress, check_files
from multitl.data.layouts import LAYOUTS, SHEETS
from multitl.data.listings import Listing, Record, check_exists, list_folder, list_records
from multitl.data.parts import Before, Parts, nowhere
from multitl.data.relabelling import check_relabelling, relabelled
from multitl.data.remote import local
from multitl.data.shards import list_shards
from multitl.data.split_names import parse_split
from multitl.data.tables import AS_USUAL, TABLE_SUFFIXES, Reading, check_one_class_each, list_table
from multitl.errors import DataError, shorten
from multitl.recipes import Recipe


def scan(
    path: str | os.PathLike[str],
    *,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
    max_unreadable: float,
    shots: int = 0,
    decoding: Decoding = PLAINLY,
    reading: Reading = AS_USUAL,
    progress: Progress | None = None,
    before: Before = nowhere,
    listing: Listing | None = None,
    relabel: str = "",
) -> Dataset:
    """Look at a folder, CSV or Parquet file: images new to this machine are decoded, and missing splits are cut off.

    Layouts: see listings.py and tables.py. Without splits, `test_fraction` of every class becomes test, then
    `validation_fraction` of the rest validation. Of train and test, validation is cut from train; train and validation
    are taken as they are, without a test. The cut depends on the seed and the files' contents, not on where they lie.

    shots: so many images a class are kept, 0 for all, as if there were no others: they are drawn from all that is not
    test, a validation part of the data included, and validation is cut from them anew. Test is as without shots; where
    there is none, validation is left as it is instead, and train alone is drawn from.

    decoding: how the files become pictures.  reading: what a table does not say of itself.  before: see `Parts`.
    listing: what `path` holds, if that is known by now.  relabel: verdicts on images, see relabelling.py.

    Raises DataError if there is nothing sound to train on, or if more than `max_unreadable` (a share, 0 to 1) of the
    files cannot be read. Lesser faults are in `Dataset.warnings` and `Dataset.unreadable`.
    """
    listing = listing or list_data(Path(path), reading)
    return _look_at(
        listing, seed, validation_fraction, test_fraction, max_unreadable, progress, shots=shots, decoding=decoding,
        before=before, relabel=relabel,
    )  # fmt: skip


def scan_for_training(
    path: str | os.PathLike[str], recipe: Recipe, progress: Progress | None = None, before: Before = nowhere,
    listing: Listing | None = None,
) -> Dataset:  # fmt: skip
    """`scan` with the seed, the shares, the tolerance, the shots and the reading of files of a recipe.

    before: see `Parts`.  listing: what `check_for_training` gave, so that a million files are not listed twice.
    """
    return scan(
        path,
        seed=recipe.seed,
        validation_fraction=recipe.validation_fraction,
        test_fraction=recipe.test_fraction,
        max_unreadable=recipe.max_unreadable,
        shots=recipe.shots,
        decoding=recipe.decoding,
        reading=Reading.of(recipe),
        progress=progress,
        before=before,
        listing=listing,
        relabel=recipe.relabel,
    )


def scan_examples(
    rows: Iterable[tuple[str, str] | tuple[str, str, str]],
    root: str | os.PathLike[str],
    *,
    seed: int,
    validation_fraction: float,
    test_fraction: float,
    max_unreadable: float,
    progress: Progress | None = None,
) -> Dataset:
    """`scan` for a list in memory: (path, class name) or (path, class name, split); paths relative to `root`."""
    records = [Record(str(Path(root, row[0])), row[1], _split_of(row)) for row in rows]
    listing = list_records(root, records)
    return _look_at(listing, seed, validation_fraction, test_fraction, max_unreadable, progress)


def scan_for_evaluation(
    path: str | os.PathLike[str],
    class_names: Sequence[str],
    *,
    split: Split = "test",
    max_unreadable: float,
    decoding: Decoding = PLAINLY,
    reading: Reading = AS_USUAL,
    progress: Progress | None = None,
) -> Dataset:
    """The images to judge a finished run on, labelled by its `class_names`, all of them in split "test".

    Of data with splits the part `split` is taken, of other data everything. Classes of the run may be absent.
    Raises DataError for a class that the run does not know, and as `scan` does.
    """
    listing = _list_to_judge(path, class_names, split, reading)
    return place_to_judge(listing, class_names, check_files(listing, max_unreadable, decoding, progress), decoding)


def place_to_judge(listing: Listing, class_names: Sequence[str], files: Files, decoding: Decoding) -> Dataset:
    """Names and what is known of the files -> a Dataset, all of it in split "test"."""
    placed = [replace(record, split="test") for record in listing.records if record.path in files.hashes]
    warnings = (*listing.warnings, *files.looks.warnings(decoding, of_a_run=True))
    return _dataset(replace(listing, class_names=tuple(class_names), warnings=warnings), placed, files)


def check_for_training(path: str | os.PathLike[str], recipe: Recipe) -> Listing:
    """What there is by name. Raises the DataErrors of `scan_for_training` that names alone lead to, and a RecipeError
    for tables of other classes; opens no image.
    """
    listing = list_data(Path(path), Reading.of(recipe))
    check_trainable(listing)
    check_classes(recipe.class_weights, recipe.costs, listing.class_names)
    check_relabelling(recipe.relabel, listing.class_names, recipe.labels)
    return listing


def check_path(path: str | os.PathLike[str]) -> None:
    """Raises DataError for a folder or table that is not there."""
    check_exists(Path(path))


def check_for_evaluation(
    path: str | os.PathLike[str], class_names: Sequence[str], split: Split, reading: Reading
) -> None:
    """Raises the DataErrors of `scan_for_evaluation` that names alone lead to; opens no image."""
    _list_to_judge(path, class_names, split, reading)


def list_images(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, once: bool = True) -> list[str]:
    """Files as given, and the images anywhere in folders, sorted by name within each.

    paths: one, or several.  once: no path a second time.
    Raises DataError for a path that does not exist and if there is no image at all.
    """
    given = [Path(local(path)) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    found: list[Path] = []
    for path in given:
        if not holds(str(path)):
            check_exists(path, "an image file, or a folder of images")
        found += _images_at(path)
    if not found:
        raise DataError(
            "There is no image to look at.",
            expected="image files, or folders that hold some",
            received=shorten(map(str, given)) or "no path",
            fix="check the path" if given else "name an image file or a folder",
        )
    names = map(str, found)
    return list(dict.fromkeys(names) if once else names)


def _images_at(path: Path) -> list[Path]:
    if path.is_dir():
        shards = shards_in(path)
        return [image for shard in shards for image in _images_at(shard)] or list(filter(is_image, find_files(path)))
    return list(map(Path, list_images_in(path))) if is_container(path) else [path]


def leave_out(dataset: Dataset, damaged: Sequence[Unreadable], most: float) -> Dataset:
    """The data set without images that turned out to be damaged; its fingerprint is still that of all.

    most: see `check_readable`. Raises DataError for more, and where nothing sound is left.
    """
    gone, unreadable = {file.path for file in damaged}, (*dataset.unreadable, *damaged)
    check_readable(dataset.root, len(dataset.examples) + len(dataset.unreadable), unreadable, most)
    contents = {example.sha256 for example in dataset.examples if example.path in gone}
    left = tuple(example for example in dataset.examples if example.sha256 not in contents)
    dataset = replace(dataset, examples=left, unreadable=unreadable)
    check_judgeable(dataset)
    check_spread(dataset)
    check_every_class_left(dataset)
    return dataset


def wholly_read(dataset: Dataset, recipe: Recipe, progress: Progress | None = None) -> Dataset:
    """Of a data set of which only some images were decoded, those that all were, for whoever cannot go back for one.

    Raises DataError for more damaged ones than the recipe puts up with.
    """
    if not dataset.is_sampled:
        return dataset
    listing = list_records(dataset.root, [Record(one.path, "") for one in dataset.examples])
    damaged = check_files(listing, 1.0, recipe.decoding, progress).unreadable
    left = leave_out(dataset, damaged, recipe.max_unreadable) if damaged else dataset
    return replace(left, is_sampled=False)


def count_images(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Images by split and class name, zeros included."""
    counts = Counter((example.split, label) for example in dataset.examples for label in example.labels)
    return {split: {name: counts[split, label] for label, name in enumerate(dataset.class_names)} for split in SPLITS}


def _look_at(
    listing: Listing, seed: int, validation_fraction: float, test_fraction: float, max_unreadable: float,
    progress: Progress | None, shots: int = 0, decoding: Decoding = PLAINLY, before: Before = nowhere,
    relabel: str = "",
) -> Dataset:  # fmt: skip
    """From names to a Dataset: open every file, cut the missing splits, draw the shots, and say what is odd."""
    check_trainable(listing)
    files = check_files(listing, max_unreadable, decoding, progress, samples=True)
    readable = [record for record in listing.records if record.path in files.hashes]
    check_every_class_trained(listing, readable)
    parts = Parts(files.hashes, validation_fraction, test_fraction, seed, before)
    placed, notes = parts.cut(readable)
    said: Sequence[str] = ()
    if relabel:
        placed, said = relabelled(placed, files.hashes, relabel, listing.class_names)
        check_every_class_trained(listing, placed)
    if shots:
        placed, notes = parts.draw(placed, shots)
    notes = [*notes, *said]
    return place_to_train(listing, placed, files, decoding, notes)


def place_to_train(
    listing: Listing, placed: Sequence[Record], files: Files, decoding: Decoding, notes: Sequence[str] = ()
) -> Dataset:
    """Records that all have a part -> a Dataset. Raises DataError where nothing can be learned from it."""
    dataset = _dataset(listing, placed, files)
    check_judgeable(dataset)
    check_spread(dataset)
    warnings = (*dataset.warnings, *files.looks.warnings(decoding), *warn_of_gaps(dataset), *notes,
                *warn_of_spellings(dataset.class_names))  # fmt: skip
    channels = next(iter(files.looks.channels)) if decoding.channels == () else 0
    return replace(dataset, warnings=warnings, channels=channels)


def list_data(path: Path, reading: Reading) -> Listing:
    """What a folder, a table or a container holds, by names alone. Raises DataError."""
    check_exists(path)
    if path.is_dir():
        if shards := shards_in(path):
            return list_shards(path, shards, reading)
        check_one_class_each(path, reading)
        return list_folder(path)
    if path.suffix.lower() in TAR and path.is_file():
        return list_shards(path, [path], reading)
    if path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
        return list_table(path, reading)
    raise DataError(
        f"{path} is neither a folder nor a table of images.",
        expected=LAYOUTS,
        received=f"a file that ends in {path.suffix or 'nothing'}",
        fix="save the sheet as UTF-8 CSV"
        if path.suffix.lower() in SHEETS
        else "unpack it if it is an archive, and give the folder",
    )


def _list_to_judge(path: str | os.PathLike[str], class_names: Sequence[str], split: Split, reading: Reading) -> Listing:
    return part_to_judge(list_data(Path(path), reading), class_names, split)


def part_to_judge(listing: Listing, class_names: Sequence[str], split: Split) -> Listing:
    """The part of a data set, or all of one without parts. Raises DataError for classes that are not among these."""
    if any(record.split for record in listing.records):
        listing = _only(listing, split)
    check_has_images(listing)
    check_known(listing.records, class_names, "the run")
    return listing


def _split_of(row: Sequence[str]) -> Split | None:
    if len(row) == 2:
        return None
    split = parse_split(row[2])
    if split is None:
        raise DataError(
            f"{row[2]!r} is not the name of a split.",
            expected=", ".join(SPLITS),
            received=f"{row[2]!r} for {row[0]}",
            fix="rename it, or leave the splits out",
        )
    return split


def _only(listing: Listing, split: Split) -> Listing:
    """The part of a listing that is judged."""
    records = tuple(record for record in listing.records if record.split == split)
    if records:
        return replace(listing, records=records)
    parts = ", ".join(part for part in SPLITS if any(record.split == part for record in listing.records))
    raise DataError(
        f"{listing.root} has no {split} images.",
        expected=f"a {split} part, or images without splits",
        received=f"only {parts}",
        fix="give the folder of the part to judge on, such as DATA/validation",
    )


def _dataset(listing: Listing, placed: Sequence[Record], files: Files) -> Dataset:
    numbers = {name: number for number, name in enumerate(listing.class_names)}
    examples = [
        Example(record.path, _numbered(record, numbers), record.split, files.hashes[record.path])
        for record in placed
        if record.split  # for type checkers: by now all have one
    ]
    examples.sort(key=lambda example: (SPLITS.index(example.split), example.path, example.label))
    paths = {printable(record.path) for record in listing.records}
    unreadable = tuple(file for file in files.unreadable if file.path in paths)
    dataset = Dataset(listing.root, listing.class_names, tuple(examples), unreadable, is_sampled=files.is_sampled)
    warnings = (*listing.warnings, *warn_of_copies(dataset))
    return replace(dataset, warnings=warnings, fingerprint=_fingerprint(dataset))


def _numbered(record: Record, numbers: Mapping[str, int]) -> int | tuple[int, ...] | float:
    if isinstance(record.label, float):
        return record.label
    labels = tuple(sorted(numbers[name] for name in record.labels))
    return labels if isinstance(record.label, tuple) else labels[0]


def _fingerprint(dataset: Dataset) -> str:
    """The same wherever the files lie and whatever they are called: sha256 of labels, splits and contents, as JSON
    [class names, [[split, label, sha256], ...]], which of a million images is not made at once.
    """
    digest = hashlib.sha256(f"[{json.dumps(dataset.class_names)}, [".encode())
    examples = sorted(dataset.examples, key=lambda one: (one.split, one.label, one.sha256))
    for number, one in enumerate(examples):
        label = one.label if isinstance(one.label, int) else json.dumps(one.label)
        digest.update(f'{", " if number else ""}["{one.split}", {label}, "{one.sha256}"]'.encode())
    digest.update(b"]]")
    return digest.hexdigest()
