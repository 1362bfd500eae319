"""The same minimum as softmax_regression.py finds, over features that do not fit into memory.

Each step of L-BFGS is one pass over blocks of images that are read, used and forgotten. Loss and gradient are summed in
float64, block after block in order, so threads change no bit. Where several workers have the images, each passes over
its own blocks, and one sum a step goes over all of them.

The search starts at the minimum of a sample (large_tasks.py), in coordinates in which the sample's second moments make
the problem nearly round, so a few dozen passes end it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import cholesky
from scipy.optimize import minimize

from multitl.models.feature_maps import FeatureMap
from multitl.system.threads import default_threads, map_batches
from multitl.training.feature_rows import Rows, block_rows
from multitl.training.large_tasks import draw
from multitl.training.softmax_regression import (
    FLATNESS,
    FLOAT32,
    POLISHED,
    Coordinates,
    Penalty,
    Solution,
    still_steep,
)
from multitl.training.solved_head import Task

MOST_THREADS = 8  # each holds a block
MOST_PASSES = 500
AIM = FLATNESS / 3

AddUp = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


def alone(own: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """The sums over all workers where there is one."""
    return own


class StreamedRegression:
    """The problem of a task after a fixed map; passes are counted.

    prior: see `Samples`.  rank, add_up: which of `size` workers this is, and each array's sum over all of them; each
    takes every `size`-th block, and all find the same bits.
    """

    def __init__(
        self, task: Task, fixed: FeatureMap, prior: np.ndarray | None = None,
        rank: int = 0, size: int = 1, add_up: AddUp = alone,
    ) -> None:  # fmt: skip
        self._task, self._fixed, self._add_up, self.passes = task, fixed, add_up, 0
        self._moments = _second_moments(draw(task), fixed)
        self._shape = (len(self._moments), task.labels.shape[1])
        self._prior = np.zeros(self._shape) if prior is None else prior
        self._weight = float(task.weights.sum(dtype="float64")) * len(task.views)
        step = block_rows(self._shape[0])
        ranges = [(view, slice(first, first + step)) for view in task.views for first in range(0, len(view), step)]
        self._ranges = ranges[rank::size]

    def solve(self, penalty: Penalty, start: Solution | None = None, tolerance: float = AIM) -> Solution:
        """The minimum over all images. Raises ArithmeticError if rounding keeps it from being found.

        penalty: > 0, of all classes or each.  start: the sample's minimum, or zero.  tolerance: of the gradient, as a
        share of what it is at zero; FLATNESS will do where rounding ends the search before.
        """
        classes = self._shape[1]
        round_out = self._moments / self._task.goal.flatness(classes)
        weights, rest = np.broadcast_to(penalty, classes), np.eye(len(round_out))
        coordinates = Coordinates(lambda one: cholesky(round_out + 2 * one * rest, lower=True), weights)
        norm, at_zero = math.inf, 1.0

        def objective(flat: np.ndarray, dtype: type) -> tuple[float, np.ndarray]:
            nonlocal norm
            theta = coordinates.theta(flat.reshape(self._shape))
            loss, gradient = self._pass(theta + self._prior, dtype)
            gradient = coordinates.gradient(gradient + 2 * weights * theta)
            norm = float(np.linalg.norm(gradient))
            return loss + float((weights * np.square(theta)).sum()), gradient.ravel()

        _, gradient = self._pass(np.zeros(self._shape), np.float32)  # of a good prior it is small from the start
        at_zero = float(np.linalg.norm(coordinates.gradient(gradient))) or 1.0

        def search(flat: np.ndarray, dtype: type, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
            def stop_at_tolerance(_: np.ndarray) -> None:
                if norm <= tolerance * at_zero:
                    raise StopIteration

            options = {"maxcor": 20, "gtol": 0.0, "ftol": 0.0, "maxiter": MOST_PASSES, "maxfun": MOST_PASSES}
            found = minimize(
                objective, flat, (dtype,), jac=True, method="L-BFGS-B", options=options, callback=stop_at_tolerance
            )
            return found.x, found.jac

        theta = np.vstack([start.kernel, start.bias]) - self._prior if start else np.zeros(self._shape)
        flat, _ = search(coordinates.flat(theta).ravel(), np.float32, max(tolerance, FLOAT32))
        flat, left = search(flat, np.float64, tolerance)
        for _ in range(POLISHED):  # the loss is level to the last bit long before its gradient is zero
            if np.linalg.norm(left) <= tolerance * at_zero:
                break
            further = objective(flat - left, np.float64)[1]
            if not np.linalg.norm(further) < np.linalg.norm(left):
                break
            flat, left = flat - left, further
        share = float(np.linalg.norm(left)) / at_zero
        if not share <= max(tolerance, FLATNESS):
            raise ArithmeticError(still_steep(share, penalty))
        theta = coordinates.theta(flat.reshape(self._shape)) + self._prior
        return Solution(theta[:-1], theta[-1], share)

    def _pass(self, theta: np.ndarray, dtype: type) -> tuple[float, np.ndarray]:
        """The mean log loss of all images and its gradient, both float64. theta: (channels + 1, classes), bias last."""
        self.passes += 1
        threads = min(default_threads(), MOST_THREADS)
        theta = theta.astype(dtype)
        total = np.zeros(1 + theta.size)
        parts = map_batches(
            lambda one: self._part(theta, dtype, *one), ([one] for one in self._ranges), threads=threads, ahead=threads
        )
        for (part,) in parts:
            total += part
        total = self._add_up([total])[0] / self._weight
        return float(total[0]), total[1:].reshape(theta.shape)

    def _part(self, theta: np.ndarray, dtype: type, view: Rows, rows: slice) -> np.ndarray:
        """Of one block, loss and gradient in a row, float64. dtype: of the two large products."""
        task = self._task
        features: np.ndarray = self._fixed(view[rows]).astype(dtype, copy=False)
        weights = task.weights[rows, None, None].astype("float64")
        targets = task.goal.smoothed(task.labels[rows], task.smoothing)[:, None] * weights
        logits = (features @ theta[:-1] + theta[-1]).astype("float64")
        loss, residual = task.goal.misfit(logits[:, None], targets, weights)
        kernel = features.T @ residual[:, 0].astype(dtype)
        return np.concatenate([[loss], kernel.ravel(), residual[:, 0].sum(axis=0)], dtype="float64")


def _second_moments(task: Task, fixed: FeatureMap) -> np.ndarray:
    """(channels + 1, channels + 1) of what fits into memory, the constant last, float64."""
    features = fixed(np.concatenate([view[:] for view in task.views]))
    rows = np.concatenate([features, np.ones((len(features), 1), "float32")], axis=1)
    weights = np.tile(task.weights, len(task.views))
    weighted = rows * np.sqrt(weights / weights.mean())[:, None].astype("float32")
    return (weighted.T @ weighted).astype("float64") / len(rows)
