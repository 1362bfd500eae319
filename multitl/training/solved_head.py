"""The linear head of a run: its penalty is chosen by cross-validation on the training features, then it is solved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import numpy as np
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from multitl.errors import RunError
from multitl.recipes import Recipe
from multitl.runs.cards import Tried
from multitl.training.softmax_regression import ROUGH, Samples, SoftmaxRegression, Solution

FOLDS = 5
FIRST, STEP = 0.1, 10**0.5  # of the path of penalties
SMALLEST, LARGEST = 1e-6, 10.0
UNKNOWN = 1e-2  # the penalty where there are too few images to choose by
UNSOLVED_L2 = 1e-3  # the penalty of heads that are trained, where none is given


PenaltyPath: TypeAlias = "list[tuple[Tried, np.ndarray]]"  # with each penalty's theta (directions, folds, classes)


@dataclass(frozen=True)
class SolvedHead:
    """tried: in the order of the path; empty where the penalty was given."""

    penalty: float
    solution: Solution
    tried: tuple[Tried, ...]

    def about(self) -> dict[str, Any]:
        """For the card."""
        return {"penalty": self.penalty, "gradient": self.solution.gradient, "tried": list(self.tried)}


def is_solved(recipe: Recipe) -> bool:
    """Whether the head's loss is convex and the same at every step; one without epochs stays as it is drawn."""
    return not recipe.hidden and not recipe.dropout and recipe.head_epochs > 0


@threadpool_limits.wrap(limits=1, user_api="blas")
def solve_head(views: list[np.ndarray], labels: np.ndarray, weights: np.ndarray, penalty: float, size: float,
               smoothing: float, seed: int) -> SolvedHead:  # fmt: skip
    """Fit a linear head to stored features.

    views: one (n, channels) a view of the same images.  labels: one-hot (n, classes).  weights: (n,).
    penalty: 0 to choose it.  size: what the head divides features by.  smoothing: of labels, while fitting.
    Raises RunError where rounding keeps the minimum from being found.

    BLAS computes in one thread: its threads wait for each other where another process holds a core, up to a hundred
    times as long as they compute; and the same sums come out on any number of cores.
    """
    targets = labels * (1 - smoothing) + smoothing / labels.shape[1]
    count = len(views)
    samples = Samples(np.concatenate(views) / np.float32(size), np.tile(targets, (count, 1)), np.tile(weights, count))
    regression = SoftmaxRegression(samples)
    if penalty:
        return SolvedHead(penalty, _solve(regression, penalty), ())
    folds = np.tile(assign_folds(labels.argmax(axis=1), FOLDS, seed), count)
    path = _follow_path(regression, np.tile(labels, (count, 1)), folds)
    if not path:
        return SolvedHead(UNKNOWN, _solve(regression, UNKNOWN), ())
    best, theta = min(path, key=lambda step: step[0]["log_loss"])
    solution = _solve(regression, best["penalty"], theta.mean(axis=1, keepdims=True))
    return SolvedHead(best["penalty"], solution, tuple(tried for tried, _ in path))


def fill_head(head: keras.Model, solution: Solution) -> None:
    """Put the solution into a head without a hidden layer."""
    head.get_layer("logits").set_weights([solution.kernel.astype("float32"), solution.bias.astype("float32")])


def assign_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for each image (n,), 0 to folds - 1: of equal size to one image, each class spread over them evenly."""
    order = np.lexsort((np.random.default_rng(seed).permutation(len(labels)), labels))
    numbers = np.empty(len(labels), int)
    numbers[order] = np.arange(len(labels)) % folds
    return numbers


def _solve(regression: SoftmaxRegression, penalty: float, start: np.ndarray | None = None) -> Solution:
    try:
        return regression.solve(penalty, start)
    except ArithmeticError as error:
        raise RunError(
            f"The head could not be solved: {error}.",
            expected="features and a penalty for which the minimum can be found in float64",
            received=f"l2 = {penalty:g}",
            fix="give a larger one: --l2 0.01; or train it: --dropout 0.1",
        ) from error


def _follow_path(regression: SoftmaxRegression, labels: np.ndarray, folds: np.ndarray) -> PenaltyPath:
    """Penalties downwards from FIRST as long as the loss falls, or else upwards; each starts at the last one's minimum.

    Every fold of a penalty is a problem of its own: fitted to the images of the others, judged on its own. Nothing is
    returned if a fold would have no image to be fitted to.
    """
    is_fitted = folds[:, None] != np.unique(folds)
    shares = np.where(is_fitted, regression.samples.weights[:, None], 0.0)
    if is_fitted.shape[1] < 2 or not shares.any(axis=0).all():
        return []
    shares /= shares.sum(axis=0)

    def walk(penalty: float, step: float, path: PenaltyPath) -> PenaltyPath:
        while SMALLEST <= penalty <= LARGEST:
            start = path[-1][1] if path else None
            theta, _ = regression.minimise(penalty, shares, np.float32, ROUGH, start)
            path.append((_judge(penalty, regression, theta, labels, is_fitted), theta))
            if len(path) > 1 and path[-1][0]["log_loss"] >= path[-2][0]["log_loss"]:
                break
            penalty *= step
        return path

    down = walk(FIRST, 1 / STEP, [])
    return down if len(down) > 2 else [*down, *walk(FIRST * STEP, STEP, down[:1])[1:]]


def _judge(
    penalty: float, regression: SoftmaxRegression, theta: np.ndarray, labels: np.ndarray, is_fitted: np.ndarray
) -> Tried:
    """Each image by the one problem that it is not part of."""
    logits = (regression.rows @ theta.reshape(len(theta), -1)).reshape(*is_fitted.shape, -1)[~is_fitted]
    loss = -(log_softmax(logits, axis=-1) * labels).sum(axis=1)
    is_right = logits.argmax(axis=1) == labels.argmax(axis=1)
    return {
        "penalty": float(f"{penalty:.3g}"),
        "log_loss": float(np.average(loss, weights=regression.samples.weights)),
        "accuracy": float(is_right.mean()),
    }
