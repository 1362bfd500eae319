"""Numbers as bins of about as many images each: what is to be spread evenly, as classes are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FEWEST = 10  # images of a bin, where there are so many


def bins_of(numbers: Sequence[float] | np.ndarray, most: int) -> np.ndarray:
    """A bin for each number (n,), counted from 0 in rising order, at most `most` of them; equal numbers share one."""
    values = np.asarray(numbers, "float64")
    count = max(1, min(most, len(values) // FEWEST))
    edges = np.sort(values)[[len(values) * place // count for place in range(1, count)]]
    return np.searchsorted(edges, values, side="right")
