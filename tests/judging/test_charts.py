"""Where the marks lie: inside the plot, in order, and where the values say."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitl.judging.axes import Scale, tick_step
from multitl.judging.charts import draw_coverage, draw_curves, draw_reliability, wilson_interval
from multitl.judging.metrics import ReliabilityBin

losses = st.lists(st.one_of(st.just(math.nan), st.floats(0, 1e4)), min_size=1, max_size=60)
shares = st.floats(0, 1)


def _points(path: str) -> list[tuple[float, float]]:
    numbers = [float(number) for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", path.replace("h.01", ""))]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


@given(losses)
def test_curves_stay_inside_the_plot(values: list[float]) -> None:
    chart = draw_curves(
        {"training": values, "validation": values}, ["head"] * len(values), range(len(values)), 0, is_share=False
    )
    for x, y in _points(chart.curves[0].path):
        assert chart.left <= x <= chart.right
        assert chart.top - 0.01 <= y <= chart.bottom + 0.01
    shown = [math.isfinite(value) and (value > 0 or not chart.is_log) for value in values]
    assert len(_points(chart.curves[0].path)) == sum(shown)
    assert (chart.best is None) == (not shown[0])
    heights = [tick.at for tick in chart.y_ticks]
    assert heights == sorted(heights, reverse=True)
    assert len({tick.label for tick in chart.y_ticks}) == len(chart.y_ticks) >= 1


@given(st.lists(shares, min_size=1, max_size=60))
def test_shares_have_round_ticks_up_to_all(values: list[float]) -> None:
    chart = draw_curves(
        {"training": values, "validation": values}, ["head"] * len(values), range(len(values)), None, is_share=True
    )
    assert chart.y_ticks[-1].label.rstrip("%").rstrip("0").rstrip(".") in ("100", "1")
    assert chart.y_ticks[-1].at == chart.top
    assert all(chart.top - 0.01 <= y <= chart.bottom + 0.01 for _, y in _points(chart.curves[0].path))


def test_a_gap_is_left_where_there_is_no_value() -> None:
    chart = draw_curves({"validation": [1.0, math.nan, 2.0, 1.5]}, ["head"] * 4, range(4), 3, is_share=False)
    assert chart.curves[0].path.count("M") == 2
    assert chart.slots[1].text == "step 1: validation none"


def test_a_loss_that_falls_far_gets_a_logarithmic_axis() -> None:
    steep, flat = [2.0, 0.5, 0.05, 0.02], [2.0, 1.5, 0.5, 0.1]
    chart = draw_curves({"validation": steep}, ["head"] * 4, range(4), 3, is_share=False)
    assert chart.is_log
    assert [tick.label for tick in chart.y_ticks] == ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]
    points = _points(chart.curves[0].path)
    assert (points[0][1], points[3][1]) == (chart.top, chart.bottom)
    assert points[1][1] - points[0][1] == pytest.approx(
        (chart.bottom - chart.top) * math.log(4) / math.log(100), abs=0.01
    )
    assert not draw_curves({"validation": flat}, ["head"] * 4, range(4), 3, is_share=False).is_log
    assert not draw_curves({"validation": [0.01, 1.0]}, ["head"] * 2, range(2), 1, is_share=True).is_log


def test_phases_become_bands_and_the_kept_epoch_a_mark() -> None:
    chart = draw_curves(
        {"training": [3, 2, 1], "validation": [3, 1, 2]}, ["a", "a", "b"], [10, 20, 5], 1, is_share=False
    )
    assert [band.name for band in chart.bands] == ["a", "b"]
    assert chart.bands[0].start == chart.left
    assert chart.bands[0].end == chart.bands[1].start
    assert chart.best == _points(chart.curves[1].path)[1]


@given(st.floats(1e-6, 1e6), st.integers(2, 12))
def test_tick_steps_cover_the_span_with_few_round_steps(span: float, most: int) -> None:
    step = tick_step(span, most)
    assert step * most >= span * (1 - 1e-6)
    assert step * most <= span * 2.6
    assert float(f"{step:.1e}") == pytest.approx(step)


@given(shares, st.integers(1, 10_000))
def test_wilson_intervals_hold_the_share(share: float, count: int) -> None:
    low, high = wilson_interval(share, count)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    assert high - low <= 2 * 1.96 * 0.5 / math.sqrt(count) + 1e-9


def test_wilson_interval_of_a_textbook_case() -> None:
    assert wilson_interval(0.9, 10) == pytest.approx((0.596, 0.982), abs=1e-3)


def test_reliability_marks_lie_at_confidence_and_accuracy() -> None:
    bins = [ReliabilityBin(0.4, 0.5, 2, 0.45, 0.5), ReliabilityBin(0.9, 1, 8, 0.95, 0.75)]
    chart = draw_reliability(bins, 10)
    x, y = Scale(0, 1, chart.left, chart.right), Scale(0, 1, chart.bottom, chart.top)
    assert [(mark.x, mark.y) for mark in chart.marks] == [(x(0.45), y(0.5)), (x(0.95), y(0.75))]
    assert [mark.is_overconfident for mark in chart.marks] == [False, True]
    assert chart.marks[1].bar_height > chart.marks[0].bar_height
    assert chart.marks[1].text == "8 images, on average 95% sure, 75% right"


def test_coverage_labels_do_not_lie_on_each_other() -> None:
    marks = [(0.97, 0.99, "95%"), (0.98, 0.99, "80%"), (1.0, 0.99, "50%")]
    labels = draw_coverage([(0.5, 1.0), (1.0, 0.99)], marks).marks
    assert len({label.label_y for label in labels}) == 3
    assert all(abs(a.label_y - b.label_y) > 11 for a, b in itertools.pairwise(labels))
