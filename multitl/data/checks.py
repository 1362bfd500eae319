"""What can be wrong with a data set: the errors and warnings that `scan` gives."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from multitl.contracts import SPLITS, Dataset, Example, Unreadable
from multitl.data.layouts import LAYOUTS, folder_of_folders
from multitl.data.listings import Listing, Record
from multitl.errors import DataError, nearest_names, shorten

TRAINED = (None, "train")  # splits of records that are to be learned from
FINEST = 2.5e-4  # deviations of numbers that float32 has to be able to tell apart


def check_has_images(listing: Listing) -> None:
    """Raise DataError for a data set without a single image file."""
    if not listing.records:
        raise DataError(
            f"There is no image in {listing.root}.",
            expected=LAYOUTS,
            received="no file whose name ends like an image's",
            fix="check the path, or convert the images to JPEG or PNG",
        )


def check_trainable(listing: Listing) -> None:
    """Raise DataError where names alone show that nothing can be trained: no training part, one class, strange ones."""
    check_has_images(listing)
    if listing.records[0].split and not any(record.split == "train" for record in listing.records):
        raise DataError(
            f"{listing.root} has nothing to train on.",
            expected="a train part, or images without splits",
            received="only " + ", ".join(sorted({str(record.split) for record in listing.records})),
            fix="add a train folder, or give a folder CLASS/images and let it be split",
        )
    numbers = [
        record.label for record in listing.records if isinstance(record.label, float) and record.split in TRAINED
    ]
    if numbers:
        check_numbers(listing.root, numbers)
    elif not listing.class_names:
        raise DataError(
            f"No image of {listing.root} that is to be learned from has a label.",
            expected="two labels or more, some on some images",
            received="empty cells, or 0 alone",
            fix="name the column that holds them: --label-column NAME",
        )
    elif len(listing.class_names) < 2:
        raise _one_class(listing)
    for name in listing.class_names:
        if printable(name) != name:
            raise DataError(
                f"The name of a class is not valid UTF-8: {printable(name)}.",
                expected="text",
                received=printable(name),
                fix="rename its folder",
            )
    check_known(listing.records, listing.class_names, f"the training part of {listing.root}")


def check_numbers(root: str, numbers: Sequence[float]) -> None:
    """Raise DataError where every training image has the same number, or hardly another one in float32."""
    if min(numbers) == max(numbers):
        raise DataError(
            f"The training images of {root} all have the same number: {numbers[0]:g}.",
            expected="numbers that differ, to be predicted",
            received=f"{numbers[0]:g}, {len(numbers)} times",
            fix="add images with other numbers, or name another column with --label-column",
        )
    deviation = float(np.std(numbers))
    step = float(np.spacing(np.float32(np.abs(numbers).max())))
    if step > FINEST * deviation:
        raise DataError(
            f"The numbers of {root} hardly differ for their size: a network computes with seven digits.",
            expected=f"a standard deviation of {step / FINEST:.3g} or more, at this size",
            received=f"a standard deviation of {deviation:.3g} around {np.mean(numbers):.9g}",
            fix=f"subtract the same from all of them, such as {min(numbers):.9g}",
        )


def _one_class(listing: Listing) -> DataError:
    name, fix = listing.class_names[0], "add images that show something else, as another class"
    above = next((folder for folder in Path(listing.records[0].path).parents if folder.name == name), None)
    if above and Path(listing.root).is_dir() and (inside := folder_of_folders(above)):  # as archives unpack
        is_part = listing.records[0].split
        fix = f"move the folders of {inside} to {above.parent}" if is_part else f"give the folder inside: {inside}"
    return DataError(
        f"{listing.root} has one class only: {name}.", expected="two classes or more", received="1 class", fix=fix
    )


def check_known(records: Iterable[Record], class_names: Sequence[str], knower: str) -> None:
    """Raise DataError for labels outside `class_names`, which are those that `knower` knows."""
    labels = {label for record in records for label in record.labels}
    unknown = sorted(printable(label) for label in labels.difference(class_names))
    if unknown:
        raise DataError(
            f"There are classes that {knower} does not know: {shorten(unknown)}.",
            expected="only " + shorten(class_names, most=20),
            received=shorten(unknown),
            nearest=nearest_names(unknown[0], class_names),
            fix="rename or remove them, or train with images of them",
        )


def check_readable(root: str, count: int, unreadable: Sequence[Unreadable], most: float, mending: str = "") -> None:
    """Raise DataError if more than the share `most` of `count` files is unreadable, or all of them.

    mending: an option that would make them readable.
    """
    known = mending or next((file.fix for file in unreadable if file.fix), "")
    if len(unreadable) == count:
        problem, fix = f"None of the {count} image files in {root} can be read.", known or "check the files"
    elif len(unreadable) > most * count:
        share = len(unreadable) / count
        problem = f"{len(unreadable)} of {count} image files in {root} cannot be read."
        fix = f"{known or 'mend or remove them'}, or allow them with --max-unreadable {min(1, share + 0.005):.2f}"
    else:
        return
    listed = shorten(f"{file.path} ({file.reason})" for file in unreadable)
    raise DataError(problem, expected=f"at most {most:.0%} unreadable files", received=listed, fix=fix)


def check_every_class_trained(listing: Listing, readable: Iterable[Record]) -> None:
    """Raise DataError for a class without a readable training image."""
    trained = {label for record in readable if record.split in (None, "train") for label in record.labels}
    _check_trained(listing.root, [name for name in listing.class_names if name not in trained])


def check_every_class_left(dataset: Dataset) -> None:
    """The same of a data set from which images were left out."""
    trained = {label for example in dataset.split("train") for label in example.labels}
    _check_trained(dataset.root, [name for label, name in enumerate(dataset.class_names) if label not in trained])


def _check_trained(root: str, missing: Sequence[str]) -> None:
    if missing:
        raise DataError(
            f"Classes without a training image in {root}: {shorten(missing)}.",
            expected="at least one readable training image of every class",
            received="0 of " + shorten(missing),
            fix="add images, or remove the class",
        )


def check_spread(dataset: Dataset) -> None:
    """Raise DataError where numbers are to be predicted, and those of the training images that can be read are one."""
    numbers = [example.label for example in dataset.split("train") if isinstance(example.label, float)]
    if numbers:
        check_numbers(dataset.root, numbers)


def check_channels(root: str, channels: Mapping[int, int]) -> None:
    """Raises DataError where not all files have as many channels. channels: number of them -> files."""
    if len(channels) > 1:
        counts = sorted(channels.items(), key=lambda one: -one[1])
        shared = ",".join(map(str, range(1, min(channels) + 1)))
        raise DataError(
            f"The images of {root} do not all have as many channels.",
            expected="one number of channels, where all of them are taken",
            received=", ".join(f"{held} in {files:,} files" for held, files in counts),
            fix=f"leave the others out, or --channels {shared}, which all have",
        )


def check_judgeable(dataset: Dataset) -> None:
    """Raise DataError if there is no validation image: no epoch could be told from another."""
    if not dataset.split("validation"):
        raise DataError(
            f"{dataset.root} has too few images: none can be spared for validation.",
            expected="a class with at least 3 different images, or a validation part",
            received=f"{len(dataset.split('train'))} training images in {len(dataset.class_names)} classes",
            fix="add images",
        )


def warn_of_gaps(dataset: Dataset) -> list[str]:
    """No test part, and classes that a judged part lacks."""
    warnings = []
    if not dataset.split("test"):
        warnings.append(
            "There is no test part: figures on the validation images, by which the best epoch is chosen, flatter."
        )
    for split in SPLITS[1:]:
        examples = dataset.split(split)
        present = {label for example in examples for label in example.labels}
        missing = [name for label, name in enumerate(dataset.class_names) if label not in present]
        if examples and missing:
            warnings.append(f"The {split} part has no image of {shorten(missing)}.")
    return warnings


def warn_of_spellings(names: Sequence[str]) -> list[str]:
    """Classes whose names are the same but for case, blanks and the encoding of accents."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(unicodedata.normalize("NFC", " ".join(name.split())).casefold(), []).append(name)
    pairs = [" and ".join(map(repr, group)) for group in alike.values() if len(group) > 1]
    return [f"Names of classes that differ in spelling alone: {shorten(pairs)}. One class?"] if pairs else []


def warn_of_copies(dataset: Dataset) -> list[str]:
    """Equal files in two splits (leakage), and equal files with two labels."""
    groups = _groups_of_copies(dataset.examples)
    leaks = [pair for group in groups if (pair := _first_difference(group, [example.split for example in group]))]
    doubts = [pair for group in groups if (pair := _first_difference(group, [example.label for example in group]))]
    warnings = []
    if leaks:
        first, second = leaks[0]
        warnings.append(
            f"Leakage: {len(leaks)} images have exact copies in another split, so the figures flatter; "
            f"e.g. {first.path} ({first.split}) and {second.path} ({second.split})."
        )
    if doubts:
        shown = " and ".join(f"{one.path} ({_name_labels(one, dataset)})" for one in doubts[0])
        what = "numbers" if isinstance(doubts[0][0].label, float) else "labels"
        warnings.append(f"{len(doubts)} images carry two {what}; e.g. {shown}.")
    return warnings


def _groups_of_copies(examples: Iterable[Example]) -> list[list[Example]]:
    """Those with equal contents, in the order of their first ones; of a million images few are in any group."""
    firsts: dict[str, Example] = {}
    copies = defaultdict[str, list[Example]](list)
    for example in examples:
        first = firsts.setdefault(example.sha256, example)
        if first is not example:
            copies[example.sha256].append(example)
    return [[first, *copies[sha256]] for sha256, first in firsts.items() if sha256 in copies]


def _name_labels(example: Example, dataset: Dataset) -> str:
    if isinstance(example.label, float):
        return f"{example.label:g}"
    return ", ".join(dataset.class_names[label] for label in example.labels) or "none"


def printable(name: str) -> str:
    """A file name as text that any file can hold: bytes that are no UTF-8 are written as escapes."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def _first_difference(group: list[Example], keys: list) -> tuple[Example, Example] | None:
    """The first example and the first one that differs from it in its key."""
    return next(((group[0], other) for other, key in zip(group, keys, strict=True) if key != keys[0]), None)
