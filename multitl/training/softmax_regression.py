"""A linear head is solved, not trained: the minimum of mean log loss + penalty * ||theta||^2 over all parameters.

The log loss is a goal's: cross-entropy after a softmax, or, of several labels an image, one after each sigmoid, which
are as many regressions that do not know of each other.

That is strictly convex, so there is one minimum, whatever the start, the order of the images or the framework. It is
found by L-BFGS (Liu and Nocedal 1989, SciPy's) in float64, in coordinates in which the problem is nearly round: those
of the Cholesky factor of the features' second moments, each image's times the curvature that its loss has where the
search is, plus the penalty's. Böhning (1992) bounds the curvature once for all; where images are told apart with
confidence it is a small part of that. One matrix serves all classes and folds.
Of fewer images than channels only the space that they span is searched; outside it the minimum is zero.

Labels that do not know of each other may each have a penalty of their own.

A prior may take the place of zero: the penalty is then on the distance to coefficients that are known already ("L2-SP",
Li, Grandvalet and Davoine 2018, arXiv:1802.01483), and all of the above holds for that distance.

Several problems over the same features, such as the folds of a cross-validation, are solved as one, so that each step
reads the features once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeAlias, TypeVar

import numpy as np
from scipy.linalg import cholesky, eigh, solve_triangular
from scipy.optimize import minimize

from multitl.contracts import Goal
from multitl.models.goals import GOALS
from multitl.system.threads import default_threads, map_batches

T = TypeVar("T")
Penalty: TypeAlias = float | tuple[float, ...]  # one for all classes, or one for each

ROWS = 2048  # of a block: sums are taken block after block, whatever the number of threads
RANK = 1e-13  # of the largest eigenvalue: what lies below is rounding
JITTER = 1e-6  # of the trace, at least, on the diagonal of what is factored: float32 knows no less
SKETCH = 1e-2  # of the gradient's norm at zero: near enough to see what the curvature is there
ROUGH, FLOAT32 = 1e-3, 1e-4  # of the gradient's norm at zero: enough to compare losses; what float32 reaches easily
EXACT = 1e-5  # times the penalty: what is left of a gradient, divided by it, bounds the error of the coefficients
ROUNDING = 1e-7  # of a gradient's size at zero: what float32 does not know
MOST_STEPS = 2000
POLISHED = 20  # steps at most, once the search has ended
FLATNESS = 1e-6  # what a solution may have at most
EVERY = slice(None)


def least(penalty: Penalty) -> float:
    return float(np.min(penalty))


def still_steep(gradient: float, penalty: Penalty) -> str:
    """Why a minimum was not found. gradient: what is left, as a share."""
    return f"a gradient of {gradient:.1e} of its start is left, with the penalty {least(penalty):g}"


class Coordinates:
    """Those in which columns of theta (directions, columns) are searched: of each penalty its own.

    factor: penalty -> the lower triangle of the problem's curvature.  penalties: (columns,).
    """

    def __init__(self, factor: Callable[[float], np.ndarray], penalties: np.ndarray) -> None:
        different = np.unique(penalties).tolist()
        columns = [penalties == one for one in different] if len(different) > 1 else [EVERY]
        self._parts = list(zip(columns, map(factor, different), strict=True))

    def theta(self, flat: np.ndarray) -> np.ndarray:
        return self._each(partial(solve_triangular, trans="T", lower=True, check_finite=False), flat)

    def gradient(self, slope: np.ndarray) -> np.ndarray:
        """By these coordinates, of one by theta."""
        return self._each(partial(solve_triangular, lower=True, check_finite=False), slope)

    def flat(self, theta: np.ndarray) -> np.ndarray:
        return self._each(lambda lower, values: lower.T @ values, theta)

    def _each(self, function: Callable[[np.ndarray, np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
        found = np.empty(values.shape)
        for columns, lower in self._parts:
            found[:, columns] = function(lower, values[:, columns])
        return found


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
    """The problem over some samples; its rows serve every penalty and every fold."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        features = samples.features
        self.basis = _span(features) if len(features) <= features.shape[1] else None  # None: of all coordinates
        self.rows = _with_one(features) if self.basis is None else _with_one(features, np.float64) @ self.basis
        self.blocks = [slice(first, first + ROWS) for first in range(0, len(features), ROWS)]
        self.shares = samples.weights.astype("float64") / samples.weights.sum(dtype="float64")
        self.known = None  # logits (n, classes) by the prior alone
        if samples.prior is not None:
            known = [_with_one(features[block], np.float64) @ samples.prior for block in self.blocks]
            self.known = np.concatenate(known)

    def solve(self, penalty: Penalty, start: np.ndarray | None = None) -> Solution:
        """The minimum over all samples. penalty: > 0. Raises ArithmeticError if rounding keeps it from being found.

        start: a guess (directions, 1, classes), as `Problems` takes it. The first half of the way is gone in float32.
        """
        shares = self.shares[:, None]
        rough, exact = (Problems(self, shares, dtype) for dtype in (np.float32, np.float64))
        if start is None:
            start, _ = rough.minimise(penalty, SKETCH)
        around = self.curvature(start)
        start, _ = rough.minimise(penalty, FLOAT32, start, around)
        theta, gradient = exact.minimise(penalty, EXACT * min(least(penalty), 0.01), start, around)
        if not gradient <= FLATNESS:
            raise ArithmeticError(still_steep(gradient, penalty))
        found = theta[:, 0] if self.basis is None else self.basis @ theta[:, 0]
        found = found if self.samples.prior is None else found + self.samples.prior
        return Solution(found[:-1], found[-1], gradient)

    def coordinates(self, solution: Solution) -> np.ndarray:
        """Of a solution of a problem much like this one, to start from: (directions, 1, classes)."""
        theta = np.vstack([solution.kernel, solution.bias])
        theta = theta if self.samples.prior is None else theta - self.samples.prior
        return (theta if self.basis is None else self.basis.T @ theta)[:, None]

    def logits(self, theta: np.ndarray, chosen: slice | np.ndarray = EVERY) -> np.ndarray:
        """Of the chosen rows by each problem (n, problems, classes), float32. theta: as `Problems` gives it."""
        rows = self.rows[chosen].astype("float32", copy=False)
        found = (rows @ theta.reshape(len(theta), -1).astype("float32")).reshape(len(rows), *theta.shape[1:])
        return found if self.known is None else found + self.known[chosen][:, None].astype("float32")

    @cached_property
    def curvature_at_zero(self) -> np.ndarray:
        """See `curvature`."""
        return self.curvature()

    def curvature(self, theta: np.ndarray | None = None) -> np.ndarray:
        """(directions, directions): of the log loss, one for all classes, at the mean of the problems' theta, or about
        at zero."""
        classes, goal = self.samples.targets.shape[1], self.samples.goal
        middle = None if theta is None else theta.mean(axis=1, keepdims=True)

        def part(block: slice) -> np.ndarray:
            bends = 1 / goal.flatness(classes) if middle is None else goal.curvature(self.logits(middle, block)[:, 0])
            weighted = self.rows[block] * np.sqrt(bends * self.shares[block])[:, None].astype(self.rows.dtype)
            return weighted.T @ weighted

        return sum(_in_threads(part, self.blocks), np.zeros((self.rows.shape[1],) * 2))


class Problems:
    """Several problems over the rows of a regression, solved as one; what no penalty changes is made once.

    shares: (n, problems), the weights of the rows in each, which sum to 1.  dtype: of the arithmetic over the rows.
    """

    def __init__(self, regression: SoftmaxRegression, shares: np.ndarray, dtype: type) -> None:
        self._regression, self._dtype = regression, dtype
        self._rows: np.ndarray = regression.rows.astype(dtype, copy=False)
        self._weights: np.ndarray = shares[:, :, None].astype(dtype)
        self._targets = self._weights * regression.samples.targets[:, None, :].astype(dtype)
        nothing: np.ndarray = np.zeros((len(self._rows), 1, 1), dtype)
        self._known = nothing if regression.known is None else regression.known[:, None].astype(dtype)
        self._shape = (self._rows.shape[1], self._targets[0].size)
        self._norms: dict[Penalty, float] = {}
        _, self._slope_at_zero = self._misfit(np.zeros(self._shape), nothing)  # a good prior would leave little of it

    def minimise(
        self, penalty: Penalty, tolerance: float, start: np.ndarray | None = None, around: np.ndarray | None = None
    ) -> tuple[np.ndarray, float]:
        """The minimum of each problem. tolerance: of the gradient, as a share of what it is at zero.

        start, and the first that is returned: (directions, problems, classes), in the coordinates of the rows, less
        the prior. The second is the gradient that is left, as a share.  around: `curvature` where it is searched.
        """
        weights = self._by_column(penalty)
        round_out = self._coordinates(penalty, around)
        at_zero, most = self._norm_at_zero(penalty), MOST_STEPS
        if self._dtype is np.float32:  # the flattest direction is stretched by 1 / sqrt(2 penalty), its rounding too
            tolerance, most = max(tolerance, ROUNDING / math.sqrt(2 * least(penalty))), MOST_STEPS // 10
        norm = math.inf

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal norm
            theta = round_out.theta(flat.reshape(self._shape))
            misfit, slope = self._misfit(theta, self._known)
            gradient = round_out.gradient(slope + 2 * weights * theta)
            norm = float(np.linalg.norm(gradient))
            return misfit + float((weights * np.square(theta)).sum()), gradient.ravel()

        def stop_at_tolerance(_: np.ndarray) -> None:  # SciPy's own test is of the largest component
            if norm <= tolerance * at_zero:
                raise StopIteration

        first = np.zeros(self._shape) if start is None else round_out.flat(start.reshape(self._shape))
        options = {"maxcor": 12, "gtol": 0.0, "ftol": 0.0, "maxiter": most, "maxfun": 2 * most}
        found = minimize(
            objective, first.ravel(), jac=True, method="L-BFGS-B", options=options, callback=stop_at_tolerance
        )
        flat, left = _polish(lambda flat: objective(flat)[1], found.x, found.jac, tolerance * at_zero)
        theta = round_out.theta(flat.reshape(self._shape))
        return theta.reshape(-1, *self._targets.shape[1:]), float(np.linalg.norm(left) / at_zero)

    def _by_column(self, penalty: Penalty) -> np.ndarray:
        return np.tile(np.broadcast_to(penalty, self._targets.shape[2]), self._targets.shape[1])

    def _coordinates(self, penalty: Penalty, around: np.ndarray | None = None) -> Coordinates:
        moments = self._regression.curvature_at_zero if around is None else around
        return Coordinates(partial(_factor, moments), self._by_column(penalty))

    def _norm_at_zero(self, penalty: Penalty) -> float:
        """Of the gradient, in the coordinates of the curvature there: in those of another place, where the loss is
        flatter, it would be as large as one likes."""
        if penalty not in self._norms:
            gradient = self._coordinates(penalty).gradient(self._slope_at_zero)
            self._norms[penalty] = float(np.linalg.norm(gradient))
        return self._norms[penalty] or 1.0

    def _misfit(self, theta: np.ndarray, known: np.ndarray) -> tuple[float, np.ndarray]:
        """The log losses' sum, and its gradient, float64. theta: (directions, problems x classes)."""
        rounded: np.ndarray = theta.astype(self._dtype)
        goal = self._regression.samples.goal

        def part(block: slice) -> tuple[float, np.ndarray]:
            rows, targets = self._rows[block], self._targets[block]
            logits = (rows @ rounded).reshape(targets.shape) + known[block]
            misfit, residual = goal.misfit(logits, targets, self._weights[block])
            return misfit, rows.T @ residual.reshape(len(rows), -1)

        parts = list(_in_threads(part, self._regression.blocks))
        return sum(misfit for misfit, _ in parts), sum((slope for _, slope in parts), np.zeros(self._shape))


def _polish(
    gradient: Callable[[np.ndarray], np.ndarray], flat: np.ndarray, left: np.ndarray, aim: float
) -> tuple[np.ndarray, np.ndarray]:
    """Nearer to the minimum, where the loss is level to the last bit long before its gradient (left) is zero: steps of
    Barzilai and Borwein (1988), which ask for gradients alone. The first is of the size that suits round coordinates.
    """
    best, size = (flat, left), 1.0
    for _ in range(POLISHED):
        if np.linalg.norm(best[1]) <= aim:
            break
        move = -size * left
        flat, further = flat + move, gradient(flat + move)
        bend = float(move @ (further - left))
        if not bend > 0:  # what rounding leaves of a convex loss
            break
        left, size = further, float(move @ move) / bend
        best = min(best, (flat, left), key=lambda one: float(np.linalg.norm(one[1])))
    return best


def _span(features: np.ndarray) -> np.ndarray:
    """Orthonormal directions (channels + 1, k) of the space that fewer images than channels span, the one included."""
    rows = _with_one(features, np.float64)
    values, vectors = eigh(rows @ rows.T, driver="evd")
    kept = values > RANK * values[-1]
    return rows.T @ vectors[:, kept] / np.sqrt(values[kept])


def _factor(moments: np.ndarray, penalty: float) -> np.ndarray:
    """Lower triangular: of the moments and the penalty's curvature."""
    ridge = max(2 * penalty, JITTER * float(np.trace(moments)))
    return cholesky(moments + ridge * np.eye(len(moments)), lower=True, check_finite=False)


def _in_threads(function: Callable[[slice], T], blocks: Sequence[slice]) -> Iterable[T]:
    """In order. BLAS and NumPy let other threads compute meanwhile."""
    if len(blocks) == 1:
        return map(function, blocks)
    threads = min(default_threads(), len(blocks))
    return (found for (found,) in map_batches(function, ([one] for one in blocks), threads=threads, ahead=threads))


def _with_one(features: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """(n, channels) -> (n, channels + 1): the last is 1, for the bias."""
    return np.concatenate([features, np.ones((len(features), 1))], axis=1, dtype=dtype)
