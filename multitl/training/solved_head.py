"""Heads whose last layer is solved: the penalty is chosen by cross-validation on the training features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import keras
import numpy as np

from multitl.contracts import Goal, Peers
from multitl.distribution.peers import ALONE_PEERS
from multitl.errors import RunError
from multitl.models.feature_maps import FeatureMap
from multitl.models.goals import GOALS
from multitl.recipes import Recipe
from multitl.runs.cards import HeadKind, Tried
from multitl.training.feature_rows import Rows
from multitl.training.softmax_regression import (
    ROUGH,
    SKETCH,
    Penalty,
    Problems,
    Samples,
    SoftmaxRegression,
    Solution,
    least,
)

FOLDS = 5
FIRST, STEP = 0.1, 10**0.5  # of the path of penalties
SMALLEST, LARGEST = 1e-6, 10.0
WIDEST = 5.0  # of a coefficient: n images and a penalty of 1 / (2 n WIDEST^2) are a Gaussian prior of that deviation
HOPELESS = 1.02  # times the last one's loss, that of a sketch, which is as rough as that, ends a path
AHEAD = 0.7  # of a step on the path, that the next one is taken to go
UNKNOWN = 1e-2  # the penalty where there are too few images to choose by
UNSOLVED_L2 = 1e-3  # the penalty of heads that are trained, where none is given

Start = TypeVar("Start", contravariant=True)


@dataclass(frozen=True, eq=False)
class Task:
    """What a head is fitted to: stored features.

    views: one (n, channels) a view of the same images.  labels: 0 and 1 (n, classes).  weights: (n,).
    smoothing: of labels, while fitting.  seed: of the folds.  goal: what the labels mean.
    peers: who have the same task, and pass over a part each of features that do not fit into memory.
    """

    views: list[Rows]
    labels: np.ndarray
    weights: np.ndarray
    smoothing: float = 0.0
    seed: int = 0
    goal: Goal = GOALS["one"]
    peers: Peers = ALONE_PEERS

    def samples(self, fixed: FeatureMap, prior: np.ndarray | None = None) -> Samples:
        """Of all views, one after the other. prior: see `Samples`."""
        targets = self.goal.smoothed(self.labels, self.smoothing)
        count = len(self.views)
        mapped = fixed(np.concatenate([view[:] for view in self.views]))
        return Samples(mapped, np.tile(targets, (count, 1)), np.tile(self.weights, count), self.goal, prior)

    def all_labels(self) -> np.ndarray:
        """(views * n, classes), without smoothing."""
        return np.tile(self.labels, (len(self.views), 1))

    def folds(self) -> np.ndarray:
        """(views * n,): views of an image are in one fold."""
        return np.tile(assign_folds(self.goal.kinds(self.labels), FOLDS, self.seed), len(self.views))

    def by_image(self, losses: np.ndarray) -> np.ndarray:
        """(views * n,) -> (n,): the views' mean, weighted, so that the mean of all is the loss that is minimised."""
        return losses.reshape(len(self.views), -1).mean(axis=0) * self.weights / self.weights.mean()


@dataclass(frozen=True, eq=False)
class Attempt:
    """A head that could be had, and how good it is out of fold.

    losses: (n,), as `Task.by_image` gives them; empty where nothing was to be chosen.  scale: see `SolvedHead`
    in cards.py.  solve: gives the head fitted to all images.  answers: gives what is said of each row by the fit that
    has not seen it, as logits (views * n, classes); None where there are none.  penalty: the best one for all classes;
    penalties: of labels that each have their own, else None.
    """

    kind: HeadKind
    fixed: FeatureMap
    penalty: float
    losses: np.ndarray
    accuracy: float
    solve: Callable[[], Solution]
    tried: tuple[Tried, ...] = ()
    scale: float | None = None
    answers: Callable[[], np.ndarray] | None = None
    penalties: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """Of a path: a penalty, the loss of each row out of fold, theta (directions, folds, classes).

    parts: the mean losses of what a penalty is chosen for: each label, or all classes together (1,).
    """

    tried: Tried
    losses: np.ndarray
    theta: np.ndarray
    parts: np.ndarray


class Regression(Protocol[Start]):
    """What has a minimum: softmax_regression.py, streamed_regression.py."""

    def solve(self, penalty: Penalty, start: Start | None = None) -> Solution: ...


def is_solved(recipe: Recipe) -> bool:
    """Whether the head's loss is convex and the same at every step; one without epochs stays as it is drawn."""
    return not recipe.hidden and not recipe.dropout and recipe.head_epochs > 0


def attempt(
    kind: HeadKind, task: Task, fixed: FeatureMap, penalty: float, scale: float | None = None,
    prior: np.ndarray | None = None,
) -> Attempt:  # fmt: skip
    """A linear head on mapped features. penalty: 0 to choose it.  prior: see `Samples`. Its `solve` raises RunError
    where rounding keeps the minimum from being found.
    """
    regression, folds = SoftmaxRegression(task.samples(fixed, prior)), task.folds()
    path = [] if penalty else _follow_path(regression, task.all_labels(), folds)
    if not path:
        penalty = penalty or UNKNOWN
        return Attempt(kind, fixed, penalty, np.empty(0), 0.0, partial(solve, regression, penalty), (), scale)
    best, penalties = _best_of_each(path, regression, task.all_labels(), folds)
    penalty = min((step.tried for step in path), key=lambda tried: tried["log_loss"])["penalty"]
    finish = partial(solve, regression, penalties or penalty, best.theta.mean(axis=1, keepdims=True))
    tried, answers = tuple(step.tried for step in path), partial(_answers, regression, best.theta, folds)
    losses, accuracy = task.by_image(best.losses), best.tried["accuracy"]
    return Attempt(kind, fixed, penalty, losses, accuracy, finish, tried, scale, answers, penalties)


def fill_head(head: keras.Model, solution: Solution) -> None:
    """Put the solution into a head without a hidden layer."""
    head.get_layer("logits").set_weights([solution.kernel.astype("float32"), solution.bias.astype("float32")])


def assign_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for each image (n,), 0 to folds - 1: of equal size to one image, each class spread over them evenly."""
    order = np.lexsort((np.random.default_rng(seed).permutation(len(labels)), labels))
    numbers = np.empty(len(labels), int)
    numbers[order] = np.arange(len(labels)) % folds
    return numbers


def solve(regression: Regression[Start], penalty: Penalty, start: Start | None = None) -> Solution:
    """Its minimum; a RunError says what to do where rounding keeps the minimum from being found."""
    try:
        return regression.solve(penalty, start)
    except ArithmeticError as error:
        raise RunError(
            f"The head could not be solved: {error}.",
            expected="features and a penalty for which the minimum can be found in float64",
            received=f"l2 = {least(penalty):g}",
            fix="give a larger one: --l2 0.01; or train it: --dropout 0.1",
        ) from error


def _follow_path(regression: SoftmaxRegression, labels: np.ndarray, folds: np.ndarray) -> list[Step]:
    """Penalties downwards from FIRST as long as the loss falls, or else upwards; each starts at the last one's minimum.
    Where classes are apart the loss falls for ever, so it ends where coefficients may be as large as any would be.
    Labels that each have a penalty go on as long as the loss of one falls, and both ways if one is best where they
    start.

    Every fold of a penalty is a problem of its own: fitted to the images of the others, judged on its own. Nothing is
    returned if a fold would have no image to be fitted to.
    """
    is_fitted = _is_fitted(folds)
    shares = np.where(is_fitted, regression.samples.weights[:, None], 0.0)
    if is_fitted.shape[1] < 2 or not shares.any(axis=0).all():
        return []
    shares /= shares.sum(axis=0)
    problems, smallest = Problems(regression, shares, np.float32), max(SMALLEST, 1 / (2 * len(labels) * WIDEST**2))

    def step(penalty: float, tolerance: float, start: np.ndarray | None, around: np.ndarray | None) -> Step:
        theta, _ = problems.minimise(penalty, tolerance, start, around)
        return _judge(penalty, regression, theta, labels, folds)

    def walk(penalty: float, factor: float, path: list[Step]) -> list[Step]:
        while smallest <= penalty <= LARGEST:
            start, around = None, None
            if path:
                around = regression.curvature(path[-1].theta)
                sketch = step(penalty, SKETCH, _foresee([one.theta for one in path]), around)
                if (sketch.parts > HOPELESS * path[-1].parts).all():
                    return [*path, sketch]
                start = sketch.theta
            # the smaller the penalty, the flatter the loss, and the further off is what leaves the same gradient
            path = [*path, step(penalty, ROUGH * min(1, penalty / FIRST) ** 0.5, start, around)]
            if len(path) > 1 and (path[-1].parts >= path[-2].parts).all():
                break
            penalty *= factor
        return path

    down = walk(FIRST, 1 / STEP, [])
    is_first_best = np.argmin([step.parts for step in down], axis=0) == 0
    return down if len(down) > 2 and not is_first_best.any() else [*down, *walk(FIRST * STEP, STEP, down[:1])[1:]]


def _best_of_each(
    path: Sequence[Step], regression: SoftmaxRegression, labels: np.ndarray, folds: np.ndarray
) -> tuple[Step, tuple[float, ...] | None]:
    """What each label's best penalty gives together, and these penalties; None where one is for all."""
    best = [path[place] for place in np.argmin([step.parts for step in path], axis=0)]
    if len(best) == 1:
        return best[0], None
    theta = np.stack([step.theta[:, :, label] for label, step in enumerate(best)], axis=2)
    penalties = tuple(step.tried["penalty"] for step in best)
    return _judge(penalties[0], regression, theta, labels, folds), penalties


def _foresee(thetas: Sequence[np.ndarray]) -> np.ndarray:
    """About where the next minimum of a path lies: as the last step went, and a little less far."""
    return thetas[-1] + AHEAD * (thetas[-1] - thetas[-2]) if len(thetas) > 1 else thetas[-1]


def _judge(
    penalty: float, regression: SoftmaxRegression, theta: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> Step:
    answers, goal, weights = _answers(regression, theta, folds), regression.samples.goal, regression.samples.weights
    losses, accuracy = goal.losses_and_accuracy(answers, labels)
    log_loss = float(np.average(losses, weights=weights))
    of_labels = goal.label_losses(answers, labels)
    parts = np.array([log_loss]) if of_labels is None else np.average(of_labels, axis=0, weights=weights)
    return Step({"penalty": float(f"{penalty:.3g}"), "log_loss": log_loss, "accuracy": accuracy}, losses, theta, parts)


def _answers(regression: SoftmaxRegression, theta: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Logits of each row by the one problem that it is not part of (n, classes)."""
    logits = np.empty((len(folds), theta.shape[2]))
    for place, fold in enumerate(np.unique(folds)):
        logits[folds == fold] = regression.logits(theta[:, [place]], folds == fold)[:, 0]
    return logits


def _is_fitted(folds: np.ndarray) -> np.ndarray:
    """Whether a row is part of a problem, of which there is one for each fold (n, problems)."""
    return folds[:, None] != np.unique(folds)
