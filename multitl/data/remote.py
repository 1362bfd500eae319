"""Data behind a URL that fsspec knows (s3://, gs://, hf://, https://, memory://): fetched once into the cache.

    <cache>/given/<key>/photos

The key is a hash of the URL and of what the store says of every file (size, ETag, time), so what changed is fetched
anew. Files, not a stream: every image is read several times, at random, and by later processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from multitl.errors import DataError
from multitl.system.cache import cache_folder
from multitl.system.progress import waiting
from multitl.system.scratch import temporary_folder
from multitl.system.writing import cannot_write

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::.+)?://.+", re.DOTALL)  # two letters at least: C:// is a disk


def local(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """A path as it is; of a URL the path of its files on this machine. Raises DataError, RunError."""
    if not (isinstance(path, str) and URL.fullmatch(path)):
        return path
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise _unreachable(path, "fsspec is not installed", "pip install 'multitl[remote]'") from error
    try:
        store, root = url_to_fs(path)
        found = {root: store.info(root)} if store.isfile(root) else store.find(root, detail=True)
    except ImportError as error:  # s3fs, gcsfs, ...
        raise _unreachable(path, str(error), "pip install what is missing") from error
    except Exception as error:  # every store has errors of its own
        raise _unreachable(path, f"{type(error).__name__}: {error}", "check the URL and the login") from error
    files = {name: about for name, about in found.items() if not name.endswith("/")}  # S3's empty files for folders
    if not files:
        raise _unreachable(path, "nothing lies there", "check the URL")
    return _fetched(path, store, root, files)


def _fetched(url: str, store: Any, root: str, files: dict[str, Any]) -> Path:
    told = json.dumps([url, sorted((name, str(sorted(about.items()))) for name, about in files.items())])
    folder = cache_folder() / "given" / hashlib.sha256(told.encode()).hexdigest()[:12]
    place = folder / (Path(root.rstrip("/")).name or "data")
    if place.exists():
        return place
    try:
        with temporary_folder(folder) as temporary, waiting("fetching "):
            for name in files:
                target = temporary / "all" / name.removeprefix(root).lstrip("/") if name != root else temporary / "all"
                target.parent.mkdir(parents=True, exist_ok=True)
                _get(url, store, name, target)
            (temporary / "all").rename(place)
    except OSError as error:
        if not place.exists():  # else another process was sooner
            raise cannot_write(place, error) from error
    return place


def _get(url: str, store: Any, name: str, target: Path) -> None:
    if ".." in Path(name).parts:
        raise _unreachable(url, f"a file called {name}", "rename it")
    try:
        store.get_file(name, str(target))
    except Exception as error:
        raise _unreachable(url, f"{name}: {type(error).__name__}: {error}", "try again; check the login") from error


def _unreachable(url: str, received: str, fix: str) -> DataError:
    return DataError(
        f"Cannot fetch {url}.", expected="a file or folder that fsspec can read", received=received, fix=fix
    )
