"""Images in a tar archive, read where they lie: nothing is unpacked.

A webdataset shard names the label of `0017.jpg` in `0017.cls` or in `0017.json` ("label": ...); an archive without
these is a packed folder, CLASS/images or train|validation|test/CLASS/images.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
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


def list_tars(paths: Sequence[Path]) -> dict[Path, list[Record]]:
    """The images of archives with their labels, and the splits that folders in them name. Raises DataError.

    A folder that all images of an archive lie in is no class. Where these are of one class alone, as in a part of what
    was one folder before, the other archives say how far down the classes are.
    """
    names = {path: pictures_in(str(path)) for path in paths}
    labels = {path: dict(_labels_beside(str(path))) for path in paths}
    folders = {path: {tuple(name.split("/")[:-1]) for name in names[path]} for path in paths if not labels[path]}
    floors = {path: _wrapping(found) for path, found in folders.items() if len(found) > 1}
    others = min(floors.values(), default=_wrapping(set().union(*folders.values())))
    return {path: list(_records_of(path, names[path], labels[path], floors.get(path, others))) for path in paths}


def _records_of(path: Path, names: Sequence[str], labels: Mapping[str, str], wrapping: int) -> Iterator[Record]:
    """wrapping: how many folders are none of a class or split."""
    if bare := [name for name in names if labels and _key(name) not in labels]:
        raise DataError(
            f"{path} has {len(bare)} images without a label.", expected="a KEY.cls or KEY.json beside each KEY.jpg",
            received=shorten(bare), fix="leave them out of the shard",
        )  # fmt: skip
    for name in names:
        place = (labels[_key(name)],) if labels else _place_of(path, name, name.split("/")[wrapping:-1])
        yield Record(f"{path}/{name}", *place)


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
    return {_tidy(one.name): Place(one.offset_data, one.size) for one in files}


def _tidy(name: str) -> str:
    r"""As paths are spelt: of "./a//1.jpg", "/a/1.jpg", "../a/1.jpg" and "a\\1.jpg" of Windows "a/1.jpg"."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


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


def _wrapping(folders: Collection[tuple[str, ...]]) -> int:
    """How many floors all folders have in common, down to a split or to the class where there is but one."""
    above = folders if len(folders) > 1 else [one[:-1] for one in folders]
    floors = takewhile(lambda floor: len(set(floor)) == 1 and not parse_split(floor[0]), zip(*above, strict=False))
    return sum(1 for _ in floors)


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
