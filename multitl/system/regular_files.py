"""Files that may be anyone's: opened only if they are regular files of sane size.

A run folder is handed around like any other file. A pipe in the place of a file would be waited for without end, and
`/dev/zero` would be read without end; both are refused before a byte is read.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader

MOST_CARD = 64 * 2**20  # bytes; that of a network with 3,000 tensors has 2 million
MOST_FIGURES = 2**30  # of 10,000 classes there are two confusion matrices of 300 million
MOST_TEXT = 16 * 2**30  # bytes of a table or a history: 50,000 images of 1,000 classes take half a billion
MOST_MODEL = 64 * 2**30  # bytes of a model or a checkpoint


def open_regular(path: str | os.PathLike[str], most: int) -> BufferedReader:
    """Open a file for reading. Raises OSError if it is missing, no regular file, or of more than `most` bytes."""
    # O_NONBLOCK: opening a pipe does not wait for its other end; to regular files it means nothing
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:  # a NUL in the name, or half a character: there is no such file
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))  # fdopen's names the descriptor
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > most:
            raise OSError(errno.EINVAL, f"{status.st_size:,} bytes, at most {most:,} are read", str(path))
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], most: int) -> bytes:
    """All bytes of a file. Raises OSError as `open_regular` does."""
    with open_regular(path, most) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # a number, for a file may grow; `most` would be allocated


def read_regular_text(path: str | os.PathLike[str], most: int = MOST_TEXT) -> str:
    """A UTF-8 file. Raises OSError as `open_regular` does, UnicodeDecodeError (a ValueError) for other bytes."""
    return read_regular(path, most).decode("utf-8")
