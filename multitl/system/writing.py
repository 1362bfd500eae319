"""Files that are never half written: beside the final place, flushed to the disk, and renamed over it.

POSIX renames atomically. An error of the disk becomes a RunError that says what to do.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from multitl.errors import DISK_FULL, RunError
from multitl.system.cache import cache_folder
from multitl.system.regular_files import MOST_CARD, read_regular_text
from multitl.system.scratch import NAME, temporary_folder


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path of the same name to write to; on success it replaces `path`, on error it is removed.

    Raises RunError for a full disk or a folder that cannot be written.
    """
    final = Path(path)
    try:
        with temporary_folder(final.parent) as folder:
            temporary = folder / final.name
            yield temporary
            _flush(temporary)
            temporary.chmod(0o666 & ~umask())  # as any other file, whatever its writer thinks
            temporary.replace(final)
    except OSError as error:
        raise cannot_write(final, error) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write indented JSON atomically. NaN is refused: it is not JSON, and a figure that is NaN is a bug."""
    write_text(path, _indented(value) + "\n")


def _indented(value: Any, margin: str = "\n") -> str:
    """Numbers stand beside each other: a confusion matrix of a thousand classes has a million."""
    deeper = margin + "  "
    if isinstance(value, Mapping) and value:
        parts = [f"{_plain(str(key))}: {_indented(one, deeper)}" for key, one in value.items()]
        return "{" + deeper + f",{deeper}".join(parts) + margin + "}"
    if isinstance(value, list | tuple) and any(isinstance(one, Mapping | list | tuple | str) for one in value):
        return "[" + deeper + f",{deeper}".join(_indented(one, deeper) for one in value) + margin + "]"
    return _plain(value)


def _plain(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def read_json(path: str | os.PathLike[str], missing: str, keys: Sequence[str] = (), most: int = MOST_CARD) -> Any:
    """Read JSON; `missing` is the error's advice if the file is absent, damaged, or not an object with all `keys`.

    most: bytes that are read.
    """
    try:
        value = json.loads(read_regular_text(path, most))
        if keys and not (isinstance(value, dict) and set(keys) <= value.keys()):
            raise ValueError(f"no {' or '.join(keys)} in it")
        return value
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"Cannot read {path}.", expected="a file that a finished run wrote", received=str(error), fix=missing
        ) from error


def cannot_write(path: Path, error: OSError) -> RunError:
    """The RunError for an error met while writing `path`, in its own folder or in a temporary one in there."""
    if NAME.fullmatch(path.parent.name):
        path = path.parent.parent / path.name
    if error.errno in DISK_FULL:
        advice = "free some space and run the same command with --resume; finished work is kept"
    elif path.is_relative_to(cache_folder()):
        advice = "let the variable MULTITL_CACHE name a folder you can write to"
    else:
        advice = "choose a folder you can write to with --out"
    return RunError(
        f"Cannot write {path}: {error.strerror or error}.",
        expected="a folder with room that this user may write to",
        received=str(path.parent),
        fix=advice,
    )


def umask() -> int:
    """Which permissions this process takes from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
