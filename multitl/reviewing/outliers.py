"""Images that are like no others: far from their nearest ones, by features (Sun et al. 2022, arXiv:2204.06507)."""

from __future__ import annotations

import numpy as np

from multitl.reviewing.issues import Issue
from multitl.reviewing.neighbours import Neighbours

NEIGHBOURS = 10
FAR_OUT = 3.0  # interquartile ranges above the upper quartile (Tukey 1977)


def find_outliers(neighbours: Neighbours) -> list[Issue]:
    """score: the mean distance to the nearest images, 1 less the cosine, in medians of all images' distances."""
    distances = 1 - neighbours.cosines[:, :NEIGHBOURS].mean(axis=1)
    if len(distances) <= NEIGHBOURS:
        return []
    lower, median, upper = np.quantile(distances, (0.25, 0.5, 0.75))
    far = np.flatnonzero(distances > upper + FAR_OUT * (upper - lower))
    return [Issue("outlier", int(row), float(distances[row] / max(median, 1e-6))) for row in far]
