"""What a user's folder holds: which images, of which class and split, going by names alone. No file is opened.

Two layouts: `class/images`, and `train|validation|test/class/images`. Folders inside a class belong to it.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from multitl.contracts import Split
from multitl.errors import DataError, nearest_names, shorten

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".avif",
    ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip
# pictures that cannot be decoded here are named in a warning; all else (notes, thumbnail databases) is passed over
OTHER_IMAGE_SUFFIXES = frozenset({
    ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".jpx", ".svg", ".psd", ".tga", ".exr", ".hdr", ".dcm", ".eps", ".ico",
    ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf",
})  # fmt: skip
SKIPPED_FOLDERS = frozenset({"__MACOSX", "@eaDir"})  # copies and thumbnails that macOS and Synology leave behind
SPLIT_SPELLINGS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "train_set"),
    "validation": ("validation", "valid", "val", "validate", "dev", "validation_set", "val_set"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout", "test_set"),
}
LAYOUTS = "CLASS/images, or train|validation|test/CLASS/images, or a CSV or Parquet file of path,label"


@dataclass(frozen=True)
class Record:
    """One image before it is opened. `label` is a class name; `split` is None where the data names no splits."""

    path: str
    label: str
    split: Split | None = None


@dataclass(frozen=True)
class Listing:
    """All of a data set by name. `class_names`: those of the training part (empty class folders too), sorted."""

    root: str
    class_names: tuple[str, ...]
    records: tuple[Record, ...]
    warnings: tuple[str, ...] = ()


def parse_split(name: str) -> Split | None:
    """The split that a folder or a table calls `name`; None if it is no spelling of one."""
    spelling = name.strip().lower().replace("-", "_").replace(" ", "_")
    return next((split for split, spellings in SPLIT_SPELLINGS.items() if spelling in spellings), None)


def list_folder(root: Path) -> Listing:
    """List `class/images` or `train|validation|test/class/images`. Raises DataError for anything else."""
    folders = _subfolders(root)
    if not folders:
        raise _no_classes(root)
    named = {folder: split for folder in folders if (split := parse_split(folder.name))}
    splits = {folder: split for folder, split in named.items() if _subfolders(folder) or not _own_images(folder)}
    if len(splits) < len(named) == len(folders):
        raise _no_classes(next(folder for folder in named if folder not in splits))
    return _list_splits(root, folders, splits) if splits else _list_classes(root, folders)


def list_records(root: str | os.PathLike[str], records: Iterable[Record]) -> Listing:
    """A listing of records that were not found by walking folders."""
    kept = tuple(records)
    class_names = sorted({record.label for record in kept if record.split in (None, "train")})
    return Listing(os.fspath(root), tuple(class_names), kept)


def find_files(folder: Path) -> Iterator[Path]:
    """Every visible file below `folder`, in an order that only names decide; follows links, each folder once."""
    above = folder.resolve()
    yield from _walk(folder, {_identity(path) for path in (above, *above.parents)})


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


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
    _refuse_several_data_sets(root, folders)
    records, others = _class_records(folders, None)
    warnings = _warn_of_others(others) + _warn_of_strays([root])
    return Listing(str(root), tuple(sorted(folder.name for folder in folders)), tuple(records), warnings)


def _list_splits(root: Path, folders: list[Path], splits: Mapping[Path, Split]) -> Listing:
    _refuse_twins(root, splits)
    records: list[Record] = []
    class_names: set[str] = set()
    others: Counter[str] = Counter()
    for folder, split in splits.items():
        classes = _subfolders(folder)
        found, unsupported = _class_records(classes, split)
        records += found
        others += unsupported
        class_names.update(path.name for path in classes if split == "train")
    warnings = _warn_of_others(others) + _warn_of_strays([root, *splits])
    if ignored := [folder.name for folder in folders if folder not in splits]:
        warnings += (f"Beside the splits, {root} holds folders that are ignored: {shorten(ignored)}.",)
    return Listing(str(root), tuple(sorted(class_names)), tuple(records), warnings)


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


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    for entry in _visible(folder):
        if not entry.is_dir():
            yield entry
        elif (identity := _identity(entry)) not in seen:  # a link to a folder above would never end
            seen.add(identity)
            yield from _walk(entry, seen)


def _visible(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
        for entry in entries[:1]:
            entry.lstat()  # a folder may let its names be read and nothing more
    except OSError as error:
        raise DataError(
            f"Cannot look into {folder}: {error.strerror or error}.",
            expected="a folder that this user may read",
            received=str(folder),
            fix=f"chmod +rx {folder}, or remove it",
        ) from error
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name not in SKIPPED_FOLDERS]


def _subfolders(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if entry.is_dir()]


def _own_images(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if is_image(entry) and entry.is_file()]


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _warn_of_others(others: Counter[str]) -> tuple[str, ...]:
    if not others:
        return ()
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    return (f"Pictures in formats that cannot be read are ignored: {kinds}. Convert them to JPEG or PNG to use them.",)


def _warn_of_strays(folders: list[Path]) -> tuple[str, ...]:
    strays = {folder: len(_own_images(folder)) for folder in folders}
    return tuple(
        f"Images that lie directly in {folder}, outside the class folders, are ignored: {count}."
        for folder, count in strays.items()
        if count
    )


def _refuse_twins(root: Path, splits: Mapping[Path, Split]) -> None:
    for split, count in Counter(splits.values()).items():
        if count > 1:
            names = [folder.name for folder, name in splits.items() if name == split]
            raise DataError(
                f"{root} has several {split} folders: {', '.join(names)}.",
                expected=f"one {split} folder",
                received=", ".join(names),
                fix=f"merge {' and '.join(names)}, or move one of them elsewhere",
            )


def _refuse_several_data_sets(root: Path, folders: list[Path]) -> None:
    """google/train/..., twitter/train/...: taken for classes, the names of the data sets would be learned."""
    inner = [[parse_split(path.name) for path in _subfolders(folder)] for folder in folders]
    if all("train" in names and None not in names for names in inner):
        raise DataError(
            f"{root} holds several data sets, not classes: {shorten(folder.name for folder in folders)}.",
            expected=LAYOUTS,
            received="every folder in it has a train folder of its own",
            fix=f"give one of them: {folders[0]}",
        )


def _no_classes(root: Path) -> DataError:
    images = len(_own_images(root))
    return DataError(
        f"{root} has no class folders." if images else f"{root} is empty: no folder in it, no image.",
        expected=LAYOUTS,
        received=f"{images} images directly in it" if images else "no images",
        fix=f"sort the images into one folder a class, such as {root / 'cat'} and {root / 'dog'}",
    )
