"""Where the files lie that a table names: as written, or with Windows' slashes, without an ending, in another folder.

A file in another folder is taken only if no second one could be meant. Paths are texts here, ten times as fast
as pathlib's: a table may have a million.
"""
# ruff: noqa: PTH113, PTH117, PTH118, PTH120, PTH122, PTH208

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

from multitl.data.containers import holds
from multitl.data.folders import IMAGE_SUFFIXES, subfolders
from multitl.errors import DataError

MOST_FOLDERS = 1000  # that are looked into
Names = tuple[dict[str, list[str]], dict[str, list[str]]]  # of images, by name and by name without ending


@dataclass(frozen=True)
class Places:
    """paths: of each cell, as written where there is no such file.  missing: those.  elsewhere: the folders below that
    hold files of these names; all of `paths` are there if nothing is missing.
    """

    paths: tuple[str, ...]
    missing: tuple[str, ...]
    elsewhere: tuple[str, ...]


def find_places(cells: Sequence[str], folder: Path) -> Places:
    """Look for the files that a table names, relative to `folder`, then in the folders below."""
    search = _Search()
    found = [search.as_written(folder, cell) for cell in cells]
    wanted = [index for index, path in enumerate(found) if path is None]
    if not wanted:
        return Places(tuple(path for path in found if path), (), ())
    anywhere = _Anywhere(search, [folder, *_folders_below(folder)])
    above = _shared_folders([_parts(cells[index]) for index in wanted])
    elsewhere: dict[str, None] = {}
    for index in wanted:
        hits = anywhere.find(_parts(cells[index]), above)
        elsewhere.update(dict.fromkeys(os.path.dirname(hit) for hit in hits))
        found[index] = hits[0] if len(hits) == 1 else None
    paths = tuple(path or str(folder / cell) for path, cell in zip(found, cells, strict=True))
    missing = tuple(path for path, known in zip(paths, found, strict=True) if known is None)
    return Places(paths, missing, tuple(elsewhere))


class _Search:
    """Reads each folder once."""

    def __init__(self) -> None:
        self.names = cache(_names)

    def as_written(self, folder: Path, cell: str) -> str | None:
        path = str(folder / cell)
        if os.path.isfile(path) or holds(path):  # neither raises
            return path
        matches = [] if os.path.isabs(cell) else self._matches(folder, _parts(cell))
        return matches[0] if len(matches) == 1 else None

    def _matches(self, folder: Path, parts: Sequence[str]) -> list[str]:
        """parts: of a path below `folder`."""
        parent = os.path.join(folder, *parts[:-1])
        return [os.path.join(parent, name) for name in _of_name(self.names(parent), parts[-1])]


class _Anywhere:
    """All candidates at once: a table of a million rows does not go through a thousand folders for each."""

    def __init__(self, search: _Search, folders: Sequence[Path]) -> None:
        self._search, self._folders = search, folders
        self._below = cache(self._merged)

    def find(self, parts: Sequence[str], above: int) -> list[str]:
        """All files that may be meant, in any of the folders, with as much of the path as can be had.

        above: how many of its folders may be left out.
        """
        for left_out in range(above + 1):
            if hits := _of_name(self._below(tuple(parts[left_out:-1])), parts[-1]):
                return list(dict.fromkeys(hits))
        return []

    def _merged(self, between: tuple[str, ...]) -> Names:
        """The paths of all images that lie in folders of this name below any candidate."""
        merged: Names = (defaultdict(list), defaultdict(list))
        for folder in self._folders:
            parent = os.path.join(folder, *between)
            for paths, names in zip(merged, self._search.names(parent), strict=True):
                for name, entries in names.items():
                    paths[name] += [os.path.join(parent, entry) for entry in entries]
        return merged


def _of_name(names: Names, name: str) -> list[str]:
    """Those of a name, whatever the case and, if it has none, the ending."""
    by_name, by_stem = names
    name = name.casefold()
    has_ending = os.path.splitext(name)[1] in IMAGE_SUFFIXES
    return by_name.get(name) or ([] if has_ending else by_stem.get(name, []))


def _names(folder: str) -> Names:
    """The images of a folder, by name and by name without ending."""
    by_name, by_stem = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    try:
        entries = sorted(os.listdir(folder))
    except (OSError, ValueError):  # ValueError: a NUL
        entries = []
    for entry in entries:
        stem, ending = os.path.splitext(entry.casefold())
        if ending in IMAGE_SUFFIXES:
            by_name[entry.casefold()].append(entry)
            by_stem[stem].append(entry)
    return by_name, by_stem


def _parts(cell: str) -> list[str]:
    return [part for part in cell.replace("\\", "/").split("/") if part not in ("", ".")] or [cell]


def _shared_folders(paths: Sequence[Sequence[str]]) -> int:
    r"""How many folders all paths begin with, as C:\photos of another machine; what tells them apart is not."""
    floors = zip(*(path[:-1] for path in paths), strict=False)
    return sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, floors))


def _folders_below(folder: Path) -> list[Path]:
    """Two floors down."""
    found = [one for above in _readable(folder) for one in (above, *_readable(above))]
    return found[:MOST_FOLDERS]


def _readable(folder: Path) -> Iterator[Path]:
    try:
        yield from subfolders(folder)
    except DataError:  # not ours to read
        return
