"""Which images lie nearest to each, by the directions of their features from the mean of all; block by block.

Time goes with the square of the number of images: about a minute of a core for 50,000 of 1,280 channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multitl.training.feature_rows import Rows, block_rows

BLOCK = 4096  # rows at most


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest first. cosines: (n, k), of the two directions; -1 where there are fewer.  places: (n, k), indices."""

    cosines: np.ndarray
    places: np.ndarray


def centre_of(rows: Rows) -> np.ndarray:
    """The mean of all (channels,)."""
    step = block_rows(rows.shape[1])
    sums = [rows[first : first + step].sum(axis=0, dtype="float64") for first in range(0, len(rows), step)]
    return np.sum(sums, axis=0) / max(len(rows), 1)


def nearest(rows: Rows, known: Rows, count: int, centre: np.ndarray | None = None) -> Neighbours:
    """Of each of `rows` the nearest of `known`; if these are the same object, not itself. centre: by itself none."""
    centre = np.zeros(rows.shape[1]) if centre is None else centre
    step, cosines, places = min(BLOCK, block_rows(rows.shape[1])), [], []
    for first in range(0, len(rows), step):
        block = directions(rows[first : first + step], centre)
        best = Neighbours(np.full((len(block), count), -1.0, "float32"), np.zeros((len(block), count), int))
        for start in range(0, len(known), step):
            found = block @ directions(known[start : start + step], centre).T
            if rows is known and start == first:
                np.fill_diagonal(found, -1.0)
            best = _best(best, found, start)
        cosines.append(best.cosines)
        places.append(best.places)
    empty = np.empty((0, count))
    return Neighbours(np.concatenate(cosines or [empty]), np.concatenate(places or [empty.astype(int)]))


def directions(features: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """From the centre, of length 1."""
    values = (features - centre).astype("float32")
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _best(known: Neighbours, found: np.ndarray, start: int) -> Neighbours:
    """Of what was known, and what was found from the column `start` on."""
    count = known.cosines.shape[1]
    columns = np.argpartition(-found, min(count, found.shape[1]) - 1, axis=1)[:, :count]
    cosines = np.concatenate([known.cosines, np.take_along_axis(found, columns, axis=1)], axis=1)
    places = np.concatenate([known.places, columns + start], axis=1)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return Neighbours(np.take_along_axis(cosines, order, axis=1), np.take_along_axis(places, order, axis=1))
