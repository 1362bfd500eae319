"""How fast, and how sure: medians over repetitions, and intervals of their ratios.

A repetition is a process; windows of steps within one share its luck (memory layout, a neighbour's load), so both are
resampled, repetitions first. With three repetitions a plain bootstrap interval is far too narrow: it is widened as
Hesterberg's "expanded percentile interval" (arXiv:1411.5279, section 5.3), whose level follows Student's t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES, LEVEL = 4000, 0.95
Runs = Sequence[Sequence[float]]  # images/s of each window, by repetition


@dataclass(frozen=True)
class Spread:
    """Of repetitions: the median, the least, the most."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Ratio:
    """Of two medians, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 1 out."""
        return self.low > 1 or self.high < 1


def spread(values: Sequence[float]) -> Spread | None:
    """None without values."""
    return Spread(float(np.median(values)), min(values), max(values), len(values)) if len(values) else None


def rate_of(windows: Sequence[float]) -> float:
    """Images/s of one repetition, from those of its windows of equally many images: the harmonic mean."""
    return len(windows) / float(np.sum(1 / np.asarray(windows)))


def ratio(ours: Runs, theirs: Runs, seed: int = 0) -> Ratio | None:
    """How many times as fast the median repetition of `ours` is; None if one side was never measured."""
    if not ours or not theirs:
        return None
    random = np.random.default_rng(seed)
    value = np.median([rate_of(run) for run in ours]) / np.median([rate_of(run) for run in theirs])
    drawn = _resampled(ours, random) / _resampled(theirs, random)
    tail = _tail(min(len(ours), len(theirs)))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Ratio(float(value), float(min(low, value)), float(max(high, value)))


def _resampled(runs: Runs, random: np.random.Generator) -> np.ndarray:
    """RESAMPLES medians."""
    rates = np.stack([_resampled_rates(run, random) for run in runs])  # (runs, resamples)
    chosen = random.integers(0, len(runs), rates.shape)
    return np.median(np.take_along_axis(rates, chosen, axis=0), axis=0)


def _resampled_rates(windows: Sequence[float], random: np.random.Generator) -> np.ndarray:
    seconds = 1 / np.asarray(windows)
    return 1 / seconds[random.integers(0, len(seconds), (RESAMPLES, len(seconds)))].mean(axis=1)


def _tail(count: int) -> float:
    """The share to cut off at each end for `count` repetitions; one alone says nothing of others."""
    alpha = (1 - LEVEL) / 2
    if count < 2:
        return 0.0
    from scipy.stats import norm, t  # a second of work, and an error in a name is to be told before

    return float(norm.cdf(np.sqrt(count / (count - 1)) * t.ppf(alpha, count - 1)))
