"""Data of a program's memory become a table of files, once: everything after that reads files, as it always does.

    <cache>/given/arrays-3fa9c1d20b5e.csv     path,label[,split]; its name is a hash of what is in it
    <cache>/given/arrays-3fa9c1d20b5e/row-000.png, row-001.png, ...

Why files, and not readers in memory: content hashes, splits, stores, the report's pictures, `--resume`, `evaluate` and
`port` in a later process all need the images again, by name and at random, when the array is gone. Bytes are written as
they are, pixels without loss (pictures.py), paths stay where they are. The same data give the same table again, so a
run that was cut off goes on. `evaluate` and `predict` need theirs no longer than they last: a temporary folder.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from multitl.contracts import SPLITS
from multitl.data.images import suffix_of
from multitl.data.split_names import parse_split
from multitl.data.tables import Reading
from multitl.errors import DataError, shorten
from multitl.given.arrays import is_path
from multitl.given.kinds import is_known, is_ordered, kind_of
from multitl.given.pictures import as_bytes
from multitl.given.rows import Row
from multitl.system.cache import cache_folder
from multitl.system.progress import progress_bar
from multitl.system.scratch import temporary_folder
from multitl.system.threads import default_threads, map_batches
from multitl.system.writing import atomic_write, cannot_write

AT_ONCE = 32  # images that are encoded
AHEAD = 2
LONGEST = 80  # bytes of a name that are kept


@dataclass(frozen=True)
class Shelf:
    """table: of the files.  paths: of the images in order; shown: what to call each."""

    table: Path
    paths: tuple[str, ...]
    shown: tuple[str, ...]


@dataclass(frozen=True)
class _Item:
    """An image that is written. path: of its file, absolute.  sha256: of its content; of a path that of the path."""

    row: Row
    path: str
    sha256: str
    suffix: str = ""


def are_paths(images: Any) -> bool:
    """Whether images to classify are a path or a list of paths."""
    return is_path(images) or (isinstance(images, list | tuple) and all(map(is_path, images)))


def listed(images: Any) -> Any:
    """Images to classify: one of Pillow as a list, and what can be gone through only once, too; others as they are."""
    if isinstance(images, Image.Image):
        return [images]
    return images if is_path(images) or is_known(images) or not isinstance(images, Iterable) else list(images)


def keep(data: Any, reading: Reading) -> Path:
    """The table of what is given, in the cache. Raises DataError, and RunError where nothing can be written."""
    return _shelve(data, reading, cache_folder() / "given", needs_labels=True).table


@contextmanager
def lent(data: Any, reading: Reading, *, needs_labels: bool) -> Iterator[Shelf]:
    """The same for as long as it takes."""
    with temporary_folder() as folder:
        yield _shelve(data, reading, folder, needs_labels=needs_labels)


def _shelve(data: Any, reading: Reading, folder: Path, *, needs_labels: bool) -> Shelf:
    kind = kind_of(data)
    try:
        with temporary_folder(folder) as temporary:
            items = _write_all(_told(kind.read(data, reading)), temporary, reading, needs_labels)
            if needs_labels and not is_ordered(data):  # by content, so that nothing depends on it
                items.sort(key=lambda item: (sorted(item.row.cells.items()), item.sha256))
            names = _names(items)
            place = folder / f"{kind.name}-{_key(items, names, reading)}"
            paths = [_put(item, place / f"{name}{item.suffix}") for item, name in zip(items, names, strict=True)]
        shown = [item.path if is_path(item.row.image) else name for item, name in zip(items, names, strict=True)]
        table = place.with_name(f"{place.name}.csv")
        _write_table(table, paths, items, reading)
        return Shelf(table, tuple(paths), tuple(shown))
    except OSError as error:
        raise cannot_write(folder, error) from error


def _told(rows: Iterator[Row]) -> Iterator[Row]:
    """What data sets raise where a file of theirs is gone is a DataError, and no trouble with writing."""
    try:
        yield from rows
    except OSError as error:
        raise DataError(
            "The data cannot be read to the end.", expected="an image and its label in every row",
            received=f"{type(error).__name__}: {error}", fix="look whether all of its files are there",
        ) from error  # fmt: skip


def _write_all(rows: Iterator[Row], folder: Path, reading: Reading, needs_labels: bool) -> list[_Item]:
    """Every image as a file; labels are looked at on the way."""
    found: list[_Item] = []
    numbered = enumerate(rows)
    batches = iter(lambda: list(islice(numbered, AT_ONCE)), [])
    with progress_bar() as bar:
        task = bar.add_task("gathering", total=None, note="")
        for items in map_batches(partial(_write, folder), batches, threads=default_threads(), ahead=AHEAD):
            found += items
            bar.update(task, completed=len(found))
    if not found:
        raise DataError("There is no image in these data.", expected="images", received="none", fix="look into them")
    if needs_labels:
        _check_labels(found, reading)
        _check_splits(found)
    return found


def _write(folder: Path, numbered: tuple[int, Row]) -> _Item:
    number, row = numbered
    _insist_on_text(number, [*row.cells.values(), *([os.fspath(row.image)] if is_path(row.image) else [])])
    if is_path(row.image):
        path = os.path.abspath(row.image)  # noqa: PTH100  (as it is: a link keeps its name)
        return _Item(row, path, hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest())
    data = as_bytes(row.image, f"Row {number}")
    path = folder / str(number)
    path.write_bytes(data)
    light = Row(b"", row.cells, row.name)  # the image itself is let go
    return _Item(light, str(path), hashlib.sha256(data).hexdigest(), suffix_of(data))


def _insist_on_text(number: int, cells: Iterable[str]) -> None:
    """Raises DataError for what no table can hold: bytes of another encoding in the name of a file or a label."""
    for cell in cells:
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"Row {number} has a name that is no text.",
                expected="names of files and labels in UTF-8",
                received=ascii(cell),
                fix="rename it, or give the bytes of the file: path.read_bytes()",
            ) from error


def _check_labels(items: Sequence[_Item], reading: Reading) -> None:
    """Raises DataError where labels are missing, of all images or of some."""
    name = reading.label_column or "label"
    if not any(item.row.cells for item in items):
        raise DataError(
            "These data have no labels.",
            expected="a label for each image: (images, labels), or a list of (image, label)",
            received=f"{len(items)} images",
            fix="give the labels as well",
        )
    missing = [str(row) for row, item in enumerate(items) if item.row.cells.get(name) == ""]
    if missing and reading.labels != "several":
        raise DataError(
            f"{len(missing)} of {len(items)} images have no label.",
            expected="a label for each image",
            received="none for row " + ", ".join(missing[:5]),
            fix="leave these rows out, or label them",
        )


def _check_splits(items: Sequence[_Item]) -> None:
    """Raises DataError for a split that is not known, and where only some images have one."""
    named = [(row, item.row.cells["split"]) for row, item in enumerate(items) if "split" in item.row.cells]
    wrong = [f"{split!r} for row {row}" for row, split in named if parse_split(split) is None]
    if wrong or 0 < len(named) < len(items):
        raise DataError(
            f"{len(wrong) or len(items) - len(named)} of {len(items)} images have no split that is known.",
            expected=f"{', '.join(SPLITS)} (or common spellings) for every image, or no splits at all",
            received=shorten(wrong) or "none for some",
            fix="rename them, or leave the splits out",
        )


def _names(items: Sequence[_Item]) -> list[str]:
    """row-007, or row-007-robin of a file that was once robin.jpg: sorted by name they are in order."""
    digits = len(str(len(items) - 1))
    stems = (Path(item.row.name).stem.encode("utf-8", "replace")[:LONGEST].decode(errors="ignore") for item in items)
    return ["-".join(filter(None, ["row", f"{row:0{digits}}", stem])) for row, stem in enumerate(stems)]


def _key(items: Sequence[_Item], names: Sequence[str], reading: Reading) -> str:
    contents: list[Any] = [
        [name, item.sha256, sorted(item.row.cells.items())] for name, item in zip(names, items, strict=True)
    ]
    if reading.path_column:  # it stands in the table
        contents.append(reading.path_column)
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:12]


def _put(item: _Item, place: Path) -> str:
    """Where an image is from now on. One that is there already is the same: its folder's name says so."""
    if is_path(item.row.image):
        return item.path
    place.parent.mkdir(exist_ok=True)
    if not place.is_file():
        Path(item.path).replace(place)
    return str(place)


def _write_table(table: Path, paths: Sequence[str], items: Sequence[_Item], reading: Reading) -> None:
    columns = list(dict.fromkeys(name for item in items for name in item.row.cells))
    with atomic_write(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow([reading.path_column or "path", *columns])
        for path, item in zip(paths, items, strict=True):
            cells: Mapping[str, str] = item.row.cells
            writer.writerow([path, *(cells.get(name, "") for name in columns)])
