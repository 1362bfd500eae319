"""The frozen part runs once: pooled features of every image, computed in one pass and kept on disk.

A store is one folder, named by a hash of everything that decides a feature besides the image: weights, preprocessing,
pooling, precision, backend and augmentation. Inside, each shard holds the features of up to 256 images under the
SHA-256 of their files, so renamed, moved or re-split images are found again and only new ones are computed. A shard
appears atomically: a killed run loses at most the one it was working on, and two runs may fill a store together, on one
machine or from several on a shared disk, since a shard is renamed within its folder.

Of more images than fit into memory with ease (feature_rows.py) the features stay in the shards, and are read from
there.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from multitl.contracts import Example, Forward, Unreadable
from multitl.data.augmentation import augment, draw, image_number
from multitl.data.pixels import PixelReader
from multitl.files.sealed_arrays import DamagedError, place_of, read_sealed, write_sealed
from multitl.models.inference import BATCH, index_batches, predict_batches
from multitl.system.cache import store_folder
from multitl.training.feature_rows import IN_MEMORY, OnDisk, Rows, Shard, StoredRows

SHARD = 8 * BATCH
SUFFIX = ".safetensors"

Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z")]


@dataclass(frozen=True)
class View:
    """One augmented pass over the training images: strength as in augmentation.py, and which draw."""

    strength: str
    seed: int
    index: int


@dataclass(frozen=True)
class Features:
    """values: (n, channels) float32, in the order of the examples asked for."""

    values: Rows
    computed: int
    reused: int


class DamagedImagesError(Exception):
    """Some images, of a data set most of which was not decoded before, have no pixels. All others have features now."""

    def __init__(self, damaged: Sequence[Unreadable]) -> None:
        super().__init__(damaged)
        self.damaged = damaged


class FeatureStore:
    """Features on disk by image content.

    key: what they depend on besides the image; JSON values only.  channels: of a feature.
    """

    def __init__(self, key: dict, channels: int) -> None:
        self.channels = channels
        self.folder = store_folder("features", key)

    def shards(self, *, on_disk: bool) -> Iterator[tuple[list[str], Shard]]:
        """SHA-256 of the images of each shard, and their features. A damaged shard counts as absent.

        on_disk: whether they stay there. Each is read once all the same, to see that it is whole.
        """
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                hashes, features = self._read(path)
                yield hashes, self._on_disk(path, len(hashes)) if on_disk else features
            except DamagedError:
                with contextlib.suppress(OSError):
                    path.unlink()  # left by a failing disk; its images are computed again
            except OSError:  # it went meanwhile
                continue

    def add(self, hashes: Sequence[str], features: np.ndarray, *, on_disk: bool = False) -> Shard:
        """Write one shard."""
        path = self.folder / f"{hashlib.sha256(''.join(hashes).encode()).hexdigest()[:32]}{SUFFIX}"
        write_sealed(path, {"features": features}, msgspec.json.encode(list(hashes)))
        return self._on_disk(path, len(hashes)) if on_disk else features

    def _on_disk(self, path: Path, count: int) -> OnDisk:
        return OnDisk(path, place_of(path, "features"), count, self.channels)

    def _read(self, path: Path) -> tuple[list[str], np.ndarray]:
        """Raises DamagedError for anything but a shard of finite features of the right width."""
        arrays, about = read_sealed(path)
        try:
            hashes = msgspec.json.decode(about, type=list[Hash])
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"no list of hashes: {error}") from error
        features = arrays.get("features", np.empty(0))
        if features.dtype != np.float32 or features.shape != (len(hashes), self.channels):
            raise DamagedError(f"{features.dtype} {features.shape} for {len(hashes)} images")
        if not np.isfinite(features).all():
            raise DamagedError("not all features are finite")
        return hashes, features


class _Found:
    """Where the features of some images lie: shard by shard, by the number of an image."""

    def __init__(self, hashes: Mapping[str, int], count: int, channels: int) -> None:
        """hashes: SHA-256 of an image -> its number, below `count`."""
        self.numbers, self.channels, self.shards = hashes, channels, list[Shard]()
        self.shard, self.place = np.full(count, -1, "int32"), np.zeros(count, "int32")

    def add(self, hashes: Sequence[str], shard: Shard) -> None:
        wanted = [(self.numbers[sha256], row) for row, sha256 in enumerate(hashes) if sha256 in self.numbers]
        if wanted:
            numbers, rows = np.array(wanted).T
            self.shard[numbers], self.place[numbers] = len(self.shards), rows
            self.shards.append(shard)

    def rows(self, numbers: np.ndarray) -> StoredRows:
        return StoredRows(tuple(self.shards), self.shard[numbers], self.place[numbers], self.channels)


def compute_features(
    extractor: Callable[[], Forward],
    examples: Sequence[Example],
    reader: PixelReader,
    store: FeatureStore,
    view: View | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Features:
    """The feature of each example, from the store where it is there, else computed and stored.

    extractor: asked only if it is needed, for what makes uint8 pixels (batch, h, w, 3) -> (batch, channels).
    reader: gives the pixels of example i as index i.
    advance: called with the number of images just finished.

    Raises DamagedImagesError once everything else is computed.
    """
    on_disk = 4 * len(examples) * store.channels > IN_MEMORY
    first_index: dict[str, int] = {}
    firsts = np.array([first_index.setdefault(one.sha256, index) for index, one in enumerate(examples)], "int64")
    found = _Found(first_index, len(examples), store.channels)
    for hashes, shard in store.shards(on_disk=on_disk):
        found.add(hashes, shard)
    missing = np.flatnonzero((found.shard < 0) & (firsts == np.arange(len(examples)))).tolist()
    advance(len(examples) - len(missing))
    batches = [[missing[i] for i in rows] for rows in index_batches(len(missing))]
    pixels = _augmented_batches(examples, reader, batches, view)
    outputs = predict_batches(extractor(), pixels) if missing else iter(())
    for indices, values in _shards(batches, outputs, advance):
        is_sound = [index not in reader.damaged for index in indices]
        if hashes := [examples[index].sha256 for index in compress(indices, is_sound)]:
            found.add(hashes, store.add(hashes, values if all(is_sound) else values[is_sound], on_disk=on_disk))
    if missing and reader.damaged:
        raise DamagedImagesError(list(reader.damaged.values()))
    rows = found.rows(firsts)
    return Features(rows if on_disk else rows[:], computed=len(missing), reused=len(first_index) - len(missing))


def _shards(
    batches: Sequence[list[int]], outputs: Iterator[np.ndarray], advance: Callable[[int], None]
) -> Iterator[tuple[list[int], np.ndarray]]:
    """Features in portions that are worth a file, with the indices of their examples."""
    indices: list[int] = []
    values: list[np.ndarray] = []
    for batch, features in zip(batches, outputs, strict=True):
        values.append(features)
        indices += batch
        advance(len(batch))
        if len(indices) >= SHARD:
            yield indices, np.concatenate(values)
            indices, values = [], []
    if indices:
        yield indices, np.concatenate(values)


def _augmented_batches(
    examples: Sequence[Example], reader: PixelReader, batches: Sequence[list[int]], view: View | None
) -> Iterator[np.ndarray]:
    for batch, pixels in zip(batches, reader.batches(batches), strict=True):
        if view:
            drawn = draw(view.seed, view.index, [image_number(examples[index].sha256) for index in batch])
            pixels = augment(pixels, view.strength, drawn)
        yield pixels
