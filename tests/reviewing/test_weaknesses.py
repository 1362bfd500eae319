"""Slices, overlaps, outliers and drift: what was planted is found, and nothing where nothing was."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from multitl.cli.reviews import print_drift
from multitl.contracts import Dataset, Example
from multitl.reviewing import drift
from multitl.reviewing.drift import FALSE_ALARMS, area_interval, compare
from multitl.reviewing.looks import Looks
from multitl.reviewing.neighbours import centre_of, nearest
from multitl.reviewing.outliers import NEIGHBOURS, find_outliers
from multitl.reviewing.weaknesses import find_overlaps, find_slices


def looks_of(count: int) -> Looks:
    random = np.random.default_rng(0)
    return Looks(*random.uniform(1, 2, (5, count)), np.zeros((count, 1)), {})


def test_a_dark_slice_that_is_worse_is_named_and_luck_is_not():
    random, looks = np.random.default_rng(2), looks_of(1000)
    features = random.normal(0, 1, (1000, 4)).astype("float32")
    is_right = random.uniform(size=1000) < 0.9
    assert find_slices(is_right, looks, features, ["a"] * 1000, 0)[0] == []
    dark = looks.brightness < np.quantile(looks.brightness, 0.2)
    (found,), count = find_slices(
        is_right & ~(dark & (random.uniform(size=1000) < 0.4)), looks, features, ["a"] * 1000, 0
    )
    assert found.name.startswith("brightness 1.0") and set(found.rows) == set(np.flatnonzero(dark))
    assert count == 25 + 12 and found.interval[0] < found.accuracy < found.interval[1] < 0.86


def test_files_that_went_and_equal_measures_make_no_slices():
    looks = dataclasses.replace(looks_of(100), width=np.full(100, np.nan), height=np.full(100, 3.0))
    looks.brightness[:] = 1
    assert find_slices(np.ones(100, bool), looks, np.zeros((100, 2), "float32"), ["a"] * 100, 0) == ([], 10)


def test_classes_overlap_both_ways():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2, 2]), np.array([1, 0, 0, 0, 1, 2, 0])
    (found,) = find_overlaps(predicted, labels, ("a", "b", "c"))
    assert (found.one, found.other, found.confused, found.count) == ("a", "b", 2, 5)


def test_one_that_is_far_from_all_is_an_outlier():
    random = np.random.default_rng(0)
    features = (np.eye(6)[np.arange(120) % 5] + random.normal(0, 0.05, (120, 6))).astype("float32")
    features[7] = [0, 0, 0, 0, 0, 3]
    (found,) = find_outliers(nearest(features, features, NEIGHBOURS, centre_of(features)))
    assert found.image == 7 and found.score > 3


def subject_of(features: np.ndarray) -> SimpleNamespace:
    """Half of it training images, a quarter each of the others."""
    count = len(features)
    splits = ["train"] * (count // 2) + ["validation"] * (count // 4) + ["test"] * (count // 4)
    examples = tuple(Example(f"{i}.png", 0, split, f"{i:064}") for i, split in enumerate(splits))
    rows = lambda *parts: [i for i, split in enumerate(splits) if split in parts]  # noqa: E731
    return SimpleNamespace(
        features=features, rows=rows, dataset=Dataset("", ("a",), examples), recipe=SimpleNamespace(seed=0)
    )


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "cannot be told"), (3.0, "clearly of another kind")])
def test_drift_is_told_where_there_is_one(shift: float, verdict: str):
    random = np.random.default_rng(2)
    size = np.array([1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1])
    old, new = ((random.normal(0, 1, (count, 8)) * size).astype("float32") for count in (400, 60))
    new[:, 5] += shift
    images = [Example(f"new-{i}.png", -1, "train", f"{i:064}" if i < 3 else f"n{i:063}") for i in range(60)]
    found = compare(subject_of(old), images, new)
    assert verdict in found.verdict and found.known == 3
    assert found.area_interval[0] <= found.area <= found.area_interval[1]
    assert (found.unknown_interval[0] <= FALSE_ALARMS) == (shift == 0)
    rows = found.about()["rows"]
    assert sum(row["unknown"] for row in rows) == round(found.unknown * 60)
    assert [row["distance"] for row in rows] == sorted((row["distance"] for row in rows), reverse=True)


def test_of_large_data_the_interval_is_of_what_was_compared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(drift, "MOST", 20)
    old, new = (
        np.random.default_rng(seed).normal(0, 1, (count, 8)).astype("float32") for seed, count in enumerate((400, 60))
    )
    found = compare(subject_of(old), [Example(f"{i}.png", -1, "train", f"n{i:063}") for i in range(60)], new)
    assert found.area_interval == area_interval(found.area, 20, 20)


def test_too_few_usual_images_call_nothing_unknown(capsys):
    old = np.random.default_rng(0).normal(0, 1, (36, 8)).astype("float32")
    found = compare(subject_of(old), [Example("a.png", -1, "train", "n")], -50 * old[:1])
    assert found.compared_with == 18 and found.unknown is found.unknown_interval is found.threshold is None
    assert not any(row["unknown"] for row in found.about()["rows"])
    print_drift(found)
    assert "cannot be told by 18 images that the run was judged on: 20 are needed" in capsys.readouterr().out


def test_the_interval_of_an_area_is_hanley_and_mcneils():
    """Their example: 0.893 with a standard error of 0.032, of 58 and 51 patients."""
    low, high = area_interval(0.893, 58, 51)
    assert (high - low) / 2 / 1.96 == pytest.approx(0.032, abs=1e-3)
    assert area_interval(0.5, 4, 4) == (pytest.approx(0.09, abs=0.05), pytest.approx(0.91, abs=0.05))
