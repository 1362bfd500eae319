"""Same pixels, same order: whatever the threads, the memory and the batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from image_folders import make_images, scan_simply
from PIL import Image

from multitl.contracts import Example, Preprocess, Unreadable
from multitl.data.geometry import fit_pixels
from multitl.data.images import open_rgb
from multitl.data.pixels import PixelReader, read_files
from multitl.errors import DataError
from multitl.system.budgets import Budget
from multitl.system.hashes import file_sha256

SMALL = Preprocess(16, 12, shorter_side=20, interpolation="bicubic")
IMAGE_BYTES = 16 * 12 * 3


@pytest.fixture(scope="module")
def dataset(photo_folder):
    return scan_simply(photo_folder)


@pytest.fixture(scope="module")
def expected(dataset):
    return np.stack([fit_pixels(open_rgb(example.path), SMALL) for example in dataset.examples])


@pytest.mark.parametrize("threads", [1, 2, 7, None])
@pytest.mark.parametrize("memory_limit", [0, 10 * IMAGE_BYTES, 2**30])
def test_pixels_depend_on_nothing_but_the_index(dataset, expected, threads, memory_limit):
    reader = PixelReader(dataset.examples, SMALL, memory_limit=memory_limit, threads=threads)
    order = np.random.default_rng(0).permutation(len(reader))
    batches = [order[:5], order[5:6], order[6:], order[:7], []]
    for _ in range(2):  # the second time from memory
        for indices, pixels in zip(batches, reader.batches(batches), strict=True):
            assert pixels.dtype == np.uint8 and pixels.shape == (len(indices), 16, 12, 3)
            np.testing.assert_array_equal(pixels, expected[np.asarray(indices, int)])
    np.testing.assert_array_equal(reader.read([3, 3, -1]), expected[[3, 3, -1]])
    assert reader.read([]).shape == (0, 16, 12, 3)
    with pytest.raises(IndexError):
        reader.read([len(reader)])


def test_images_in_memory_are_not_read_again(tmp_path):
    dataset = scan_simply(make_images(tmp_path, {"a": 8, "b": 8}))
    reader = PixelReader(dataset.examples, SMALL, memory_limit=4 * IMAGE_BYTES)
    everything = reader.read(range(16))
    for example in dataset.examples[:4]:
        (tmp_path / example.path).unlink()
    np.testing.assert_array_equal(reader.read(range(16)), everything)


def test_a_caller_cannot_spoil_what_is_kept(dataset, expected):
    reader = PixelReader(dataset.examples, SMALL)
    reader.read([0, 1])[:] = 0
    np.testing.assert_array_equal(reader.read([0, 1]), expected[:2])


def test_a_file_that_vanished_or_changed_is_named(tmp_path):
    dataset = scan_simply(make_images(tmp_path, {"a": 8, "b": 8}))
    gone, other = dataset.examples[0].path, dataset.examples[1].path
    (tmp_path / gone).unlink()
    Image.new("RGB", (8, 6), "white").save(other)
    reader = PixelReader(dataset.examples, SMALL)
    with pytest.raises(DataError, match="No such file") as error:
        reader.read([2, 0])
    assert gone in str(error.value)
    with pytest.raises(DataError, match="another file lies there now") as error:
        list(reader.batches([[2], [3], [1], [4]]))
    assert other in str(error.value)


def test_leaving_early_ends_the_threads(dataset):
    for pixels in PixelReader(dataset.examples, SMALL).batches([[index] for index in range(40)]):
        assert len(pixels) == 1
        break
    del pixels
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("multitl")]


def test_read_files_gives_pixels_or_reasons_in_order(photo_folder, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"bad")
    good = sorted(map(str, photo_folder.rglob("*.png")))[:40]
    paths = [good[0], str(tmp_path / "bad.png"), *good[1:], str(tmp_path / "none.png")]
    results = list(read_files(paths, SMALL))
    assert len(results) == 42
    assert isinstance(results[1], Unreadable) and results[1].path == paths[1]
    assert isinstance(results[-1], Unreadable) and "No such file" in results[-1].reason
    for path, result in zip(paths[2:-1], results[2:-1], strict=True):
        np.testing.assert_array_equal(result, fit_pixels(open_rgb(path), SMALL))


class Watched(Budget):
    """Counts what is held, from outside."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.now = self.most = self.times = 0
        self._lock = threading.Lock()

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        with super().take(amount):
            with self._lock:
                self.now, self.times = self.now + min(amount, self.limit), self.times + 1
                self.most = max(self.most, self.now)
            try:
                yield
            finally:
                with self._lock:
                    self.now -= min(amount, self.limit)


@pytest.mark.parametrize("limit", [1, 30 * 20, 3 * 30 * 20])
def test_readers_share_a_budget_of_pixels(tmp_path, limit):
    """Images of 30 x 20 and one that is larger than the whole budget: the right pixels, never more at once."""
    sizes = [(30, 20)] * 11 + [(200, 150)]
    examples = []
    for index, size in enumerate(sizes):
        Image.new("RGB", size, (index * 20, 0, 0)).save(tmp_path / f"{index:02}.png")
        examples.append(
            Example(str(tmp_path / f"{index:02}.png"), 0, "train", file_sha256(tmp_path / f"{index:02}.png"))
        )
    budget = Watched(limit)
    readers = [PixelReader(examples, SMALL, memory_limit=0, threads=4, budget=budget) for _ in range(2)]
    expected = [index * 20 for index in range(12)]
    for batches in zip(*(reader.batches([range(12)] * 3) for reader in readers), strict=True):
        assert [pixels[:, 0, 0, 0].tolist() for pixels in batches] == [expected] * 2
    assert budget.times == 2 * 3 * 12 and budget.now == 0
    assert budget.most <= limit


def test_a_file_that_cannot_be_read_gives_its_share_back(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    budget, example = Watched(64 * 64), Example(str(tmp_path / "a.png"), 0, "train", file_sha256(tmp_path / "a.png"))
    reader = PixelReader([example], SMALL, budget=budget, threads=2)
    for _ in range(3):
        with pytest.raises(DataError, match="truncated"):
            reader.read([0])
    assert budget.times == 3 and budget.now == 0
