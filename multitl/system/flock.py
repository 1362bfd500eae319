"""The kernel's locks on open files and folders: they end with the process that holds them, however it ends."""

from __future__ import annotations

import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


def open_to_lock(path: Path, flags: int) -> int:
    """A descriptor of what lies at `path`, be it a pipe, which is not waited for; a link is not followed. OSError."""
    more = ("O_NONBLOCK", "O_NOFOLLOW")  # which not every platform has
    return os.open(path, flags | sum(getattr(os, name, 0) for name in more), 0o666)


def take(descriptor: int, *, wait: bool = False) -> bool:
    """Lock an open file or folder; closing it unlocks it. False if somebody else has it locked, at once or never.

    Raises OSError where the platform or the file system has no such locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, "this platform has no flock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still lies at `path`: who unlinks a file that he holds leaves the next one with nothing."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
