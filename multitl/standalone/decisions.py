"""What is answered of an image: the likeliest class, or by costs the cheapest one. Goes into classify.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

AS_CHEAP = 1e-9  # of a cost: what differs by less is rounding


def decide(probabilities: np.ndarray, costs: np.ndarray | None) -> np.ndarray:
    """Places (n,) of the classes that are answered, of probabilities (n, k).

    costs: (k, k), of answering the column's class of an image of the row's class: the class with the least expected
    cost is answered (Elkan 2001, "The foundations of cost-sensitive learning"), of several the likeliest.
    """
    if costs is None:
        return probabilities.argmax(axis=1)
    exact = probabilities.astype("float64")
    expected = exact @ costs
    is_cheapest = expected <= expected.min(axis=1, keepdims=True) * (1 + AS_CHEAP)
    return np.where(is_cheapest, exact, -1).argmax(axis=1)


def reaching(probabilities: np.ndarray, thresholds: Sequence[float]) -> list[int]:
    """Places of the labels whose probability (k,) reaches its threshold, in float64; the likeliest first."""
    ranked = [int(index) for index in np.argsort(-probabilities, kind="stable")]
    return [one for one in ranked if float(probabilities[one]) >= thresholds[one]]
