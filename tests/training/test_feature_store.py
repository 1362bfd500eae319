"""The frozen part runs once: what is computed, what is reused, and what a killed or damaged store costs."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from conftest import SHARED
from group_processes import together

from multitl.contracts import Example, Forward, Unreadable
from multitl.distribution.peers import Several
from multitl.errors import RunError
from multitl.files import sealed_arrays
from multitl.files.sealed_arrays import read_sealed, write_sealed
from multitl.models.inference import BATCH, compile_forward
from multitl.training import feature_store
from multitl.training.feature_store import SHARD, DamagedImagesError, Features, FeatureStore, View, compute_features

Extractor = Callable[[], Forward]
CHANNELS = 5


class Pixels:
    """Stands in for data.PixelReader: image i is a constant of value i % 256, and the batches read are counted."""

    def __init__(self, count: int) -> None:
        values = (np.arange(count) % 256).astype("uint8")
        self.images = np.broadcast_to(values[:, None, None, None], (count, 8, 8, 3)).copy()
        self.read: list[list[int]] = []
        self.damaged: dict[int, Unreadable] = {}

    def batches(self, index_batches):
        for batch in index_batches:
            self.read.append(list(batch))
            yield self.images[list(batch)]


def examples(count: int, start: int = 0) -> list[Example]:
    return [Example(f"{i}.png", 0, "train", f"{i:064x}") for i in range(start, start + count)]


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(CHANNELS, 3)(x)))
    forward = compile_forward(model)
    return lambda: forward


@pytest.fixture
def store(request: pytest.FixtureRequest) -> FeatureStore:
    return FeatureStore({"test": request.node.name}, CHANNELS)


@pytest.mark.every_backend
def test_second_run_computes_nothing(extractor: Extractor, store: FeatureStore) -> None:
    done: list[int] = []
    first = compute_features(extractor, examples(40), Pixels(40), store, advance=done.append)
    again = compute_features(extractor, examples(40), Pixels(40), store, advance=done.append)
    assert (first.computed, first.reused, again.computed, again.reused) == (40, 0, 0, 40)
    np.testing.assert_array_equal(first.values, again.values)
    assert sum(done) == 80
    expected = keras.ops.convert_to_numpy(extractor()(Pixels(40).images))
    np.testing.assert_allclose(first.values, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.every_backend
def test_only_new_images_are_computed(extractor: Extractor, store: FeatureStore) -> None:
    compute_features(extractor, examples(40), Pixels(40), store)
    pixels = Pixels(45)
    result = compute_features(extractor, examples(45), pixels, store)
    assert pixels.read == [[40, 41, 42, 43, 44]]
    assert (result.computed, result.reused) == (5, 40)


@pytest.mark.every_backend
def test_a_feature_does_not_depend_on_its_neighbours(extractor: Extractor, store: FeatureStore) -> None:
    """Bit for bit: a resumed run, with other batches, must train on the same numbers."""
    all_at_once = compute_features(extractor, examples(40), Pixels(40), store)
    other = FeatureStore({"test": store.folder.name}, CHANNELS)
    compute_features(extractor, examples(7, start=33), Pixels(40), other)
    pixels = Pixels(40)
    pixels.images = np.roll(pixels.images, -33, axis=0)
    other_half = FeatureStore({"test": store.folder.name + "b"}, CHANNELS)
    alone = compute_features(extractor, examples(7, start=33), pixels, other_half)
    np.testing.assert_array_equal(alone.values, all_at_once.values[33:])


def test_duplicates_are_computed_once(extractor: Extractor, store: FeatureStore) -> None:
    twice = examples(3) + examples(3)
    result = compute_features(extractor, twice, Pixels(6), store)
    assert (result.computed, len(result.values)) == (3, 6)
    np.testing.assert_array_equal(result.values[:3], result.values[3:])


def test_a_killed_run_repeats_at_most_one_shard(extractor: Extractor, store: FeatureStore) -> None:
    count = 2 * SHARD + 10

    class Killed(Pixels):
        def batches(self, index_batches):
            for number, batch in enumerate(super().batches(index_batches)):
                if number == 2 * SHARD // BATCH - 1:
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        compute_features(extractor, examples(count), Killed(count), store)
    pixels = Pixels(count)
    assert compute_features(extractor, examples(count), pixels, store).reused == SHARD
    assert pixels.read[0] == list(range(SHARD, SHARD + BATCH))


@pytest.mark.parametrize("in_memory", [2**29, 0], ids=["in memory", "on disk"])
@pytest.mark.parametrize("stores", [1, 2], ids=["one store", "a store each"])
def test_workers_compute_a_part_each_and_all_have_all(
    stores: int, in_memory: int, extractor: Extractor, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one's store knows less."""
    monkeypatch.setattr(feature_store, "IN_MEMORY", in_memory)
    others = FeatureStore({"test": store.folder.name}, CHANNELS) if stores == 2 else store
    for known, count in ((store, 9), (others, 4)):
        compute_features(extractor, examples(count), Pixels(count), known)

    def work(peers: Several) -> tuple[Features, list[int]]:
        pixels, own = Pixels(60), (store, others)[peers.rank]
        found = compute_features(extractor, examples(60), pixels, own, peers=peers)
        return found, [index for batch in pixels.read for index in batch]

    (first, ours), (second, theirs) = together(2, work)
    assert ours + theirs == list(range(9, 60))
    assert abs(len(ours) - len(theirs)) == 1
    np.testing.assert_array_equal(first.values[:], second.values[:])
    again = compute_features(extractor, examples(60), Pixels(60), others)
    assert again.computed == 0
    np.testing.assert_array_equal(again.values[:], second.values[:])


def test_a_damaged_image_is_known_to_all_workers(extractor: Extractor, store: FeatureStore) -> None:
    def work(peers: Several) -> list[str]:
        pixels = Pixels(20)
        if peers.rank:
            pixels.damaged[15] = Unreadable("15.png", "cut off")
        with pytest.raises(DamagedImagesError) as found:
            compute_features(extractor, examples(20), pixels, store, peers=peers)
        return [one.path for one in found.value.damaged]

    assert together(2, work) == [["15.png"]] * 2


def resealed(**changes: object) -> Callable[[Path], object]:
    """A shard with other content and a right checksum."""

    def change(path: Path) -> None:
        arrays, about = read_sealed(path)
        hashes = changes.get("hashes", json.loads(about))
        write_sealed(path, {"features": changes.get("features", arrays["features"])}, json.dumps(hashes).encode())

    return change


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FIVE = [f"{index:064x}" for index in range(5)]
DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"not a shard"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "flipped": flipped,
    "pipe": as_pipe,
    "wider": resealed(features=np.zeros((5, CHANNELS + 1), "float32")),
    "nan": resealed(features=np.full((5, CHANNELS), np.nan, "float32")),
    "double": resealed(features=np.zeros((5, CHANNELS))),
    "fewer": resealed(features=np.zeros((4, CHANNELS), "float32")),
    "flat": resealed(features=np.zeros(5 * CHANNELS, "float32")),
    "numbers": resealed(hashes=[1, 2, 3, 4, 5]),
    "no list": resealed(hashes={"a": 1}),
    "short hash": resealed(hashes=[*FIVE[:4], "abc"]),
    "long hash": resealed(hashes=[*FIVE[:4], FIVE[4] + "\n"]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_a_damaged_shard_is_computed_again(extractor: Extractor, store: FeatureStore, damage: Callable) -> None:
    whole = compute_features(extractor, examples(5), Pixels(5), store)
    (shard,) = store.folder.glob("*.safetensors")
    damage(shard)
    again = compute_features(extractor, examples(5), Pixels(5), store)
    assert again.computed == 5
    np.testing.assert_array_equal(again.values, whole.values)
    assert compute_features(extractor, examples(5), Pixels(5), store).reused == 5


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()], ids=["files", "memory"]
)
def test_what_cannot_be_read_just_now_is_kept(
    extractor: Extractor, store: FeatureStore, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_features(extractor, examples(5), Pixels(5), store)
    with monkeypatch.context() as patch:
        patch.setattr(sealed_arrays, "read_regular", Mock(side_effect=error))
        assert list(store.shards(on_disk=False)) == []
    assert compute_features(extractor, examples(5), Pixels(5), store).reused == 5


@pytest.mark.parametrize("name", ["shard_NotImplementedError.npz", "shard_TokenError.npz"])
def test_shards_that_once_crashed_the_reader(extractor: Extractor, store: FeatureStore, name: str) -> None:
    content = (SHARED / "faults" / name).read_bytes() if (SHARED / "faults" / name).is_file() else b"PK\x03\x04"
    store.folder.mkdir(parents=True)
    for suffix in (".npz", ".safetensors"):
        (store.folder / f"x{suffix}").write_bytes(content)
    assert compute_features(extractor, examples(3), Pixels(3), store).computed == 3


def test_every_part_of_the_key_separates_stores() -> None:
    key = {"weights": "a", "pooling": "avg", "view": None}
    changed = [{**key, "weights": "b"}, {**key, "pooling": "max"}, {**key, "view": {"index": 0}}]
    folders = {FeatureStore(k, CHANNELS).folder for k in [key, *changed]}
    assert len(folders) == 4
    assert FeatureStore(dict(reversed(key.items())), CHANNELS).folder == FeatureStore(key, CHANNELS).folder


@pytest.mark.every_backend
def test_views_differ_and_repeat_exactly(extractor: Extractor, store: FeatureStore) -> None:
    """Every augmented pass is another draw; drawing it again gives the same."""
    random = np.random.default_rng(0)
    pixels = Pixels(6)
    pixels.images = random.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)

    def features(index: int, name: str) -> np.ndarray:
        other = FeatureStore({"test": store.folder.name, "view": index, "name": name}, CHANNELS)
        return compute_features(extractor, examples(6), pixels, other, View("strong", 3, index)).values

    np.testing.assert_array_equal(features(0, "a"), features(0, "b"))
    plain = compute_features(extractor, examples(6), pixels, store).values
    for a, b in [(features(0, "a"), features(1, "a")), (features(0, "a"), plain)]:
        assert np.abs(a - b).max() > 1e-3


def test_features_that_stay_on_disk_are_the_same(
    extractor: Extractor, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Computed and found again, in the order asked for, copies included; a shard that is lost is named."""
    asked = [*reversed(examples(300)), *examples(5)]
    pixels = Pixels(300)
    pixels.images = np.concatenate([pixels.images[::-1], pixels.images[:5]])
    plain = compute_features(extractor, asked, pixels, store).values
    monkeypatch.setattr(feature_store, "IN_MEMORY", 100)
    other = FeatureStore({"test": store.folder.name, "other": True}, CHANNELS)
    for count in (305, 0):
        result = compute_features(extractor, asked, pixels, other)
        assert not isinstance(result.values, np.ndarray) and result.computed == min(count, 300)
        np.testing.assert_array_equal(result.values[:], plain)
        np.testing.assert_array_equal(result.values[[7, 304, 7]], plain[[7, 304, 7]])
    next(other.folder.glob("*.safetensors")).unlink()
    with pytest.raises(RunError, match="went missing"):
        result.values[:]


def test_images_without_pixels_are_told_of_once_all_others_are_stored(
    extractor: Extractor, store: FeatureStore
) -> None:
    pixels = Pixels(5)
    pixels.damaged = {3: Unreadable("3.png", "damaged")}
    with pytest.raises(DamagedImagesError) as caught:
        compute_features(extractor, examples(5), pixels, store)
    assert caught.value.damaged == [pixels.damaged[3]]
    rest = [one for one in examples(5) if one.path != "3.png"]
    assert compute_features(extractor, rest, Pixels(4), store).reused == 4


FILL = """
import sys
import numpy as np
from multitl.training.feature_store import FeatureStore
store = FeatureStore({"test": sys.argv[1]}, 5)
for number in range(8):  # each shard twice: by both, at the same time, over each other
    hashes = [f"{10 * number + row:064x}" for row in range(10)]
    store.add(hashes, np.full((10, 5), number, "float32"))
    found = dict(zip(hashes, store.add(hashes, np.full((10, 5), number, "float32"), on_disk=True)[np.arange(10)]))
    assert all((row == number).all() for row in found.values())
"""


def test_two_processes_that_compute_the_same_shards_do_no_harm() -> None:
    name = "two processes"
    both = [subprocess.Popen([sys.executable, "-c", FILL, name]) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    store = FeatureStore({"test": name}, CHANNELS)
    shards = list(store.shards(on_disk=False))
    assert len(shards) == 8 and not list(store.folder.glob(".multitl-*"))
    assert sorted(float(features[np.arange(1)][0, 0]) for _, features in shards) == list(range(8))
