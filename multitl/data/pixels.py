"""Pixels for every backend: the same, in the same order, decoded in threads while the framework works.

The geometric part of preprocessing is done here (uint8, right size); the values are the model's business.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from multitl.contracts import Example, Preprocess, Unreadable
from multitl.data.depths import Look, Looks
from multitl.data.images import AT_ONCE, UnreadableImage, decode_and_look, decode_pixels, read_file
from multitl.data.pixel_store import PixelStore
from multitl.errors import DataError
from multitl.system.budgets import Budget
from multitl.system.threads import default_threads, map_batches

READ_AHEAD = 3  # batches
FILES_AT_ONCE = 32
PART = 4  # images that a thread reads at a time: from the store each takes less than handing it out


class PixelReader:
    """The pixels of labelled images by index. Resized images are kept in a store, if there is one and it has room, else
    in memory, as far as `memory_limit` goes.

    A file that changed since it was scanned, or cannot be read any more, raises DataError, unless its pixels are kept.
    """

    damaged: dict[int, Unreadable]  # those that could not be decoded, where they are put up with: black, and not kept

    def __init__(
        self,
        examples: Sequence[Example],
        preprocess: Preprocess,
        *,
        memory_limit: int = 2**30,
        threads: int | None = None,
        budget: Budget | None = None,
        store: PixelStore | None = None,
        is_sampled: bool = False,
    ) -> None:
        """memory_limit: bytes.  threads: None for one a core; the result does not depend on it.

        budget: of pixels being decoded, for readers that share one; None for one of its own.

        is_sampled: of `Dataset`: whoever reads looks into `damaged` before the pixels are of use.
        """
        self.damaged, self._is_sampled = {}, is_sampled
        self._examples, self._preprocess, self._store = examples, preprocess, store
        self._threads, self._budget = threads or default_threads(), budget or Budget(AT_ONCE)
        shape = preprocess.shape
        kept = min(len(examples), memory_limit // math.prod(shape))
        self._pixels = np.empty((kept, *shape), np.uint8)  # the system hands out this memory as it is filled
        self._is_kept = np.zeros(kept, bool)

    def __len__(self) -> int:
        return len(self._examples)

    def read(self, indices: Iterable[int]) -> np.ndarray:
        """The pixels of some images, decoded in parallel: uint8 (n, height, width, channels)."""
        return next(self.batches([indices]))

    def batches(self, index_batches: Iterable[Iterable[int]], *, ahead: int = READ_AHEAD) -> Iterator[np.ndarray]:
        """`read` for each batch of indices, working on `ahead` more batches while the caller uses the last one."""
        try:
            for filled in map_batches(self._fill, map(self._parts, index_batches), threads=self._threads, ahead=ahead):
                yield filled[0]
        finally:
            if self._store:
                self._store.flush()

    def _parts(self, indices: Iterable[int]) -> list[tuple[np.ndarray, int, list[int]]]:
        """A new batch, and which of its images are read one after the other, from which place on."""
        wanted = list(indices)
        batch = np.empty((len(wanted), *self._pixels.shape[1:]), np.uint8)
        return [(batch, first, wanted[first : first + PART]) for first in range(0, max(1, len(wanted)), PART)]

    def _fill(self, part: tuple[np.ndarray, int, list[int]]) -> np.ndarray:
        batch, first, indices = part
        for place, index in enumerate(indices, first):
            batch[place] = self._image(index)
        return batch

    def _image(self, index: int) -> np.ndarray:
        index = range(len(self))[index]  # -1 is the last; beyond the end is an IndexError
        sha256 = self._examples[index].sha256
        if self._store and (stored := self._store.find(sha256)) is not None:
            return stored
        if index < len(self._pixels) and self._is_kept[index]:
            return self._pixels[index]
        pixels = self._decode(index)
        if index in self.damaged:
            return pixels
        if not (self._store and self._store.add(sha256, pixels)) and index < len(self._pixels):
            self._pixels[index] = pixels
            self._is_kept[index] = True  # after the pixels: another thread may look
        return pixels

    def _decode(self, index: int) -> np.ndarray:
        example = self._examples[index]
        try:
            data = read_file(example.path)
            if hashlib.sha256(data).hexdigest() != example.sha256:
                raise UnreadableImage("another file lies there now")
            return self._decode_data(index, data)
        except UnreadableImage as error:
            raise DataError(
                f"{example.path} changed since the data was looked at.",
                expected=f"the image with sha256 {example.sha256[:16]}...",
                received=str(error),
                fix="put the file back and run the same command with --resume, or start over",
            ) from error

    def _decode_data(self, index: int, data: bytes) -> np.ndarray:
        """Raises UnreadableImage, unless most images are decoded here for the first time."""
        try:
            return decode_pixels(data, self._preprocess, self._budget)
        except UnreadableImage as error:
            if not self._is_sampled:
                raise
            self.damaged[index] = Unreadable(self._examples[index].path, str(error), error.fix)
            return np.zeros(self._pixels.shape[1:], np.uint8)


def read_files(
    paths: Sequence[str], preprocess: Preprocess, looks: Looks | None = None
) -> Iterator[np.ndarray | Unreadable]:
    """For each path in order its pixels, uint8 (height, width, channels), or why there are none; threads work ahead.

    looks: hears of the values of every file.
    """
    batches = (paths[first : first + FILES_AT_ONCE] for first in range(0, len(paths), FILES_AT_ONCE))
    read = partial(_pixels_or_reason, preprocess, Budget(AT_ONCE))
    for results in map_batches(read, batches, threads=default_threads(), ahead=READ_AHEAD):
        for content, look in results:
            if looks and look:
                looks.add(look)
            yield content


def _pixels_or_reason(preprocess: Preprocess, budget: Budget, path: str) -> tuple[np.ndarray | Unreadable, Look | None]:
    try:
        return decode_and_look(read_file(path), preprocess, budget)
    except UnreadableImage as error:
        return Unreadable(path, str(error), error.fix), None
