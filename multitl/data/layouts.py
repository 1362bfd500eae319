"""Folders beside each other that are not classes: data sets, parts, versions of the same pictures, and their masks.

Taken for classes they would be learned, without a word and with splendid figures. Names alone are looked at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from multitl.contracts import Split
from multitl.data.folders import find_files, own_images, subfolders
from multitl.data.split_names import parse_split
from multitl.errors import DataError, shorten

SHEETS = (".xlsx", ".xls", ".ods")
LAYOUTS = "CLASS/images, or train|validation|test/CLASS/images, or a CSV or Parquet file of path,label"
NOT_SO = "if they are the classes all the same, list the images in a table of path,label"
ALIKE = 0.5  # share of names that folders have in common which hold the same
PICTURES = frozenset({
    "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "jpegimages", "original", "originals",
    "raw", "input", "inputs", "rgb", "frames", "scans",
})  # fmt: skip
ANNOTATIONS = frozenset({
    "mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations",
    "segmentationclass", "segmentationobject", "groundtruth", "truth", "gt", "depth", "contours", "edges", "heatmaps",
    "trimaps",
})  # fmt: skip


def refuse_other_layouts(root: Path, folders: Sequence[Path]) -> None:
    """Raise DataError if the folders of `root` can be told not to be classes."""
    inner = {folder: [path.name for path in subfolders(folder)] for folder in folders}
    _refuse_annotations(root, folders)
    _refuse_several_data_sets(root, inner)
    _refuse_versions(root, inner)
    _refuse_copy_inside(root, inner)


def warn_of_namesakes(files: Mapping[str, set[str]]) -> tuple[str, ...]:
    """Of classes with files of the same names, unless these only count. files: class name -> names without endings."""
    shared = set.intersection(*files.values()) if len(files) > 1 else set()
    if len(shared) < max(5, ALIKE * max(map(len, files.values()), default=0)) or _only_count(shared):
        return ()
    return (
        f"The files of {shorten(sorted(files))} have the same names, such as {min(shared)}. If they are versions of "
        "the same pictures, give one folder of them: else train and test share what they show.",
    )


def refuse_twins(root: Path, splits: Mapping[Path, Split]) -> None:
    """Raise DataError for two folders of one split."""
    for split, count in Counter(splits.values()).items():
        if count > 1:
            names = [folder.name for folder, name in splits.items() if name == split]
            raise DataError(
                f"{root} has several {split} folders: {', '.join(names)}.",
                expected=f"one {split} folder",
                received=", ".join(names),
                fix=f"merge {' and '.join(names)}, or move one of them elsewhere",
            )


def unwrapped(folder: Path) -> Path:
    """The folder that really holds the classes of a split: training_set/training_set/cats, as archives unpack."""
    inside = subfolders(folder)
    if len(inside) == 1 and parse_split(inside[0].name) and not own_images(folder):
        return unwrapped(inside[0])
    return folder


def folder_of_folders(folder: Path) -> Path | None:
    """Where the first choice of several sub-folders is, from `folder` down; None if there is none."""
    inside = subfolders(folder)
    if len(inside) == 1:
        return folder_of_folders(inside[0])
    return folder if inside else None


def no_classes(root: Path) -> DataError:
    """For a folder without any in it."""
    images = len(own_images(root))
    return DataError(
        f"{root} has no class folders." if images else f"{root} is empty: no folder in it, no image.",
        expected=LAYOUTS,
        received=f"{images} images directly in it" if images else "no images",
        fix=f"sort the images into one folder a class, such as {root / 'cat'} and {root / 'dog'}",
    )


def _refuse_several_data_sets(root: Path, inner: Mapping[Path, list[str]]) -> None:
    """google/train/..., twitter/train/...: taken for classes, the names of the data sets would be learned."""
    splits = [[parse_split(name) for name in names] for names in inner.values()]
    if len(splits) > 1 and all("train" in names and None not in names for names in splits):
        raise DataError(
            f"{root} holds several data sets, not classes: {shorten(folder.name for folder in inner)}.",
            expected=LAYOUTS,
            received="every folder in it has a train folder of its own",
            fix=f"give one of them: {next(iter(inner))}",
        )


def _refuse_versions(root: Path, inner: Mapping[Path, list[str]]) -> None:
    """color/cat, color/dog, grey/cat, grey/dog; or fold_1/cat, ...: the folders inside are the classes."""
    shared = set.intersection(*map(set, inner.values()))
    if len(inner) > 1 and len(shared) >= max(2, ALIKE * max(map(len, inner.values()))):
        names = [folder.name for folder in inner]
        raise DataError(
            f"{root} holds the same classes several times: {shorten(names)} are versions or parts, not classes.",
            expected=LAYOUTS,
            received=f"{shorten(sorted(shared))} in each of {shorten(names)}",
            fix=f"give one of them: {next(iter(inner))}; or, if they are parts, rename them to train, validation and "
            f"test; {NOT_SO}",
        )


def _refuse_copy_inside(root: Path, inner: Mapping[Path, list[str]]) -> None:
    """cat, dog, pets/cat, pets/dog: the archive was packed with a copy of itself."""
    for folder, names in inner.items():
        others = {other.name for other in inner if other != folder}
        again = sorted(others.intersection(names))
        if len(again) >= max(2, ALIKE * len(others)):
            raise DataError(
                f"{folder} holds the classes of {root} once more, and is no class itself.",
                expected=LAYOUTS,
                received=f"{shorten(again)} in {root} and in {folder}",
                fix=f"move {folder} elsewhere, or give it instead of {root}; {NOT_SO}",
            )


def _refuse_annotations(root: Path, folders: Sequence[Path]) -> None:
    """images/001.jpg, masks/001.png."""
    pictures = [folder for folder in folders if PICTURES.intersection(_words(folder.name))]
    annotations = [folder for folder in folders if ANNOTATIONS.intersection(_words(folder.name))]
    for picture in pictures:
        for annotation in annotations:
            stems = _stems(picture), _stems(annotation)
            if picture != annotation and len(stems[0] & stems[1]) > ALIKE * min(map(len, stems)):
                raise DataError(
                    f"{root} looks like pictures and what is drawn on them, not like classes: {picture.name}, "
                    f"{annotation.name}.",
                    expected=LAYOUTS,
                    received=f"files of the same names in both, such as {min(stems[0] & stems[1])}",
                    fix=f"multitl tells classes of whole images: sort those of {picture} into one folder a class",
                )


def _only_count(stems: set[str]) -> bool:
    """img_1, img_2, ...: every class may be numbered so."""
    numbers = [int("0" + re.sub(r"[^0-9]", "", stem)[:18]) for stem in stems]
    return len({re.sub("[0-9]+", "", stem) for stem in stems}) == 1 and max(numbers) - min(numbers) < 2 * len(numbers)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_\d]+", name.lower()) if word]


def _stems(folder: Path) -> set[str]:
    """Names of the files below without their endings, and without what says that one is a mask: 7_mask.png is 7."""
    ending = re.compile(rf"[\W_]({'|'.join(sorted(ANNOTATIONS))})$")
    return {ending.sub("", path.stem.lower()) for path in find_files(folder)}
