"""Axes of the report's figures: which values they cover, where their ticks lie, and what these say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_DECADES = 4.0
Ticks = list[tuple[float, str]]  # place in the scale's values, and label


@dataclass(frozen=True)
class Scale:
    """A linear map from data values [low, high] to coordinates [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return round(self.start + share * (self.end - self.start), 2)


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


def tick_step(span: float, most: int = 5) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that covers `span` in at most `most` steps."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power * most >= span * (1 - 1e-9))


def linear_axis(values: Sequence[float], *, is_share: bool) -> tuple[float, float, Ticks]:
    """Lower end, upper end and ticks that cover the finite values."""
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    span = max(1 - min(finite), 0.01) if is_share else max(*finite, 1e-6)
    step = tick_step(span)
    steps = math.ceil(span / step - 1e-9)
    low, high = (max(0.0, 1 - steps * step), 1.0) if is_share else (0.0, steps * step)
    at = [low + i * (high - low) / steps for i in range(steps + 1)]
    return low, high, [(v, _as_percent(v, step) if is_share else f"{v:.{_decimals(step)}f}") for v in at]


def spanning_axis(values: Sequence[float]) -> tuple[float, float, Ticks]:
    """The same for values of any sign, around them as closely as round ticks allow."""
    low, high = min(values), max(values)
    if high <= low:
        low, high = low - max(abs(low), 1.0) / 2, high + max(abs(high), 1.0) / 2
    step = tick_step(high - low, most=6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [(number * step, f"{number * step:.{_decimals(step)}f}") for number in range(first, last + 1)]
    return first * step, last * step, ticks


def log_axis(values: Sequence[float]) -> tuple[float, float, Ticks]:
    """The same in powers of ten, over at most MOST_DECADES below the highest value."""
    positive = [v for v in values if math.isfinite(v) and v > 0]
    high = math.log10(max(positive))
    low = max(math.log10(min(positive)), high - MOST_DECADES)
    factors = (1, 2, 5) if high - low < 2.2 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [(math.log10(f) + power, f"{f * 10.0**power:.6g}") for power in powers for f in factors]
    return low, high, [(at, label) for at, label in ticks if low - 1e-9 <= at <= high + 1e-9]


def span_of(values: Sequence[float]) -> float:
    """The highest finite positive value over the lowest."""
    positive = [v for v in values if math.isfinite(v) and v > 0]
    return max(positive) / min(positive) if positive else 1.0


def lift(value: float, low: float) -> float:
    """log10 of a value, cut off at the axis' lower end; nan where there is none."""
    return max(math.log10(value), low) if value > 0 and math.isfinite(value) else math.nan


def _as_percent(value: float, step: float) -> str:
    return f"{value * 100:.{_decimals(step * 100)}f}%"


def _decimals(step: float) -> int:
    """As few as tell the steps apart."""
    return next((digits for digits in range(12) if abs(round(step, digits) - step) < step * 1e-6), 12)
