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
    matrix = covariance_power(source, ridge, -0.5) @ covariance_power(target, ridge, 0.5)
    return Recolouring(source.mean(axis=0, dtype="float64"), matrix, target.mean(axis=0, dtype="float64"))


def covariance_power(features: np.ndarray, ridge: float, exponent: float) -> np.ndarray:
    """(channels, channels): the covariance, with a share `ridge` of the mean variance added to each, to a power."""
    variances, directions = _principal_axes(features)
    channels = len(directions)
    floor = ridge * variances.sum() / channels + np.finfo("float64").tiny
    rest = floor**exponent  # of directions that no image goes in
    return rest * np.eye(channels) + (directions * ((variances + floor) ** exponent - rest)) @ directions.T


def _principal_axes(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances (k,) along directions (channels, k): all, or of fewer images than channels those that they span."""
    centred = features.astype("float64") - features.mean(axis=0, dtype="float64")
    if len(features) < features.shape[1]:
        _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
        return sizes**2 / len(features), directions.T
    variances, directions = np.linalg.eigh(centred.T @ centred / len(features))
    return np.maximum(variances, 0.0), directions
