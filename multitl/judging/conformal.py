"""The classes that an image may well be of: sets that hold the true class as often as they promise.

Split conformal prediction with the probability of the true class as the score (Sadinle et al. 2019,
arXiv:1609.00451): of images of the same kind as those of validation, whatever the network is like, the set holds the
true class for a share of at least `COVERAGE`, on average over draws of both. Nearly: the same images chose the trial
that is kept and its temperature.
"""

from __future__ import annotations

import math

import numpy as np

from multitl.standalone.decisions import reaching

COVERAGE = 0.9


def least_plausible(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The probability from which a class is in the set; 0, so that each is, for too few images to promise anything.

    truth: (n,) classes of images that the network was not trained on.  probabilities: (n, k).
    """
    given = np.sort(probabilities[np.arange(len(truth)), truth].astype("float64"))[::-1]
    needed = math.ceil((len(given) + 1) * COVERAGE)
    return float(given[needed - 1]) if 0 < needed <= len(given) else 0.0


def plausible(probabilities: np.ndarray, least: float) -> list[int]:
    """Places of the classes in the set, the likeliest first, of probabilities (k,). It is never empty."""
    least = min(least, float(probabilities.max()))
    return reaching(probabilities, [least] * len(probabilities))


def describe_sets(truth: np.ndarray, probabilities: np.ndarray, least: float) -> tuple[float, float]:
    """The share of images whose set holds the true class, and how many classes a set has on average."""
    exact = probabilities.astype("float64")
    is_in = exact >= np.minimum(least, exact.max(axis=1, keepdims=True))
    return float(is_in[np.arange(len(truth)), truth].mean()), float(is_in.sum(axis=1).mean())
