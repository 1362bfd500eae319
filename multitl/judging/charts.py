"""Where the marks of the report's figures lie: numbers in, SVG coordinates out. The templates draw them.

Coordinates are SVG user units: x to the right, y down. Loads no plotting library, so that the figures can take their
colours from the page (light, dark, print) and stay small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multitl.judging.axes import Scale, Tick, lift, linear_axis, log_axis, span_of, spanning_axis, tick_step
from multitl.judging.metrics import ReliabilityBin

LOG_FROM = 30.0  # a loss that falls by more than this factor is a flat line on a linear axis
MOST_POINTS = 2000  # dots of a figure
MOST_SLOTS = 240  # epochs up to which each has a read-out under the pointer


@dataclass(frozen=True)
class Curve:
    """`path` is an SVG path; a value that is not finite leaves a gap."""

    name: str
    path: str


@dataclass(frozen=True)
class Band:
    """One training phase: an interval on the x axis."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Slot:
    """The column of one epoch, for the read-out under the pointer."""

    x: float
    width: float
    text: str


@dataclass(frozen=True)
class CurveChart:
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]
    bands: list[Band]
    slots: list[Slot]
    best: tuple[float, float] | None
    is_log: bool


@dataclass(frozen=True)
class ReliabilityMark:
    """One bin: a dot at (mean confidence, accuracy), its 95 % interval and gap to the diagonal, a bar for its count."""

    x: float
    y: float
    low: float
    high: float
    diagonal: float
    radius: float
    bar_x: float
    bar_width: float
    bar_y: float
    bar_height: float
    is_overconfident: bool
    text: str


@dataclass(frozen=True)
class ReliabilityChart:
    size: float
    left: float
    top: float
    bottom: float
    right: float
    floor: float
    ticks: list[tuple[float, float, str]]
    marks: list[ReliabilityMark]


@dataclass(frozen=True)
class LabelledMark:
    x: float
    y: float
    label: str
    label_y: float


@dataclass(frozen=True)
class CoverageChart:
    """Accuracy on the surest images, over how many of all images those are."""

    size: float
    left: float
    top: float
    bottom: float
    right: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    path: str
    marks: list[LabelledMark]


@dataclass(frozen=True)
class PointChart:
    """line, dots: SVG paths.  hidden: points that are left out."""

    size: float
    left: float
    top: float
    bottom: float
    right: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    line: str
    dots: str
    hidden: int


@dataclass(frozen=True)
class Line:
    """number: from 0, which says how it is drawn."""

    name: str
    path: str
    number: int


@dataclass(frozen=True)
class LineChart:
    """Lines on top of each other, over what they are measured in."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Line]


def draw_curves(
    series: Mapping[str, Sequence[float]], phases: Sequence[str], steps: Sequence[int], best: int | None, *,
    is_share: bool,
) -> CurveChart:  # fmt: skip
    """Lines over the n times that training was judged.

    series: name -> n values, nan for none.  phases, steps: where training stood.  best: index of what was kept.
    is_share: values are in [0, 1] and shown as per cent, up to 100 %. Others are shown from 0 on, or, if they span more
    than LOG_FROM, on a logarithmic axis, which leaves out what is not positive. The last series carries the mark.
    """
    width, height, left, right, top, bottom = 400.0, 262.0, 40.0, 396.0, 16.0, 226.0
    count, values = len(phases), [value for values in series.values() for value in values]
    is_log = not is_share and span_of(values) > LOG_FROM
    low, high, ticks = log_axis(values) if is_log else linear_axis(values, is_share=is_share)
    x, y = Scale(0.5, count + 0.5, left, right), Scale(low, high, bottom, top)
    lifted = {name: [lift(value, low) if is_log else value for value in values] for name, values in series.items()}
    kept = list(lifted.values())[-1][best] if best is not None else math.nan
    return CurveChart(
        width, height, left, right, top, bottom,
        x_ticks=[Tick(x(number), f"{steps[number - 1]}") for number in _numbers(count)],
        y_ticks=[Tick(y(at), label) for at, label in ticks],
        curves=[Curve(name, _path(values, x, y)) for name, values in lifted.items()],
        bands=_bands(phases, x),
        slots=_slots(series, steps, x, is_share=is_share) if count <= MOST_SLOTS else [],
        best=(x(best + 1), y(kept)) if best is not None and math.isfinite(kept) else None,
        is_log=is_log,
    )  # fmt: skip


def draw_reliability(bins: Sequence[ReliabilityBin], total: int) -> ReliabilityChart:
    """Accuracy over confidence, with the share of examples in each bin below."""
    size, left, right, top, bottom, floor = 400.0, 40.0, 390.0, 10.0, 326.0, 396.0
    x, y = Scale(0, 1, left, right), Scale(0, 1, bottom, top)
    largest = max((b.count for b in bins), default=1)
    bar = Scale(0, largest, floor, floor - 44)
    marks = []
    for b in bins:
        low, high = wilson_interval(b.accuracy, b.count)
        sure, right_share = f"{b.confidence:.0%}", f"{b.accuracy:.0%}"
        marks.append(ReliabilityMark(
            x(b.confidence), y(b.accuracy), y(low), y(high), y(b.confidence),
            radius=round(3.2 + 5.8 * math.sqrt(b.count / total), 2),
            bar_x=x(b.low) + 1, bar_width=round(x(b.high) - x(b.low) - 2, 2),
            bar_y=bar(b.count), bar_height=round(max(1.0, floor - bar(b.count)), 2),
            is_overconfident=b.confidence > b.accuracy,
            text=f"{b.count} images, on average {sure} sure, {right_share} right",
        ))  # fmt: skip
    ticks = [(x(v / 5), y(v / 5), f"{v * 20}%") for v in range(6)]
    return ReliabilityChart(size, left, top, bottom, right, floor, ticks, marks)


def draw_coverage(points: Sequence[tuple[float, float]], marks: Sequence[tuple[float, float, str]]) -> CoverageChart:
    """points: (share of images answered, accuracy on them), from the surest on.  marks: such points with a label."""
    size, left, right, top, bottom = 400.0, 40.0, 390.0, 22.0, 326.0
    low, high, ticks = linear_axis([accuracy for _, accuracy in points], is_share=True)
    x, y = Scale(0, 1, left, right), Scale(low, high, bottom, top)
    path = "M" + "L".join(f"{x(share):g} {y(accuracy):g}" for share, accuracy in points)
    return CoverageChart(
        size, left, top, bottom, right,
        x_ticks=[Tick(x(v / 5), f"{v * 20}%") for v in range(6)],
        y_ticks=[Tick(y(at), label) for at, label in ticks],
        path=path + ("h.01" if len(points) == 1 else ""),
        marks=_spread_labels([(x(share), y(accuracy), text) for share, accuracy, text in marks]),
    )  # fmt: skip


def draw_points(across: np.ndarray, up: np.ndarray, *, is_square: bool) -> PointChart:
    """A dot for each pair of numbers (n,), of at most MOST_POINTS spread evenly over `across`.

    is_square: both axes have the same range, and the line is where they are equal; else it is where `up` is 0.
    """
    size, left, right, top, bottom = 400.0, 52.0, 390.0, 10.0, 348.0
    order = np.argsort(across, kind="stable")
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(MOST_POINTS, len(order))).round().astype(int))]
    both = [*across.tolist(), *up.tolist()]
    low_x, high_x, x_ticks = spanning_axis(both if is_square else across.tolist())
    low_y, high_y, y_ticks = (low_x, high_x, x_ticks) if is_square else spanning_axis([*up.tolist(), 0.0])
    x, y = Scale(low_x, high_x, left, right), Scale(low_y, high_y, bottom, top)
    line = f"M{left:g} {bottom:g}L{right:g} {top:g}" if is_square else f"M{left:g} {y(0):g}H{right:g}"
    dots = "".join(f"M{x(float(across[i])):g} {y(float(up[i])):g}h.01" for i in shown)
    return PointChart(
        size, left, top, bottom, right,
        x_ticks=[Tick(x(at), label) for at, label in x_ticks],
        y_ticks=[Tick(y(at), label) for at, label in y_ticks],
        line=line, dots=dots, hidden=len(order) - len(shown),
    )  # fmt: skip


def draw_lines(series: Mapping[str, Sequence[tuple[float, float]]], *, is_share: bool = False) -> LineChart | None:
    """A line through the points (x, y) of each name, x from 0 on; one point alone is a line across. None without any.

    is_share: y is in [0, 1] and shown as per cent, up to 100 %.
    """
    known = {name: [(at, v) for at, v in line if math.isfinite(v)] for name, line in series.items()}
    points = [point for line in known.values() for point in line]
    if not points:
        return None
    width, height, left, right, top, bottom = 560.0, 264.0, 44.0, 530.0, 10.0, 234.0
    x_low, x_high, x_ticks = linear_axis([at for at, _ in points], is_share=False)
    y_low, y_high, y_ticks = linear_axis([v for _, v in points], is_share=is_share)
    x, y = Scale(x_low, x_high, left, right), Scale(y_low, y_high, bottom, top)
    ways = [
        f"M{left:g} {y(line[0][1]):g}H{right:g}" if len(line) == 1
        else "".join(f"{'L' if place else 'M'}{x(at):g} {y(v):g}" for place, (at, v) in enumerate(line))
        for line in known.values()
    ]  # fmt: skip
    return LineChart(
        width, height, left, right, top, bottom,
        [Tick(x(at), label) for at, label in x_ticks], [Tick(y(at), label) for at, label in y_ticks],
        [Line(name, way, number) for number, (name, way) in enumerate(zip(known, ways, strict=True))],
    )  # fmt: skip


def wilson_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion seen in `count` draws."""
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def _spread_labels(marks: Sequence[tuple[float, float, str]]) -> list[LabelledMark]:
    """Labels below and above their marks in turn, and further off where the one before the last is near."""
    placed: list[LabelledMark] = []
    for i, (x, y, text) in enumerate(marks):
        is_crowded = i >= 2 and abs(x - placed[i - 2].x) < 32 and abs(y - placed[i - 2].y) < 16
        offset = (-11 if i % 2 else 20) * (1.8 if is_crowded else 1)
        placed.append(LabelledMark(x, y, text, round(y + offset, 2)))
    return placed


def _numbers(count: int) -> list[int]:
    step = max(1, math.ceil(tick_step(max(count, 2), most=8)))
    return [1, *(epoch for epoch in range(step, count + 1, step) if epoch > 1 and epoch - 1 >= step / 2)]


def _path(values: Sequence[float], x: Scale, y: Scale) -> str:
    parts, pen = [], "M"
    for epoch, value in enumerate(values, start=1):
        if math.isfinite(value):
            parts.append(f"{pen}{x(epoch):g} {y(value):g}")
        pen = "L" if math.isfinite(value) else "M"
    if len(parts) == 1:
        parts.append("h.01")  # a round line cap makes a single epoch a dot
    return "".join(parts)


def _bands(phases: Sequence[str], x: Scale) -> list[Band]:
    bands: list[Band] = []
    for epoch, name in enumerate(phases, start=1):
        if bands and bands[-1].name == name:
            bands[-1] = Band(name, bands[-1].start, x(epoch + 0.5))
        else:
            bands.append(Band(name, x(epoch - 0.5), x(epoch + 0.5)))
    return bands


def _slots(series: Mapping[str, Sequence[float]], steps: Sequence[int], x: Scale, *, is_share: bool) -> list[Slot]:
    def show(value: float) -> str:
        return (f"{value:.1%}" if is_share else f"{value:.4f}") if math.isfinite(value) else "none"

    slots = []
    for epoch, values in enumerate(zip(*series.values(), strict=True), start=1):
        text = ", ".join(f"{name} {show(value)}" for name, value in zip(series, values, strict=True))
        start, end = x(epoch - 0.5), x(epoch + 0.5)
        slots.append(Slot(start, round(end - start, 2), f"step {steps[epoch - 1]}: {text}"))
    return slots
