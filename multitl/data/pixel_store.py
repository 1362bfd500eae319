"""Pixels that were decoded once, on disk: by content and geometry, for every epoch, run, backend and process.

    <cache>/pixels/<key>/<hash>.pixels

The key is a hash of how images are decoded and brought to size. A file holds up to FILE_BYTES of images under the
SHA-256 of their files, is written atomically, and is read image by image. Its last bytes tell what is in it, and are
sealed by their own hash; an image is compared with its checksum when a process first looks at it. Whatever is not as it
was written counts as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import threading
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import PIL

from multitl.contracts import Preprocess
from multitl.errors import RunError
from multitl.system.cache import cache_limit, make_room, store_folder
from multitl.system.writing import atomic_write
from multitl.version import __version__

SUFFIX = ".pixels"
FILE_BYTES = 64 * 2**20  # of images
TAIL = 40  # bytes at the end: the length of the table before them, and its SHA-256


class _Row(msgspec.Struct, array_like=True):
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]
    checksum: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class PixelStore:
    """Images of one geometry, uint8 (height, width, channels). May be used by several threads and processes at once."""

    def __init__(self, preprocess: Preprocess) -> None:
        key = {"multitl": __version__, "pillow": PIL.__version__, **asdict(preprocess.geometry)}
        self.folder = store_folder("pixels", key)
        self._shape = preprocess.shape
        self._size = math.prod(self._shape)
        cache_limit()  # a wrong one is told at once
        self._lock = threading.RLock()  # a generator that is thrown away may end while its thread is in here
        self._fresh: dict[str, np.ndarray] = {}  # not yet in a file
        self._is_closed = False  # nothing more can be written
        self._known: dict[str, tuple[Path, int, int]] = {}  # file, place in it, checksum
        self._trusted: set[str] = set()
        self._used: set[Path] = set()
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            self._open(path)

    def find(self, sha256: str) -> np.ndarray | None:
        """The pixels of a file with this hash."""
        fresh = self._fresh.get(sha256)
        if fresh is not None:
            return fresh
        if not (known := self._known.get(sha256)):
            return None
        path, place, checksum = known
        pixels = self._fetch(path, place)
        if pixels is None or (sha256 not in self._trusted and zlib.crc32(pixels.data) != checksum):
            self._known.pop(sha256, None)
            return None
        self._trusted.add(sha256)
        return pixels

    def add(self, sha256: str, pixels: np.ndarray) -> bool:
        """Keep what was decoded. False once there is no room for more."""
        with self._lock:
            if not self._is_closed:
                self._fresh[sha256] = np.ascontiguousarray(pixels)  # not a view of something larger
                if len(self._fresh) * self._size >= FILE_BYTES:
                    self._write()
            return not self._is_closed

    def flush(self) -> None:
        """Write what is not yet in a file."""
        with self._lock:
            if self._fresh:
                self._write()

    def _write(self) -> None:
        hashes, images = list(self._fresh), list(self._fresh.values())
        table = msgspec.json.encode([_Row(sha256, zlib.crc32(image.data)) for sha256, image in self._fresh.items()])
        path = self.folder / f"{hashlib.sha256(''.join(hashes).encode()).hexdigest()[:32]}{SUFFIX}"
        try:
            self._is_closed = not make_room(len(images) * self._size, keep=self._used)
            if not self._is_closed:
                with atomic_write(path) as temporary, temporary.open("wb") as file:
                    for image in images:
                        file.write(image.data)
                    file.write(table + len(table).to_bytes(8, "little") + hashlib.sha256(table).digest())
                self._open(path)
        except (RunError, OSError):  # a full disk, or one that cannot be written to: decoding does as well
            self._is_closed = True
        self._fresh = {}

    def _fetch(self, path: Path, place: int) -> np.ndarray | None:
        """An image of a file, if it is still there."""
        try:
            if path not in self._used:
                self._used.add(path)
                with contextlib.suppress(OSError):  # another user's
                    os.utime(path)  # when it was used last
            pixels = np.empty(self._shape, np.uint8)
            with path.open("rb", buffering=0) as file:
                file.seek(place * self._size)
                return pixels if file.readinto(pixels.data) == self._size else None
        except OSError:
            return None

    def _open(self, path: Path) -> None:
        """Learn what is in a file; one that is not whole is removed."""
        try:
            self._known.update(self._table(path))
        except ValueError:
            with contextlib.suppress(OSError):
                path.unlink()
        except OSError:  # it went meanwhile, or cannot be read
            return

    def _table(self, path: Path) -> Iterator[tuple[str, tuple[Path, int, int]]]:
        """Raises ValueError for anything but a file of ours, OSError for one that cannot be read."""
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            tail = file.read()
            length = int.from_bytes(tail[:8], "little")
            file.seek(max(0, size - TAIL - length))
            table = file.read(min(length, size))
        if hashlib.sha256(table).digest() != tail[8:]:
            raise ValueError("its table is damaged")
        rows = msgspec.json.decode(table, type=list[_Row])
        if len(rows) * self._size + length + TAIL != size:
            raise ValueError("its size is another")
        return ((row.sha256, (path, place, row.checksum)) for place, row in enumerate(rows))
