"""How good a prediction of numbers is, from what is true and what was said alone. Loads no framework.

Intervals come from resampling the images (a percentile bootstrap), as in metrics.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from multitl.errors import DataError
from multitl.judging.metrics import interval

MOST_NUMBERS = 10**8  # resamples x images: more are a minute
FEWEST_RESAMPLES = 100
AT_ONCE = 10**7  # resamples x images that are held at once


def score_numbers(
    truth: np.ndarray, said: np.ndarray, mean: float, seed: int = 0, resamples: int = 1000
) -> dict[str, Any]:
    """All figures of one split, as plain JSON values without NaN.

    truth, said: (n,), in the same units.  mean: of the training images' numbers, which is what to say without looking.

    `mae` is the mean absolute error, `rmse` the root of the mean squared one, `median_ae` the median absolute one; `r2`
    the share of the variance that is explained, below 0 where saying the mean of these images is better, None where
    they all have the same number. `bias` is the mean of what was said minus what is true. `always_mean` has the errors
    of whoever always says `mean`. `*_ci`: 95 % bootstrap percentile intervals, widened to contain the figure itself.

    Raises DataError for shapes or numbers that cannot be scored.
    """
    true, values = _checked(truth, said)
    order = np.lexsort((values, true))  # in which the images come is not to move an interval
    true, errors = true[order], values[order] - true[order]
    figures = {name: column[0] for name, column in _figures(true, errors, np.arange(len(true))[None]).items()}
    resamples = min(resamples, max(FEWEST_RESAMPLES, MOST_NUMBERS // len(true)))
    random, at_once = np.random.default_rng(seed), max(1, AT_ONCE // len(true))
    counts = [min(at_once, resamples - first) for first in range(0, resamples, at_once)]
    parts = [_figures(true, errors, random.integers(0, len(true), (count, len(true)))) for count in counts]
    result: dict[str, Any] = {"count": len(true)}
    for name, figure in figures.items():
        column, value = np.concatenate([part[name] for part in parts]), float(figure)
        known = np.isfinite(value)
        result |= {name: value if known else None, f"{name}_ci": interval(column, value) if known else None}
    missed = np.abs(true - mean)
    baseline = {"value": mean, "mae": float(missed.mean()), "rmse": float(np.sqrt(np.square(missed).mean()))}
    return result | {"bias": float(errors.mean()), "always_mean": baseline}


def _figures(true: np.ndarray, errors: np.ndarray, drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> (resamples,); nan where all that was drawn has one number. drawn: indices (resamples, n)."""
    missed = np.abs(errors)[drawn]
    squares = np.square(missed).mean(axis=1)
    spread = true[drawn].var(axis=1)
    return {
        "mae": missed.mean(axis=1),
        "rmse": np.sqrt(squares),
        "r2": 1 - squares / np.where(spread > 0, spread, np.nan),
        "median_ae": np.median(missed, axis=1),
    }


def _checked(truth: np.ndarray, said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64."""
    true, values = np.asarray(truth, "float64"), np.asarray(said, "float64")
    if true.ndim != 1 or true.shape != values.shape or not len(true):
        raise _bad("(n,) of both, of one image at least", f"truth {true.shape}, said {values.shape}")
    if not (np.isfinite(true).all() and np.isfinite(values).all()):
        raise _bad("finite numbers", "others")
    return true, values


def _bad(expected: str, received: str) -> DataError:
    return DataError(
        "These numbers cannot be scored.",
        expected=expected,
        received=received,
        fix="pass what the model says and the numbers that are true",
    )
