"""The frozen part runs once: pooled features of every image, computed in one pass and kept on disk.

A store is one folder, named by a hash of everything that decides a feature besides the image: weights, preprocessing,
pooling, precision, backend and augmentation. Inside, each shard holds the features of up to 256 images under the
SHA-256 of their files, so renamed, moved or re-split images are found again and only new ones are computed. A shard
appears atomically: a killed run loses at most the one it was working on, and two runs may fill a store together.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from multitl.contracts import Example, Forward, Peers
from multitl.data.augmentation import augment, draw, image_number
from multitl.data.pixels import PixelReader
from multitl.distribution.peers import ALONE_PEERS
from multitl.files.sealed_arrays import DamagedError, read_sealed, write_sealed
from multitl.models.inference import BATCH, index_batches, predict_batches
from multitl.system.cache import store_folder

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

    values: np.ndarray
    computed: int
    reused: int


class FeatureStore:
    """Features on disk by image content.

    key: what they depend on besides the image; JSON values only.  channels: of a feature.
    """

    def __init__(self, key: dict, channels: int) -> None:
        self.channels = channels
        self.folder = store_folder("features", key)

    def load(self) -> dict[str, np.ndarray]:
        """SHA-256 of an image -> its feature (channels,). A damaged shard counts as absent."""
        known: dict[str, np.ndarray] = {}
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            try:
                known.update(self._read(path))
            except DamagedError:
                with contextlib.suppress(OSError):
                    path.unlink()  # left by a failing disk; its images are computed again
        return known

    def add(self, hashes: Sequence[str], features: np.ndarray) -> None:
        """Write one shard."""
        name = hashlib.sha256("".join(hashes).encode()).hexdigest()[:32]
        write_sealed(self.folder / f"{name}{SUFFIX}", {"features": features}, msgspec.json.encode(list(hashes)))

    def _read(self, path: Path) -> Iterator[tuple[str, np.ndarray]]:
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
        return zip(hashes, features, strict=True)


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
    """
    known = store.load()
    first_index = {example.sha256: index for index, example in reversed(list(enumerate(examples)))}
    missing = [index for sha256, index in sorted(first_index.items(), key=lambda item: item[1]) if sha256 not in known]
    missing = peers.first(lambda: missing)
    own = peers.share(missing)
    advance(len(examples) - len(own))
    batches = list(index_batches(own))
    pixels = _augmented_batches(examples, reader, batches, view)
    outputs = predict_batches(extractor(), pixels) if own else iter(())
    for indices, shard in _shards(batches, outputs, advance):
        hashes = [examples[index].sha256 for index in indices]
        store.add(hashes, shard)
        known.update(zip(hashes, shard, strict=True))
    if len(own) < len(missing):
        peers.barrier()
        known |= store.load()
    _hand_round(known, list(first_index), store.channels, peers)
    values = np.stack([known[example.sha256] for example in examples])
    return Features(values, computed=len(missing), reused=len(first_index) - len(missing))


def _hand_round(known: dict[str, np.ndarray], hashes: Sequence[str], channels: int, peers: Peers) -> None:
    """Give everybody the features that somebody did not find, where stores are not the same."""
    own = [place for place, one in enumerate(hashes) if one not in known]
    lacking = [set(msgspec.json.decode(places)) for places in peers.gather(msgspec.json.encode(own))]
    giving = [_given_by(rank, lacking) for rank in range(peers.size)]
    if not any(giving):
        return
    values = np.array([known[hashes[place]] for place in giving[peers.rank]], "float32").reshape(-1, channels)
    given = [hashes[place] for places in giving for place in places]
    known.update(zip(given, peers.rows(values), strict=True))


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
