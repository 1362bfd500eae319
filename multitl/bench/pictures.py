"""Pictures that nobody has to have: the same pixels for every contender, from a seed."""

from __future__ import annotations

import numpy as np

SHAPES = 8  # squares across a picture


def synthetic_pixels(count: int, size: int, seed: int) -> np.ndarray:
    """uint8 (count, size, size, 3): coloured squares and noise, since networks hardly react to noise alone."""
    random = np.random.default_rng(seed)
    squares = random.integers(0, 200, (count, SHAPES, SHAPES, 3), dtype=np.uint8)
    rows = np.arange(size) * SHAPES // size
    return squares[:, rows][:, :, rows] + random.integers(0, 56, (count, size, size, 3), dtype=np.uint8)


def synthetic_labels(count: int, classes: int, seed: int) -> np.ndarray:
    """int64 (count,)."""
    return np.random.default_rng([seed, 1]).integers(0, classes, count)
