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

from multitl.contracts import Example, Forward, Peers, Unreadable
from multitl.data.augmentation import augment, draw, image_number
from multitl.data.pixels import PixelReader
from multitl.data.stripes import stripe
from multitl.distribution.peers import ALONE_PEERS
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
            except (OSError, MemoryError):  # it went meanwhile, or cannot be read now
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
        """What was not found before."""
        places = [(self.numbers.get(sha256, -1), row) for row, sha256 in enumerate(hashes)]
        wanted = [(number, row) for number, row in places if number >= 0 and self.shard[number] < 0]
        if wanted:
            numbers, rows = np.array(wanted).T
            self.shard[numbers], self.place[numbers] = len(self.shards), rows
            self.shards.append(shard)

    def lacking(self, numbers: np.ndarray) -> np.ndarray:
        """Those of some numbers that were not found."""
        return numbers[self.shard[numbers] < 0]

    def rows(self, numbers: np.ndarray) -> StoredRows:
        return StoredRows(tuple(self.shards), self.shard[numbers], self.place[numbers], self.channels)


def compute_features(
    extractor: Callable[[], Forward],
    examples: Sequence[Example],
    reader: PixelReader,
    store: FeatureStore,
    view: View | None = None,
    advance: Callable[[int], None] = lambda count: None,
    peers: Peers = ALONE_PEERS,
) -> Features:
    """The feature of each example, from the store where it is there, else computed and stored.

    extractor: asked only if it is needed, for what makes uint8 pixels (batch, h, w, 3) -> (batch, channels).
    reader: gives the pixels of example i as index i.
    advance: called with the number of images just finished.
    peers: who compute a part each of what is missing, and all get all of it, from the store if they share that.

    Raises DamagedImagesError, with all that anybody found, once everything else is computed.
    """
    on_disk = 4 * len(examples) * store.channels > IN_MEMORY
    first_index: dict[str, int] = {}
    firsts = np.array([first_index.setdefault(one.sha256, index) for index, one in enumerate(examples)], "int64")
    found = _Found(first_index, len(examples), store.channels)
    for hashes, shard in store.shards(on_disk=on_disk):
        found.add(hashes, shard)
    wanted = np.unique(firsts)
    missing: list[int] = peers.first(lambda: found.lacking(wanted).tolist())
    own = [missing[place] for place in stripe([examples[index].path for index in missing], peers.rank, peers.size)]
    advance(len(examples) - len(own))
    batches = list(index_batches(own))
    pixels = _augmented_batches(examples, reader, batches, view)
    outputs = predict_batches(extractor(), pixels) if own else iter(())
    for indices, values in _shards(batches, outputs, advance):
        is_sound = [index not in reader.damaged for index in indices]
        if hashes := [examples[index].sha256 for index in compress(indices, is_sound)]:
            found.add(hashes, store.add(hashes, values if all(is_sound) else values[is_sound], on_disk=on_disk))
    damaged = _everybodys(peers, list(reader.damaged.values()) if missing else [])
    if len(own) < len(missing):
        for hashes, shard in store.shards(on_disk=on_disk):  # what others have computed by now
            found.add(hashes, shard)
    if damaged:
        raise DamagedImagesError(damaged)
    _hand_round(found, wanted, examples, store, peers, on_disk=on_disk)
    rows = found.rows(firsts)
    return Features(rows if on_disk else rows[:], computed=len(missing), reused=len(first_index) - len(missing))


def _everybodys(peers: Peers, damaged: list[Unreadable]) -> list[Unreadable]:
    """Those of all, once all are done."""
    told = peers.gather(msgspec.msgpack.encode(damaged))
    return [one for part in told for one in msgspec.msgpack.decode(part, type=list[Unreadable])]


def _hand_round(
    found: _Found, wanted: np.ndarray, examples: Sequence[Example], store: FeatureStore, peers: Peers, *, on_disk: bool
) -> None:
    """Give everybody the features that somebody did not find, where stores are not the same: into the own one."""
    own = set(found.lacking(wanted).tolist())
    lacking = [set(msgspec.json.decode(numbers)) for numbers in peers.gather(msgspec.json.encode(sorted(own)))]
    giving = [_given_by(rank, lacking) for rank in range(peers.size)]
    for first in range(0, max(map(len, giving)), SHARD):
        parts = [numbers[first : first + SHARD] for numbers in giving]
        given = [number for numbers in parts for number in numbers]
        values = peers.rows(found.rows(np.array(parts[peers.rank], int))[:])
        new = [number in own for number in given]
        if hashes := [examples[number].sha256 for number in compress(given, new)]:
            found.add(hashes, store.add(hashes, values[new], on_disk=on_disk))


def _given_by(rank: int, lacking: Sequence[set[int]]) -> list[int]:
    """What a process gives: what others lack, and none before it has."""
    wanted = set().union(*lacking).intersection(*lacking[:rank]) if rank else set().union(*lacking)
    return sorted(wanted - lacking[rank])


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
