"""Rows on disk give what an array gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from multitl.training.feature_rows import OnDisk, StoredRows, joined, mapped

RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=(20, 3)).astype("float32")


@pytest.fixture
def stored(tmp_path: Path) -> StoredRows:
    """VALUES in a file and an array, in any order."""
    order = RANDOM.permutation(20)
    (tmp_path / "shard").write_bytes(b"head" + VALUES[order[:12]].tobytes())
    shards = (OnDisk(tmp_path / "shard", 4, 12, 3), VALUES[order[12:]])
    places = np.argsort(order)
    return StoredRows(shards, np.where(places < 12, 0, 1), np.where(places < 12, places, places - 12), 3)


@pytest.mark.parametrize("chosen", [slice(None), slice(3, 9), slice(5, 5), [4, 4, 19, 0], np.arange(20) % 3 == 1])
def test_a_part_is_an_array(stored: StoredRows, chosen) -> None:
    np.testing.assert_array_equal(stored[chosen], VALUES[chosen])
    assert stored[chosen].dtype == np.float32


def test_rows_are_joined_and_mapped_unread(stored: StoredRows) -> None:
    rows = joined([mapped(stored, lambda part: part + 1), VALUES, stored])
    assert isinstance(rows, StoredRows) and rows.shape == (60, 3)
    np.testing.assert_array_equal(rows[:], np.concatenate([VALUES + 1, VALUES, VALUES]))
    assert isinstance(joined([VALUES, VALUES]), np.ndarray)
