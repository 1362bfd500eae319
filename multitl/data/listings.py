"""What a user's folder holds: which images, of which class and split, going by names alone. No file is opened.

Two layouts: `class/images`, and `train|validation|test/class/images`. Folders inside a class belong to it.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from multitl.contracts import VALUE, Split
from multitl.data.folders import OTHER_IMAGE_SUFFIXES, find_files, is_image, own_images, subfolders
from multitl.data.layouts import LAYOUTS, no_classes, refuse_other_layouts, refuse_twins, unwrapped, warn_of_namesakes
from multitl.data.split_names import parse_splits
from multitl.errors import DataError, nearest_names, shorten


@dataclass(frozen=True, slots=True)  # there may be millions
class Record:
    """One image before it is opened. `split` is None where the data names no splits.

    label: a class name; of a data set with several labels an image a tuple of those that it has, sorted; of one with a
    number for each image that number.
    """

    path: str
    label: str | tuple[str, ...] | float
    split: Split | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """All that it has, however many an image may have; of a number its name alone, `VALUE`."""
        if isinstance(self.label, tuple):
            return self.label
        return (VALUE,) if isinstance(self.label, float) else (self.label,)


@dataclass(frozen=True)
class Listing:
    """All of a data set by name. `class_names`: those of the training part (empty class folders too), sorted."""

    root: str
    class_names: tuple[str, ...]
    records: tuple[Record, ...]
    warnings: tuple[str, ...] = ()


def list_folder(root: Path) -> Listing:
    """List `class/images` or `train|validation|test/class/images`. Raises DataError for anything else."""
    folders = subfolders(root)
    if not folders:
        raise no_classes(root)
    names = parse_splits(folder.name for folder in folders)
    named = {folder: names[folder.name] for folder in folders if folder.name in names}
    splits = {folder: split for folder, split in named.items() if _has_classes(unwrapped(folder))}
    if "train" not in splits.values() and len(splits) < len(named) == len(folders):
        raise no_classes(next(folder for folder in named if folder not in splits))
    return _list_splits(root, folders, splits) if splits else _list_classes(root, folders)


def list_records(root: str | os.PathLike[str], records: Iterable[Record]) -> Listing:
    """A listing of records that were not found by walking folders."""
    kept = tuple(records)
    class_names = sorted({label for record in kept if record.split in (None, "train") for label in record.labels})
    return Listing(os.fspath(root), tuple(class_names), kept)


def check_exists(path: Path, expected: str = f"a folder {LAYOUTS}") -> None:
    """Raise DataError, with the names nearby that look alike, if `path` is not there."""
    try:
        path.stat()
        return
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
    siblings: list[str] = []
    with contextlib.suppress(OSError):
        siblings = os.listdir(path.parent)  # noqa: PTH208  (names only)
    raise DataError(
        f"Cannot find {path}: {reason}.",
        expected=expected,
        received=str(path),
        nearest=nearest_names(path.name, siblings),
        fix="check the path",
    )


def _list_classes(root: Path, folders: list[Path]) -> Listing:
    refuse_other_layouts(root, folders)
    records, others = _class_records(folders, None)
    warnings = _warn_of_others(others) + _warn_of_strays([root]) + warn_of_namesakes(_stems(records))
    return Listing(str(root), tuple(sorted(folder.name for folder in folders)), tuple(records), warnings)


def _list_splits(root: Path, folders: list[Path], splits: Mapping[Path, Split]) -> Listing:
    refuse_twins(root, splits)
    records: list[Record] = []
    class_names: set[str] = set()
    others: Counter[str] = Counter()
    for folder, split in splits.items():
        classes = subfolders(unwrapped(folder))
        if classes:
            refuse_other_layouts(folder, classes)
        found, unsupported = _class_records(classes, split)
        records += found
        others += unsupported
        class_names.update(path.name for path in classes if split == "train")
    warnings = _warn_of_others(others) + _warn_of_strays([root, *splits])
    warnings += warn_of_namesakes(_stems(record for record in records if record.split == "train"))
    if ignored := [folder.name for folder in folders if folder not in splits]:
        warnings += (f"Beside the splits, {root} holds folders that are ignored: {shorten(ignored)}.",)
    return Listing(str(root), tuple(sorted(class_names)), tuple(records), warnings)


def _has_classes(folder: Path) -> bool:
    """Or nothing at all; a folder of plain images is a class of that name, or has none."""
    return bool(subfolders(folder)) or not own_images(folder)


def _class_records(folders: list[Path], split: Split | None) -> tuple[list[Record], Counter[str]]:
    """The records of class folders, and how many pictures of which unsupported types lie among them."""
    records, others = [], Counter[str]()
    for folder in folders:
        for path in find_files(folder):
            if is_image(path):
                records.append(Record(str(path), folder.name, split))
            elif path.suffix.lower() in OTHER_IMAGE_SUFFIXES:
                others[path.suffix.lower()] += 1
    return records, others


def _stems(records: Iterable[Record]) -> dict[str, set[str]]:
    """Class name -> names of its files without their endings."""
    stems = defaultdict[str, set[str]](set)
    for record in records:
        stem = os.path.splitext(os.path.basename(record.path))[0]  # noqa: PTH119, PTH122  (a million)
        stems[record.labels[0]].add(stem)
    return stems


def _warn_of_others(others: Counter[str]) -> tuple[str, ...]:
    if not others:
        return ()
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    return (f"Pictures in formats that cannot be read are ignored: {kinds}. Convert them to JPEG or PNG to use them.",)


def _warn_of_strays(folders: list[Path]) -> tuple[str, ...]:
    strays = {folder: len(own_images(folder)) for folder in folders}
    return tuple(
        f"Images that lie directly in {folder}, outside the class folders, are ignored: {count}."
        for folder, count in strays.items()
        if count
    )
