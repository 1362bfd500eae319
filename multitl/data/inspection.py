"""A look into every file of a data set before training: its SHA-256, whether it can be decoded, what values it holds.

Of more than MOST_DECODED files every one is read and hashed, but DECODED of them, evenly spread, stand for all: they
tell of wrong columns, formats and ranges of values. What else is damaged is found where pixels are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from multitl.contracts import Decoding, Unreadable
from multitl.data.checks import check_channels, check_readable, printable
from multitl.data.depths import Look, Looks, unfit
from multitl.data.images import AT_ONCE, UnreadableImage, check_image, count_pixels, read_file
from multitl.data.listings import Listing
from multitl.data.readable_images import ReadableImages
from multitl.system.budgets import Budget
from multitl.system.threads import default_threads, map_batches

Progress = Callable[[int, int], None]  # files done, files in all
AT_A_TIME = 64  # files that one thread takes, unless there are few
MOST_DECODED = 200_000  # files: minutes of a core, where a network has an hour's work with them
DECODED = 2000  # of more


class Verdict(NamedTuple):
    """On a file. look: what values it holds, if it was decoded; fault: why it cannot be used, if so."""

    path: str
    sha256: str = ""
    look: Look | None = None
    fault: Unreadable | None = None


@dataclass(frozen=True)
class Inspector:
    """known: files that were decoded before; None if those are not asked.  every: which files are decoded."""

    decoding: Decoding
    known: ReadableImages | None
    every: int = 1
    budget: Budget = field(default_factory=lambda: Budget(AT_ONCE))

    def look_at(self, chunk: tuple[int, Sequence[str]]) -> list[Verdict]:
        """chunk: the number of the first file, and those that follow."""
        first, paths = chunk
        return [self._check(path, (first + place) % self.every == 0) for place, path in enumerate(paths)]

    def _check(self, path: str, is_decoded: bool) -> Verdict:
        if printable(path) != path:
            return Verdict(path, fault=Unreadable(printable(path), "its name is not valid UTF-8"))
        try:
            data = read_file(path)
            sha256 = hashlib.sha256(data).hexdigest()
            look = self.known.find(sha256) if self.known else None
            if not look and is_decoded:
                with self.budget.take(count_pixels(data, self.decoding)):
                    look = check_image(data, self.decoding)
        except UnreadableImage as error:
            return Verdict(path, fault=Unreadable(path, str(error), error.fix))
        reason = unfit(look, self.decoding) if look else ""
        return Verdict(path, sha256, look, Unreadable(path, reason) if reason else None)


@dataclass(frozen=True)
class Files:
    """What is known of the files of a listing. hashes: path -> sha256 of the readable ones.  looks: their values.

    is_sampled: whether only some were decoded.
    """

    hashes: dict[str, str]
    unreadable: tuple[Unreadable, ...]
    looks: Looks
    is_sampled: bool


def check_files(
    listing: Listing, max_unreadable: float, decoding: Decoding, progress: Progress | None, *, samples: bool = False
) -> Files:
    """Decode what is not known yet.

    samples: of very many only some, where whoever reads them later can leave out what is damaged.
    Raises DataError for too many that are not readable.
    """
    paths = sorted({record.path for record in listing.records})
    inspector = _inspector_for(len(paths), decoding, samples)
    hashes, unreadable, looks, fresh = dict[str, str](), list[Unreadable](), Looks(), dict[str, Look]()
    for verdict in _verdicts(inspector, paths, progress):
        if verdict.look:
            looks.add(verdict.look)
        if verdict.fault:
            unreadable.append(verdict.fault)
            continue
        hashes[verdict.path] = verdict.sha256
        if verdict.look and inspector.known:
            fresh[verdict.sha256] = verdict.look
    if inspector.known:
        inspector.known.add(fresh)
    check_readable(listing.root, len(paths), unreadable, max_unreadable, looks.mending_range(decoding))
    if decoding.channels == ():
        check_channels(listing.root, looks.channels)
    return Files(hashes, tuple(unreadable), looks, is_sampled=inspector.known is None)


def _inspector_for(count: int, decoding: Decoding, samples: bool) -> Inspector:
    if samples and count > MOST_DECODED:
        return Inspector(decoding, None, count // DECODED)
    return Inspector(decoding, ReadableImages(decoding))


def _verdicts(inspector: Inspector, paths: Sequence[str], progress: Progress | None) -> Iterator[Verdict]:
    """In the order of the paths. A thread takes several at a time, since a task of its own costs more than a hash."""
    threads = default_threads()
    step = max(1, min(AT_A_TIME, len(paths) // (4 * threads)))
    chunks = ([(first, paths[first : first + step])] for first in range(0, len(paths), step))
    done = 0
    for (verdicts,) in map_batches(inspector.look_at, chunks, threads=threads, ahead=2 * threads):
        yield from verdicts
        done += len(verdicts)
        if progress:
            progress(done, len(paths))
