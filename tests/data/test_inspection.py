"""Of very many files only some are decoded at the look; what is damaged is left out once its pixels are wanted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from image_folders import make_images, scan_simply

from multitl.contracts import Dataset, Decoding, Preprocess, Unreadable
from multitl.data import inspection
from multitl.data.pixels import PixelReader
from multitl.data.scanning import leave_out, wholly_read
from multitl.errors import DataError
from multitl.recipes import Recipe

DAMAGED = "a/3.png"
SMALL = Preprocess(16, 12, shorter_side=20)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Of 40 files, one of which is damaged, two are decoded."""
    monkeypatch.setattr(inspection, "MOST_DECODED", 20)
    monkeypatch.setattr(inspection, "DECODED", 2)
    decoded: list[bytes] = []
    check = inspection.check_image
    monkeypatch.setattr(inspection, "check_image", lambda data, *how: decoded.append(data) or check(data, *how))
    folder = make_images(tmp_path / "data", {"a": 20, "b": 20})
    (folder / DAMAGED).write_bytes((folder / DAMAGED).read_bytes()[:60])
    found = scan_simply(folder)
    assert len(decoded) == 2 and len(found.examples) == 40 and found.is_sampled
    return found


def test_what_is_damaged_is_found_where_it_is_read(dataset: Dataset) -> None:
    reader = PixelReader(dataset.examples, SMALL, is_sampled=True)
    list(reader.batches([range(40)]))
    ((index, found),) = reader.damaged.items()
    assert dataset.examples[index].path == found.path and found.path.endswith(DAMAGED) and "truncated" in found.reason
    with pytest.raises(DataError, match="truncated"):
        PixelReader(dataset.examples, SMALL).read([index])


def test_it_is_left_out_or_refused(dataset: Dataset) -> None:
    (path,) = (one.path for one in dataset.examples if one.path.endswith(DAMAGED))
    left = leave_out(dataset, [Unreadable(path, "truncated")], 0.05)
    assert len(left.examples) == 39 and left.unreadable[0].path == path
    assert left.fingerprint == dataset.fingerprint
    with pytest.raises(DataError, match="1 of 40 image files"):
        leave_out(dataset, [Unreadable(path, "truncated")], 0.01)
    with pytest.raises(DataError, match="training image"):
        leave_out(dataset, [Unreadable(one.path, "") for one in dataset.examples if one.label == 0], 0.9)


def test_whoever_cannot_go_back_has_all_read(dataset: Dataset) -> None:
    left = wholly_read(dataset, Recipe())
    assert len(left.examples) == 39 and not left.is_sampled and left.unreadable[0].path.endswith(DAMAGED)
    assert wholly_read(left, Recipe()) is left


def test_the_fingerprint_is_that_of_one_piece_of_json(dataset: Dataset) -> None:
    contents = sorted([one.split, one.label, one.sha256] for one in dataset.examples)
    text = json.dumps([dataset.class_names, contents])
    assert dataset.fingerprint == hashlib.sha256(text.encode()).hexdigest()


def test_files_of_other_channels_than_the_decoded_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of channels is that of the sample; what lacks some is left out as anything else that is not read."""
    monkeypatch.setattr(inspection, "MOST_DECODED", 8)
    monkeypatch.setattr(inspection, "DECODED", 2)
    for number in range(10):  # of which 0 and 5 are decoded
        path = tmp_path / "ab"[number // 5] / f"{number}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.full((6, 6, 3 if number == 7 else 4), number, np.uint8))
    dataset = scan_simply(tmp_path, decoding=Decoding(channels=()))
    assert dataset.is_sampled and dataset.channels == 4
    four = Decoding(channels=(1, 2, 3, 4))
    how = Preprocess(4, 4, shorter_side=4, fill=(0,) * 4, scale=(1.0,) * 4, offset=(0.0,) * 4, decoding=four)
    reader = PixelReader(dataset.examples, how, is_sampled=True)
    assert reader.read(range(10)).shape == (10, 4, 4, 4)
    (found,) = reader.damaged.values()
    assert found.path.endswith("7.npy") and found.reason == "it has 3 channels"
