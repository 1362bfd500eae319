"""One process at a time: a folder that is being written to is closed to others.

The lock is a file that its holder keeps locked by the kernel and removes at the end. It holds the process's number, for
whoever comes too late. Of a holder that was killed the file stays, unlocked, and serves the next one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from multitl.errors import RunError
from multitl.system.flock import is_at, open_to_lock, take
from multitl.system.messages import say
from multitl.system.writing import cannot_write

FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
MOST = 300  # bytes of a lock file
TRIES = 100


def run_lock(folder: Path) -> Path:
    """The file that stands for a run folder. It lies inside, so that whoever shares the folder shares the lock."""
    return folder / ".multitl.lock"


def place_lock(path: Path) -> Path:
    """The file that stands for what is made elsewhere and then takes its place at `path`. It lies beside it."""
    return path.parent / f".{path.name}.multitl.lock"


@contextlib.contextmanager
def locked(file: Path, guarded: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock `file` that stands for `guarded`. Folders that are made for it and stay empty are removed again.

    Another process that holds it is waited for if `wait`, else refused: RunError with its number. Where nothing can be
    locked, because of the platform or the file system, a note says so, and the block runs all the same; also, without
    a note, where this user may not write, since then there is nothing to guard.
    """
    folder = file.parent
    if os.path.lexists(folder) and not os.path.isdir(folder):  # noqa: PTH112  (never raises)
        yield  # whoever wants to write there says what is wrong
        return
    missing = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    descriptor = None
    try:
        descriptor = _acquire(file, guarded, wait)
        yield
    finally:
        if descriptor is not None:
            _release(descriptor, file)
        for one in missing:
            with contextlib.suppress(OSError):  # it is in use
                one.rmdir()


def _acquire(file: Path, guarded: Path, wait: bool) -> int | None:
    """The descriptor that holds the lock, None if there can be none."""
    while (descriptor := _open(file)) is not None:
        is_held = False
        try:
            is_held = _take(descriptor, guarded, wait) and is_at(descriptor, file)  # else its holder has just ended
            if is_held:
                _sign(descriptor)
                return descriptor
        except OSError as error:
            with contextlib.suppress(OSError):  # Windows lets nobody remove what is open
                file.unlink()
            note = f"note: {guarded} cannot be locked ({error.strerror}): start no other process that writes to it"
            say(note)
            return None
        finally:
            if not is_held:
                os.close(descriptor)
    return None


def _open(file: Path) -> int | None:
    """Make the file, and its folder, if need be. None if this user may neither make nor read it; RunError."""
    for _ in range(TRIES):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            return open_to_lock(file, os.O_RDWR | os.O_CREAT)
        except (FileNotFoundError, FileExistsError) as error:  # a holder has just removed the folder
            failed: OSError = error
        except OSError as error:
            if error.errno not in FORBIDDEN or not os.path.isdir(file.parent):  # noqa: PTH112
                raise cannot_write(file.parent, error) from error
            with contextlib.suppress(OSError):
                return open_to_lock(file, os.O_RDONLY)  # another user's
            return None
    raise cannot_write(file.parent, failed) from failed


def _take(descriptor: int, guarded: Path, wait: bool) -> bool:
    """Raises RunError if another process is there and not to be waited for, OSError if there are no locks here."""
    if take(descriptor):
        return True
    holder = _holder(descriptor)
    if not wait:
        raise RunError(
            f"{guarded} is in use: {holder} is writing to it.",
            expected="one process at a time",
            received="a second one, which has changed nothing",
            fix="wait until it ends, end it, or choose another folder with --out",
        )
    say(f"waiting for {holder}, which is making {guarded}")
    return take(descriptor, wait=True)


def _sign(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a full disk, or another user's file
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}".encode(), 0)


def _holder(descriptor: int) -> str:
    """Who signed last, for people."""
    words = []
    with contextlib.suppress(OSError):
        words = os.pread(descriptor, MOST, 0).decode(errors="replace").split()
    if len(words) != 2 or not words[0].isdigit():
        return "another process"
    elsewhere = "" if words[1] == socket.gethostname() else f" on {words[1]}"
    return f"process {words[0]}{elsewhere}"


def _release(descriptor: int, file: Path) -> None:
    """Unlinked while it is held: who waits for it sees that it is nowhere any more, and makes a new one."""
    with contextlib.suppress(OSError):
        if is_at(descriptor, file):
            file.unlink()
    os.close(descriptor)
