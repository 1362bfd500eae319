"""A linear head is solved, not trained: the minimum of mean log loss + penalty * ||theta||^2 over all parameters.

The log loss is a goal's: cross-entropy after a softmax, or, of several labels an image, one after each sigmoid, which
are as many regressions that do not know of each other.

That is strictly convex, so there is one minimum, whatever the start, the order of the images or the framework. It is
found by L-BFGS (Liu and Nocedal 1989, SciPy's) in float64, in coordinates in which the problem is nearly round: the
eigenvectors of the features' second moments, each divided by the root of the curvature that the loss can have there.
Of fewer images than channels only the space that they span is searched; outside it the minimum is zero.

A prior may take the place of zero: the penalty is then on the distance to coefficients that are known already ("L2-SP",
Li, Grandvalet and Davoine 2018, arXiv:1802.01483), and all of the above holds for that distance.

Several problems over the same features, such as the folds of a cross-validation, are solved as one, so that each step
reads the features once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import minimize

from multitl.contracts import Goal
from multitl.models.goals import GOALS

ROWS = 8192  # of a block, in a pass over the images to find their directions
RANK = 1e-13  # of the largest eigenvalue: what lies below is rounding
ROUGH, FLOAT32 = 1e-3, 3e-5  # of the gradient's norm at zero: enough to compare losses; what float32 reaches easily
EXACT = 1e-5  # times the penalty: what is left of a gradient, divided by it, bounds the error of the coefficients
POLISHED = 20  # steps at most, once the search has ended
FLATNESS = 1e-6  # what a solution may have at most


@dataclass(frozen=True)
class Samples:
    """What a head is fitted to.

    features: (n, channels) float32, of a size near 1.  targets: (n, classes); of one class an image each row sums to 1.
    weights: (n,), of each row in the mean.  goal: whose log loss it is.  prior: (channels + 1, classes), what the
    coefficients, the bias last, are drawn towards; None for zero.
    """

    features: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    goal: Goal = GOALS["one"]
    prior: np.ndarray | None = None


@dataclass(frozen=True)
class Solution:
    """logits = features @ kernel + bias, kernel (channels, classes), bias (classes,), float64.

    gradient: its norm there, as a share of its norm at zero.
    """

    kernel: np.ndarray
    bias: np.ndarray
    gradient: float


class SoftmaxRegression:
    """The problem over some samples; its coordinates are found once and serve every penalty and every fold."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.basis, self.curvature = _principal_directions(samples.features)
        self.rows = np.concatenate([_with_one(part) @ self.basis for part in _blocks(samples.features)])
        self.known = None  # logits (n, classes) by the prior alone
        if samples.prior is not None:
            self.known = np.concatenate([_with_one(part) @ samples.prior for part in _blocks(samples.features)])

    def solve(self, penalty: float, start: np.ndarray | None = None) -> Solution:
        """The minimum over all samples. penalty: > 0. Raises ArithmeticError if rounding keeps it from being found.

        start: a guess (directions, 1, classes), as `minimise` takes it. The first half of the way is gone in float32.
        """
        shares = self.samples.weights[:, None] / self.samples.weights.sum()
        start, _ = self.minimise(penalty, shares, np.float32, FLOAT32, start)
        theta, gradient = self.minimise(penalty, shares, np.float64, EXACT * min(penalty, 0.01), start)
        if not gradient <= FLATNESS:
            raise ArithmeticError(f"a gradient of {gradient:.1e} of its start is left, with the penalty {penalty:g}")
        theta = self.basis @ theta[:, 0] + (0.0 if self.samples.prior is None else self.samples.prior)
        return Solution(theta[:-1], theta[-1], gradient)

    def coordinates(self, solution: Solution) -> np.ndarray:
        """Of a solution of a problem much like this one, to start from: (directions, 1, classes)."""
        theta = np.vstack([solution.kernel, solution.bias])
        return (self.basis.T @ (theta if self.samples.prior is None else theta - self.samples.prior))[:, None]

    def logits(self, theta: np.ndarray, dtype: type = np.float64) -> np.ndarray:
        """Of each row by each problem (n, problems, classes). theta: as `minimise` gives it."""
        rows: np.ndarray = self.rows.astype(dtype, copy=False)
        found = (rows @ theta.reshape(len(theta), -1).astype(dtype)).reshape(len(rows), *theta.shape[1:])
        return found if self.known is None else found + self.known[:, None].astype(dtype)

    def minimise(
        self, penalty: float, shares: np.ndarray, dtype: type, tolerance: float, start: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """The minimum of each problem, a column of `shares` (n, problems): the weights of the rows, which sum to 1.

        dtype: of the arithmetic over the rows.  tolerance: of the gradient, as a share of what it is at zero.
        start, and the first that is returned: (directions, problems, classes), in the coordinates of the basis, less
        the prior. The second is the gradient that is left, as a share.
        """
        rows: np.ndarray = self.rows.astype(dtype, copy=False)
        weights: np.ndarray = shares[:, :, None].astype(dtype)
        targets = weights * self.samples.targets[:, None, :].astype(dtype)
        shape = (rows.shape[1], targets[0].size)
        goal, classes = self.samples.goal, targets.shape[2]
        scale = 1 / np.sqrt(self.curvature / goal.flatness(classes) + 2 * penalty)[:, None]
        norm = math.inf

        known: np.ndarray | float = 0.0 if self.known is None else self.known[:, None].astype(dtype)

        def objective(flat: np.ndarray, known: np.ndarray | float = known) -> tuple[float, np.ndarray]:
            nonlocal norm
            theta = flat.reshape(shape) * scale
            misfit, residual = goal.misfit(
                (rows @ theta.astype(dtype)).reshape(targets.shape) + known, targets, weights
            )
            gradient = (rows.T @ residual.reshape(len(rows), -1) + 2 * penalty * theta) * scale
            norm = float(np.linalg.norm(gradient))
            return float(penalty * np.square(theta).sum() + misfit), gradient.ravel()

        first = np.zeros(shape) if start is None else start.reshape(shape) / scale
        objective(np.zeros(first.size), 0.0)  # of a good prior the gradient is small from the start
        at_zero = norm or 1.0

        def stop_at_tolerance(_: np.ndarray) -> None:  # SciPy's own test is of the largest component
            if norm <= tolerance * at_zero:
                raise StopIteration

        options = {"maxcor": 12, "gtol": 0.0, "ftol": 0.0, "maxiter": 2000, "maxfun": 4000}
        found = minimize(
            objective, first.ravel(), jac=True, method="L-BFGS-B", options=options, callback=stop_at_tolerance
        )
        flat, left = found.x, found.jac
        for _ in range(POLISHED):  # the loss is level to the last bit long before its gradient is zero
            if np.linalg.norm(left) <= tolerance * at_zero:
                break
            further = objective(flat - left)[1]  # a step of the size that suits these coordinates
            if not np.linalg.norm(further) < np.linalg.norm(left):
                break
            flat, left = flat - left, further
        theta = (flat.reshape(shape) * scale).reshape(-1, *targets.shape[1:])
        return theta, float(np.linalg.norm(left) / at_zero)


def _principal_directions(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors (channels + 1, directions), eigenvalues (directions,) of the second moments, constant included."""
    count, width = features.shape[0], features.shape[1] + 1
    if count < width:  # the same ones, from the smaller matrix
        rows = _with_one(features)
        values, vectors = _leading(rows @ rows.T / count)
        return rows.T @ vectors / np.sqrt(count * values), values
    moments = np.zeros((width, width))
    for part in _blocks(features):
        rows = _with_one(part)
        moments += rows.T @ rows / count
    values, vectors = _leading(moments)
    return vectors, values


def _leading(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and, as columns, eigenvectors of a symmetric matrix, without those that are rounding."""
    values, vectors = eigh(matrix, driver="evd")
    kept = values > RANK * values[-1]
    return values[kept], vectors[:, kept]


def _blocks(features: np.ndarray) -> Iterator[np.ndarray]:
    return (features[first : first + ROWS] for first in range(0, len(features), ROWS))


def _with_one(features: np.ndarray) -> np.ndarray:
    """(n, channels) -> (n, channels + 1) float64: the last is 1, for the bias."""
    return np.concatenate([features, np.ones((len(features), 1))], axis=1, dtype=np.float64)
