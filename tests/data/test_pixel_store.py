"""Pixels on disk: found again by any process, by content and geometry; damage and full disks cost time alone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_folders import make_images, scan_simply

from multitl.contracts import Dataset, Preprocess
from multitl.data import pixel_store, pixels
from multitl.data.pixel_store import PixelStore
from multitl.data.pixels import PixelReader
from multitl.system import cache

SMALL = Preprocess(16, 12, shorter_side=20)
COUNT = 40


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SPARED", 0)  # however full the disk of this machine is


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return scan_simply(make_images(tmp_path / "data", {"a": COUNT // 2, "b": COUNT // 2}))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was decoded, call by call."""
    calls: list[bytes] = []
    decode = pixels.decode_pixels
    monkeypatch.setattr(pixels, "decode_pixels", lambda data, *rest: calls.append(data) or decode(data, *rest))
    return calls


def read_all(dataset: Dataset, preprocess: Preprocess = SMALL) -> np.ndarray:
    """As a run that begins."""
    reader = PixelReader(dataset.examples, preprocess, store=PixelStore(preprocess))
    return np.concatenate([*reader.batches([range(10), range(10, COUNT)]), reader.read(range(0, COUNT, 3))])


def files() -> list[Path]:
    return sorted(cache.cache_folder().rglob("*.pixels"))


def test_a_second_run_decodes_nothing(dataset: Dataset, decoded: list[bytes]) -> None:
    first = read_all(dataset)
    assert len(decoded) == COUNT
    np.testing.assert_array_equal(read_all(dataset), first)
    assert len(decoded) == COUNT


def test_pixels_that_are_part_of_a_larger_image_are_kept(dataset: Dataset) -> None:
    store, image = PixelStore(SMALL), np.arange(32 * 24 * 3, dtype="uint8").reshape(32, 24, 3)
    store.add("0" * 64, image[4:20, 6:18])
    store.flush()
    stored = PixelStore(SMALL).find("0" * 64)
    assert stored is not None
    np.testing.assert_array_equal(stored, image[4:20, 6:18])


def test_of_a_run_that_stopped_what_was_decoded_is_kept(dataset: Dataset, decoded: list[bytes]) -> None:
    batches = PixelReader(dataset.examples, SMALL, store=PixelStore(SMALL), threads=1).batches([range(10)] * 2)
    next(batches)
    batches.close()
    read_all(dataset)
    assert len(decoded) == COUNT


def test_other_values_share_pixels_and_another_geometry_does_not(dataset: Dataset, decoded: list[bytes]) -> None:
    read_all(dataset)
    read_all(dataset, SMALL.standardise((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)))
    assert len(decoded) == COUNT
    read_all(dataset, replace(SMALL, shorter_side=24))
    assert len(decoded) == 2 * COUNT


def test_files_hold_no_more_than_they_should(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_store, "FILE_BYTES", 8 * 16 * 12 * 3)
    first = read_all(dataset)
    assert len(files()) == COUNT // 8
    np.testing.assert_array_equal(read_all(dataset), first)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:-50] + b"x" + data[-49:],  # the table
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],  # a pixel
        lambda data: b"\0" * 576 + data,
    ],
)
def test_a_damaged_image_is_decoded_again(damage, dataset: Dataset, decoded: list[bytes]) -> None:
    first = read_all(dataset)
    (path,) = files()
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_array_equal(read_all(dataset), first)
    assert COUNT < len(decoded) <= 2 * COUNT
    np.testing.assert_array_equal(read_all(dataset), first)


def test_without_room_memory_does_as_well(
    dataset: Dataset, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = PixelReader(dataset.examples, SMALL).read(range(COUNT))
    decoded.clear()
    monkeypatch.setenv(cache.LIMIT, "0")
    reader = PixelReader(dataset.examples, SMALL, store=PixelStore(SMALL))
    for _ in range(3):
        np.testing.assert_array_equal(reader.read(range(COUNT)), expected)
    assert not files() and len(decoded) == 2 * COUNT  # the first time the store took them, in vain


def test_those_not_used_for_longest_make_room(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    geometries = [replace(SMALL, shorter_side=side) for side in (20, 24, 28)]
    sizes = []
    for age, geometry in enumerate(geometries[:2]):
        read_all(dataset, geometry)
        (new,) = set(files()) - set(sizes)
        os.utime(new, (1000 + age, 1000 + age))
        sizes.append(new)
    monkeypatch.setenv(cache.LIMIT, str(2.5 * sizes[0].stat().st_size / cache.GB))
    read_all(dataset, geometries[2])
    assert len(files()) == 2 and sizes[0] not in files()


def test_what_another_process_removed_is_decoded_again(dataset: Dataset, decoded: list[bytes]) -> None:
    first = read_all(dataset)
    reader = PixelReader(dataset.examples, SMALL, store=PixelStore(SMALL))
    for path in files():
        path.unlink()
    np.testing.assert_array_equal(reader.read(range(COUNT)), first[:COUNT])
    assert len(decoded) == 2 * COUNT


def test_many_files_need_no_open_descriptors(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_store, "FILE_BYTES", 16 * 12 * 3)
    read_all(dataset)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.glob("*")))  # none on other systems
    store = PixelStore(SMALL)
    assert all(store.find(example.sha256) is not None for example in dataset.examples) and len(files()) == COUNT
    assert len(list(descriptors.glob("*"))) <= before + 2


def test_a_place_that_cannot_be_written_to_is_no_obstacle(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MULTITL_CACHE", str(tmp_path / "file" / "cache"))
    assert len(read_all(dataset)) == COUNT + 14


def test_processes_that_write_at_once_all_leave_whole_files(dataset: Dataset) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from image_folders import scan_simply\n"
        "from test_pixel_store import read_all\n"
        "print(int(read_all(scan_simply(Path(sys.argv[1]))).sum(dtype='int64')))"
    )
    tests = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", code, dataset.root, str(tests), str(tests / "data")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = {process.communicate(timeout=120)[0] for process in running}
    assert sums == {f"{int(read_all(dataset).sum(dtype='int64'))}\n"}
