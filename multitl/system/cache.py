"""Where multitl keeps what it can compute again, how much of it there may be, and what there is.

Pixels are the bulk, and quick to make again: where there is no room, those go first that were not used for longest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from multitl.errors import CacheError, nearest_names
from multitl.system.scratch import clear

KINDS = {
    "features": "of images, by backbone",
    "given": "images that Python gave without files",
    "images": "which files were found readable",
    "pixels": "of images, decoded and brought to size",
    "translations": "of networks into Keras",
}
GB = 10**9
LIMIT = "MULTITL_CACHE_LIMIT"  # GB
DEFAULT_LIMIT = 20.0
SPARED = 2 * GB  # of a disk, that others may need at once


@dataclass(frozen=True)
class Kept:
    """One kind of what lies in the cache. size: bytes.  used: when it was last, in seconds since 1970; 0: never."""

    kind: str
    summary: str
    files: int
    size: int
    used: float


def cache_folder() -> Path:
    """$MULTITL_CACHE, or the user's cache folder for multitl."""
    return Path(os.environ.get("MULTITL_CACHE") or platformdirs.user_cache_dir("multitl"))


def store_folder(kind: str, key: Mapping[str, Any]) -> Path:
    """Where a store of one of KINDS lies. key: all that its content depends on, for JSON."""
    return cache_folder() / kind / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def cache_limit() -> float:
    """How many bytes may lie in the cache. Raises CacheError where the variable is no number."""
    text = os.environ.get(LIMIT) or str(DEFAULT_LIMIT)
    try:
        if not 0 <= (limit := float(text)) < float("inf"):
            raise ValueError
    except ValueError as error:
        raise CacheError(
            f"{LIMIT} is {text!r}.", expected="GB, a number from 0 on", received=text, fix=f"unset {LIMIT}"
        ) from error
    return limit * GB


def look() -> list[Kept]:
    """What there is, kind by kind."""
    found = []
    for kind, summary in KINDS.items():
        states = [state for _, state in _files(cache_folder() / kind)]
        size, used = sum(state.st_size for state in states), max((state.st_mtime for state in states), default=0.0)
        found.append(Kept(kind, summary, len(states), size, used))
    return found


def remove(kinds: Sequence[str]) -> list[Kept]:
    """Remove all of some kinds, which are made again when they are wanted. Returns what they were."""
    for kind in kinds:
        if kind not in KINDS:
            raise CacheError(
                f"The cache has no {kind!r}.", expected=", ".join(KINDS), received=kind,
                nearest=nearest_names(kind, KINDS), fix="multitl cache",
            )  # fmt: skip
    gone = [kept for kept in look() if kept.kind in kinds]
    for kind in kinds:
        _clear_folder(cache_folder() / kind)
    return gone


def _clear_folder(folder: Path) -> None:
    """One that is a link to another disk stays a link. Raises CacheError where files stay that were there."""
    before = [path for path, _ in _files(folder)]
    for path in folder.iterdir() if folder.is_symlink() and folder.is_dir() else [folder]:
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # a file
            path.unlink(missing_ok=True)
    if stayed := [path for path in before if path.exists()]:
        raise CacheError(
            f"{len(stayed)} of {len(before)} files in {folder} cannot be removed.",
            expected="files that you may remove, in use by nobody",
            received=str(stayed[0]),
            fix=f"end what uses them, or see who owns them: ls -l {shlex.quote(str(stayed[0].parent))}",
        )


def make_room(size: int, keep: Collection[Path]) -> bool:
    """Whether there is room for so many bytes more, once pixels were removed that were not used for longest.

    keep: files that stay. Nothing is removed in vain. Raises OSError where there can be no cache.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    disk, files = shutil.disk_usage(folder), {kind: _files(folder / kind) for kind in KINDS}
    total = sum(state.st_size for found in files.values() for _, state in found)
    missing = size + max(total - cache_limit(), SPARED - disk.free)
    others = sorted((state.st_mtime, path, state.st_size) for path, state in files["pixels"] if path not in keep)
    if missing > sum(freed for *_, freed in others):
        return False
    for _, path, freed in others:
        if missing <= 0:
            break
        with contextlib.suppress(OSError):  # in use, where the system minds
            path.unlink()
            missing -= freed
    return missing <= 0


def clear_cache() -> None:
    """Remove what killed processes left in it; what is of use stays."""
    for kind in KINDS:
        folder = cache_folder() / kind
        for place in [folder, *(store for store in folder.glob("*") if store.is_dir())]:
            clear(place)


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """Those that stay for as long as it takes to look."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                found.append((path, path.stat()))
    return found
