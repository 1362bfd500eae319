"""Medians, and intervals of their ratios that hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest

from multitl.bench.estimates import rate_of, ratio, spread


def test_spread_is_the_median_and_both_ends():
    found = spread([3.0, 1.0, 2.0])
    assert found is not None
    assert (found.median, found.low, found.high, found.count) == (2.0, 1.0, 3.0, 3)
    assert spread([]) is None


def test_the_rate_of_a_repetition_is_images_over_seconds():
    seconds = np.array([1.0, 2.0, 5.0])
    assert rate_of(list(8 / seconds)) == pytest.approx(3 * 8 / seconds.sum())


def test_a_ratio_of_the_same_runs_is_one_and_not_clear():
    runs = [[10.0, 11.0], [9.0, 10.0], [10.5, 10.0]]
    found = ratio(runs, runs)
    assert found is not None
    assert found.value == 1.0
    assert found.low < 1 < found.high
    assert not found.is_clear


def test_a_ratio_far_from_one_is_clear():
    found = ratio([[20.0, 20.2], [20.1, 19.9]], [[10.0, 10.1], [9.9, 10.0]])
    assert found is not None
    assert found.value == pytest.approx(2, rel=0.02)
    assert found.is_clear


def test_a_side_that_was_never_measured_gives_no_ratio():
    assert ratio([], [[1.0]]) is None
    assert ratio([[1.0]], []) is None


@pytest.mark.parametrize("repetitions", [3, 5])
def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says(repetitions: int):
    """Processes differ by 5 %, windows within one by 2 %; the true ratio is 1.5."""
    random = np.random.default_rng(0)

    def runs(rate: float) -> list[list[float]]:
        luck = random.normal(1, 0.05, (repetitions, 1)) * random.normal(1, 0.02, (repetitions, 8))
        return (rate * luck).tolist()

    intervals = [ratio(runs(15), runs(10), seed) for seed in range(60)]
    held = sum(found is not None and found.low < 1.5 < found.high for found in intervals)
    assert held >= 0.9 * len(intervals)
    widths = [found.high - found.low for found in intervals if found]
    assert np.median(widths) < 0.45


def test_the_same_records_give_the_same_interval():
    ours, theirs = [[10.0, 12.0], [11.0, 11.5]], [[8.0, 9.0], [8.5, 8.0]]
    assert ratio(ours, theirs) == ratio(ours, theirs)
