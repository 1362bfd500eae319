"""Temporary folders that are nobody's for no longer than until the next one is made.

A folder is called `.multitl-xxxxxxxx`, and whoever made it holds the kernel's lock on it. The lock ends with its owner,
by SIGKILL too, so a folder of that name which can be locked was left behind; and a folder in use, of any process in
any container, cannot. Whoever makes a folder first removes those that were left beside it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from multitl.system import interrupts
from multitl.system.flock import is_at, open_to_lock, take

PREFIX = ".multitl-"
NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")  # as tempfile makes them
OLD = 7 * 24 * 3600  # seconds: where there are no locks, age has to tell


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder in `parent`, by default where temporary files go; it is removed at the end, if it is still there.

    parent: is made if it is missing.  Raises OSError.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    place.mkdir(parents=True, exist_ok=True)
    clear(place)
    made: list[tuple[Path, int | None]] = []
    try:
        with interrupts.held_back():  # what ends the process is not to come between its making and this being known
            made.append(_make(place))
        yield made[0][0]
    finally:
        with interrupts.held_back():
            for folder, descriptor in made:
                shutil.rmtree(folder, ignore_errors=True)
                if descriptor is not None:
                    os.close(descriptor)


@contextlib.contextmanager
def all_temporary_files() -> Iterator[None]:
    """Temporary files of this whole process, of frameworks too, go into one such folder, where there can be one.

    For a process of our own: it changes where `tempfile` and TMPDIR point to.
    """
    with contextlib.ExitStack() as stack:
        try:
            before = tempfile.gettempdir()
            folder = stack.enter_context(temporary_folder())
        except OSError:  # nowhere to write to: reading commands may not have to
            yield
            return
        changed = variables(folder)
        asked = {name: os.environ[name] for name in changed if name in os.environ}
        os.environ.update(changed)
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before
            for name in changed:
                os.environ.pop(name, None)
            os.environ.update(asked)


def variables(folder: Path) -> dict[str, str]:
    """The environment in which temporary files go into `folder`; what TF Hub caches among them stays where it was."""
    hub = os.environ.get("TFHUB_CACHE_DIR", str(Path(tempfile.gettempdir(), "tfhub_modules")))
    return {"TMPDIR": str(folder), "TFHUB_CACHE_DIR": hub}


def clear(place: Path) -> None:
    """Remove the temporary folders in `place` whose owners are gone, as far as this user may; others stay."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in [entry for entry in entries if NAME.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):  # it may go while we look
                if entry.is_dir(follow_symlinks=False):
                    _remove_if_left(Path(entry.path))


def _make(place: Path) -> tuple[Path, int | None]:
    """A folder and the descriptor that holds it; between its making and its locking another process may remove it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        try:
            descriptor = open_to_lock(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        except OSError:  # folders cannot be opened here
            return folder, None
        try:
            is_ours = take(descriptor) and is_at(descriptor, folder)
        except OSError:  # no locks here
            return folder, descriptor
        if is_ours:
            return folder, descriptor
        os.close(descriptor)


def _remove_if_left(folder: Path) -> None:
    descriptor = open_to_lock(folder, os.O_RDONLY)
    try:
        try:
            is_left = take(descriptor)
        except OSError:
            is_left = time.time() - os.fstat(descriptor).st_mtime > OLD
        if is_left:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
