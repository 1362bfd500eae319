"""The run folder on disk: nothing in it is ever half written.

Every file is written beside its final place, flushed to the disk, and renamed over it, which POSIX does atomically.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multitl.errors import RunError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path of the same suffix to write to; on success it replaces `path`, on error it is removed.

    Raises RunError for a full disk or a folder that cannot be written.
    """
    final = Path(path)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{final.stem}-", suffix=final.suffix, dir=final.parent)
        os.close(handle)
    except OSError as error:
        raise cannot_write(final, error) from error
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        temporary.replace(final)
    except OSError as error:
        raise cannot_write(final, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write indented JSON atomically. NaN is refused: it is not JSON, and a figure that is NaN is a bug."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike[str], missing: str) -> Any:
    """Read JSON; `missing` is the error's advice if the file is absent or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"Cannot read {path}.", expected="a file that a finished run wrote", received=str(error), fix=missing
        ) from error


def cannot_write(path: Path, error: OSError) -> RunError:
    """The RunError for an operating-system error met while writing `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free some space and run the same command with --resume; finished work is kept"
    else:
        advice = "choose a folder you can write to with --out"
    return RunError(
        f"Cannot write {path}: {error.strerror or error}.",
        expected="a folder with room that this user may write to",
        received=str(path.parent),
        fix=advice,
    )


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
