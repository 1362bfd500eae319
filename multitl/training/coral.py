"""CORAL: training features whitened, and coloured again as those of another domain are (Sun, Feng and Saenko 2016,
"Correlation Alignment for Unsupervised Domain Adaptation", arXiv:1607.01719, algorithm 1).

In closed form, in float64, on stored features. The paper adds 1 to the covariances' diagonals, of features of unit
variance; here it is a share of the mean variance, so that a backbone's scale does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RIDGE = 0.1  # that share: with fewer images than channels a covariance has no inverse


@dataclass(frozen=True, eq=False)
class Recolouring:
    """Features (n, channels) -> (n, channels): (x - mean) @ matrix + other_mean."""

    mean: np.ndarray
    matrix: np.ndarray
    other_mean: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return ((features - self.mean) @ self.matrix + self.other_mean).astype("float32")


def recolour(source: np.ndarray, target: np.ndarray, ridge: float = RIDGE) -> Recolouring:
    """The map that gives source features (n, channels) mean and, but for the ridge, covariance of the target's."""
    whiten, colour = _power(covariance(source, ridge), -0.5), _power(covariance(target, ridge), 0.5)
    return Recolouring(source.mean(axis=0, dtype="float64"), whiten @ colour, target.mean(axis=0, dtype="float64"))


def covariance(features: np.ndarray, ridge: float) -> np.ndarray:
    """(channels, channels), with a share `ridge` of the mean variance added to each."""
    found = np.cov(features.astype("float64"), rowvar=False, ddof=0)
    return found + (ridge * np.trace(found) / len(found) + np.finfo("float64").tiny) * np.eye(len(found))


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    """Of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, np.finfo("float64").tiny) ** exponent) @ vectors.T
