"""Images in a tar archive, read where they lie: nothing is unpacked.

A webdataset shard names the label of `0017.jpg` in `0017.cls` or in `0017.json` ("label": ...); an archive without
these is a packed folder, CLASS/images or train|validation|test/CLASS/images.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from multitl.data.folders import is_image
from multitl.data.listings import Record
from multitl.data.split_names import parse_split
from multitl.errors import DataError, shorten

LABELS = (".cls", ".json")
KEYS = ("label", "class", "class_name", "target", "cls")  # of the label in a .json
LONGEST_LABEL = 2**20  # bytes of such a file
MOST = 2**31  # bytes of an image
SHARDS_KNOWN = 4096


class Place(NamedTuple):
    """Where the bytes of a file begin in the archive, and how many there are."""

    offset: int
    size: int


def read_member(path: str, member: str) -> bytes:
    """Raises OSError, KeyError for a file that is not in there, ValueError for a damaged archive."""
    place = index(path)[member]
    if place.size > MOST:
        raise ValueError(f"too large: {place.size:,} bytes, the limit is {MOST:,}")
    with open(path, "rb") as file:  # noqa: PTH123  (a million times)
        file.seek(place.offset)
        data = file.read(place.size)
    if len(data) < place.size:
        raise ValueError("the archive ends before the file does")
    return data


def index(path: str) -> Mapping[str, Place]:
    """The ordinary files of an archive, in its order; of two with one name the last. Raises OSError, ValueError."""
    status = os.stat(path)  # noqa: PTH116
    return _index(path, status.st_size, status.st_mtime_ns)


def pictures_in(path: str) -> list[str]:
    return [name for name in index(path) if is_image(Path(name)) and not _is_hidden(name)]


def list_tar(path: Path) -> list[Record]:
    """The images of an archive with their labels, and the splits that folders in it name. Raises DataError."""
    names = pictures_in(str(path))
    labels = dict(_labels_beside(str(path)))
    if labels:
        if bare := [name for name in names if _key(name) not in labels]:
            raise DataError(
                f"{path} has {len(bare)} images without a label.", expected="a KEY.cls or KEY.json beside each KEY.jpg",
                received=shorten(bare), fix="leave them out of the shard",
            )  # fmt: skip
        return [Record(f"{path}/{name}", labels[_key(name)]) for name in names]
    return [Record(f"{path}/{name}", *_place_of(path, name, parts)) for name, parts in _below_the_wrapping(names)]


@lru_cache(SHARDS_KNOWN)
def _index(path: str, size: int, changed: int) -> Mapping[str, Place]:
    """size, changed: so that an archive that is written anew is looked at anew."""
    try:
        with tarfile.open(path, "r:") as archive:
            files = [one for one in archive if one.isreg() and not one.issparse() and one.size >= 0]
    except OSError:
        raise
    except Exception as error:  # tarfile's own, and RecursionError and others of headers that nobody meant
        raise ValueError(f"no plain tar archive: {str(error) or type(error).__name__}") from error
    return {one.name.removeprefix("./"): Place(one.offset_data, one.size) for one in files}


def _key(name: str) -> str:
    """Of a sample: the name up to the first point, as webdataset has it."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _labels_beside(path: str) -> Iterator[tuple[str, str]]:
    for name, place in index(path).items():
        if name.endswith(LABELS) and place.size <= LONGEST_LABEL and not _is_hidden(name):
            text = read_member(path, name).decode("utf-8", "replace").strip()
            if label := _label_in(text) if name.endswith(".json") else text:
                yield _key(name), label


def _label_in(text: str) -> str:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    found = [told[key] for key in KEYS if key in told] if isinstance(told, dict) else []
    return str(found[0]).strip() if found and isinstance(found[0], str | int) else ""


def _below_the_wrapping(names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each name and its folders, without those that all begin with."""
    folders = [name.split("/")[:-1] for name in names]
    floors = takewhile(lambda floor: len(set(floor)) == 1, zip(*folders, strict=False))
    common = sum(1 for _ in floors) if len(set(map(tuple, folders))) > 1 else 0
    return ((name, parts[common:]) for name, parts in zip(names, folders, strict=True))


def _place_of(path: Path, name: str, parts: list[str]):
    split = parse_split(parts[0]) if len(parts) > 1 else None
    label = parts[1] if split else "".join(parts[:1])
    if not label:
        raise DataError(
            f"{path} has images without a label.",
            expected="a KEY.cls or KEY.json beside each image, or images in folders of their classes",
            received=name,
            fix="write the shards with labels",
        )
    return label, split


def _is_hidden(name: str) -> bool:
    """As macOS' tar leaves beside every file: ._0017.jpg."""
    return name.rpartition("/")[2].startswith(".")
