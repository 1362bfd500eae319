"""Images of another domain, such as photos of another camera, that have no labels: what a classifier may be fitted to
without being told what they show.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from multitl.contracts import Dataset, Example
from multitl.data.inspection import Progress, check_files
from multitl.data.listings import Record, list_records
from multitl.data.scanning import list_images
from multitl.errors import DataError
from multitl.recipes import Recipe

FEWEST = 8  # images that say something of a domain
OPTION = "--unlabelled "


def check_unlabelled(folder: str, option: str = OPTION) -> None:
    """Raises the DataErrors of `add_unlabelled` that names alone lead to; opens no image.

    folder: "" for none.  option: that it is given by, "" for its place alone.
    """
    if folder:
        _list(folder, option)


def add_unlabelled(
    dataset: Dataset, recipe: Recipe, progress: Progress | None = None, option: str = OPTION
) -> Dataset:  # fmt: skip
    """The data set with the images anywhere in the folder `recipe.unlabelled`; as it is where that names none.

    Folders in there are no classes: nothing but the images is looked at. Equal files count once, in an order that their
    contents decide; the fingerprint covers them. option: see `check_unlabelled`.

    Raises DataError for fewer than FEWEST, and as `scan` does.
    """
    if not recipe.unlabelled:
        return dataset
    records = [Record(path, "") for path in _list(recipe.unlabelled, option)]
    files = check_files(list_records(recipe.unlabelled, records), recipe.max_unreadable, recipe.decoding, progress)
    warnings = files.looks.warnings(recipe.decoding)
    by_content = {sha256: path for path, sha256 in sorted(files.hashes.items(), reverse=True)}
    _check_enough(recipe.unlabelled, len(by_content), option)
    return replace(
        dataset,
        unlabelled=tuple(Example(path, -1, "train", sha256) for sha256, path in sorted(by_content.items())),
        unreadable=(*dataset.unreadable, *files.unreadable),
        warnings=(*dataset.warnings, *(one for one in warnings if one not in dataset.warnings)),
        fingerprint=hashlib.sha256("".join([dataset.fingerprint, *sorted(by_content)]).encode()).hexdigest(),
    )


def _list(folder: str, option: str) -> list[str]:
    if Path(folder).is_file():
        raise DataError(
            f"{folder} is not a folder.",
            expected="a folder of images without labels",
            received="a file",
            fix=f"{option or 'name the folder: '}{Path(folder).parent}",
        )
    found = list_images(folder)
    _check_enough(folder, len(found), option)
    return found


def _check_enough(folder: str, count: int, option: str) -> None:
    if count < FEWEST:
        raise DataError(
            f"{folder} holds too few images to tell how they differ.",
            expected=f"at least {FEWEST} different images without labels",
            received=str(count),
            fix="add images of the same kind" + (f", or leave {option}out" if option else ""),
        )
