"""Figures of predicted numbers against scikit-learn's, their intervals, what they are shown with."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from multitl.errors import DataError
from multitl.judging import number_metrics
from multitl.judging.axes import spanning_axis
from multitl.judging.charts import draw_points
from multitl.judging.number_findings import number_cautions, worst_pictures
from multitl.judging.number_metrics import score_numbers
from multitl.judging.predictions import Predictions

RANDOM = np.random.default_rng(0)
TRUE = RANDOM.normal(50, 20, 200)
SAID = TRUE + RANDOM.normal(1, 5, 200)


def test_figures_are_those_of_scikit_learn() -> None:
    found = score_numbers(TRUE, SAID, mean=48.0)
    assert found["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(TRUE, SAID))
    assert found["rmse"] == pytest.approx(sklearn_metrics.root_mean_squared_error(TRUE, SAID))
    assert found["median_ae"] == pytest.approx(sklearn_metrics.median_absolute_error(TRUE, SAID))
    assert found["r2"] == pytest.approx(sklearn_metrics.r2_score(TRUE, SAID))
    assert found["bias"] == pytest.approx(np.mean(SAID - TRUE)) and found["count"] == 200
    baseline = sklearn_metrics.mean_absolute_error(TRUE, np.full(200, 48.0))
    assert found["always_mean"]["mae"] == pytest.approx(baseline) and not number_cautions(found, "test")


def test_intervals_are_those_of_resampled_images() -> None:
    """About two standard errors of the mean absolute error on each side, and the same in any order."""
    found = score_numbers(TRUE, SAID, mean=48.0, seed=3)
    low, high = found["mae_ci"]
    error = np.abs(SAID - TRUE).std() / np.sqrt(200)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.15) and low < found["mae"] < high
    order = RANDOM.permutation(200)
    assert score_numbers(TRUE[order], SAID[order], mean=48.0, seed=3)["mae_ci"] == found["mae_ci"]


def test_intervals_are_the_same_however_many_resamples_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = score_numbers(TRUE, SAID, mean=48.0)
    monkeypatch.setattr(number_metrics, "AT_ONCE", 7 * len(TRUE))
    assert score_numbers(TRUE, SAID, mean=48.0) == whole


def test_figures_that_do_not_exist_are_none_and_cautioned_of() -> None:
    found = score_numbers(np.full(12, 3.0), np.arange(12.0), mean=3.0)
    assert found["r2"] is None and found["r2_ci"] is None
    assert "same number" in number_cautions(found, "test")[0]
    guessed = score_numbers(TRUE, RANDOM.permutation(TRUE), mean=float(TRUE.mean()))
    assert guessed["r2"] < 0 and "not clearly smaller" in number_cautions(guessed, "test")[0]
    assert "only 1" in number_cautions(score_numbers(TRUE[:1], SAID[:1], mean=50.0), "test")[0]


@pytest.mark.parametrize(("true", "said"), [([1.0], [np.nan]), ([1.0, 2.0], [1.0]), ([], [])])
def test_what_cannot_be_scored_is_named(true: list[float], said: list[float]) -> None:
    with pytest.raises(DataError, match="cannot be scored"):
        score_numbers(np.array(true), np.array(said), mean=0.0)


def test_the_worst_pictures_come_first() -> None:
    paths = tuple("abc")
    said = np.array([[1.0], [5.0], [2.5]], "float32")
    found = worst_pictures(Predictions(("value",), ("test",) * 3, paths, np.array([1.0, 2.0, 4.0]), said), 2)
    assert [(one.path, one.error) for one in found] == [("b", 3.0), ("c", -1.5)]


def test_points_lie_where_the_axes_say() -> None:
    chart = draw_points(np.array([-10.0, 0.0, 30.0]), np.array([-10.0, 30.0, 30.0]), is_square=True)
    assert chart.x_ticks[0].label == "-10" and chart.x_ticks[-1].label == "30" and not chart.hidden
    assert chart.dots.startswith(f"M{chart.left:g} {chart.bottom:g}h.01")
    assert f"M{chart.right:g} {chart.top:g}h.01" in chart.dots
    many = draw_points(np.arange(5000.0), np.zeros(5000), is_square=False)
    assert many.hidden == 3000 and many.dots.count("M") == 2000


@pytest.mark.parametrize("values", [(0.0, 0.0), (-3.0, -3.0), (1e-9, 2e-9), (-4e20, 5e20), (99.99, 100.01)])
def test_axes_hold_whatever_there_is(values: tuple[float, float]) -> None:
    low, high, ticks = spanning_axis(values)
    rounding = 1e-9 * max(map(abs, values))
    assert low <= min(values) + rounding and high >= max(values) - rounding and high > low and len(ticks) >= 2
    assert len({label for _, label in ticks}) == len(ticks)
