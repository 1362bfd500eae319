"""Heads fitted to images of two domains, of which one has no labels, and how good they are: on stored features alone.

Judged there and back (reverse validation: Zhong et al. 2010, "Cross validation framework to choose amongst models and
datasets for transfer learning"; Ganin et al. 2016, arXiv:1505.07818, section 5.1.2): a head is fitted to the other
domain's images with the labels that the adapted one gives them, and its log loss is taken on training images that the
adapted one had not seen. What was wrong on the way there is wrong on the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from multitl.contracts import Goal
from multitl.models.feature_maps import scaled
from multitl.models.goals import GOALS
from multitl.training.coral import recolour
from multitl.training.feature_rows import Rows, StoredRows, joined, mapped, some_of
from multitl.training.head_choice import SolvedHead, solve_again
from multitl.training.softmax_regression import SoftmaxRegression, Solution
from multitl.training.solved_head import FOLDS, Task, assign_folds
from multitl.training.transport import MOST_IMAGES, carry_labels, draw_some

NONE, NORM, CORAL, TRANSPORT = "none", "norm", "coral", "transport"
MOST_JUDGED = 2000  # images of each domain by which ways are compared
PENALTY = 1e-3  # of the head on the way back, where that on the way there was trained

Map = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Fitted:
    """solution: of the head's last layer.  bring: training features as that head saw them."""

    solution: Solution
    bring: Map


@threadpool_limits.wrap(limits=1, user_api="blas")
def fit_to_both(kind: str, solved: SolvedHead, task: Task, target: Rows) -> Fitted:
    """The same head as `solved`, for the other domain.

    kind: NONE, fitted as before; CORAL, to features coloured like the others; TRANSPORT, to the others as well.
    task: training features.  target: (m, channels), of the other domain.
    """
    if kind == CORAL:
        some = np.concatenate([some_of(view, task.seed) for view in task.views])
        bring = recolour(some, some_of(target, task.seed))
        return Fitted(solve_again(solved, replace(task, views=[mapped(view, bring) for view in task.views])), bring)
    if kind == TRANSPORT:
        task = _with_carried(task, target)
    return Fitted(solve_again(solved, task), lambda features: features)


def there_and_back(kind: str, solved: SolvedHead, task: Task, target: Rows) -> tuple[float, float]:
    """Log loss and accuracy on the training images, out of fold: fitted without a fold's images, then to the others
    with the labels that this gives, then looked at on that fold. MOST_JUDGED of each domain take part.
    """
    task = _rows(task, draw_some(len(task.labels), MOST_JUDGED, task.seed))
    target = target[draw_some(len(target), MOST_JUDGED, task.seed)]
    folds = assign_folds(task.goal.kinds(task.labels), min(FOLDS, len(task.labels)), task.seed)
    scores = np.empty(task.labels.shape)
    for fold in np.unique(folds):
        held = folds == fold
        there = fit_to_both(kind, solved, _rows(task, ~held), target)
        given = task.goal.activate(_logits(solved, there.solution, target))
        back = solve_again(solved, Task([target], given, np.ones(len(target)), goal=task.goal))
        scores[held] = _logits(solved, back, there.bring(task.views[0][held]))
    losses, accuracy = task.goal.losses_and_accuracy(scores, task.labels)
    return float(losses.mean()), accuracy


@threadpool_limits.wrap(limits=1, user_api="blas")
def and_back(
    given: np.ndarray, target: Rows, held: Rows, labels: np.ndarray, goal: Goal = GOALS["one"]
) -> tuple[float, float]:
    """The same for a head that was trained, and gives `given` (m, classes), as targets: the held images (n, channels)
    are those that it was not trained on, with their targets (n, classes).
    """
    if isinstance(target, StoredRows):
        chosen = draw_some(len(target), MOST_JUDGED, 0)
        target, given = target[chosen], given[chosen]
    fixed = scaled(target)
    task = Task([target], given, np.ones(len(target)), goal=goal)
    back = SoftmaxRegression(task.samples(fixed)).solve(PENALTY)
    losses, accuracy = task.goal.losses_and_accuracy(fixed(held[:]) @ back.kernel + back.bias, labels)
    return float(losses.mean()), accuracy


def _with_carried(task: Task, target: Rows) -> Task:
    """The training images, and those of the other domain with what is carried to them: `MOST_IMAGES` of each."""
    some, others = (draw_some(count, MOST_IMAGES, task.seed) for count in (len(task.labels), len(target)))
    carried = carry_labels(task.views[0][some], task.labels[some], target[others])
    weights = np.full(len(others), task.weights.mean())
    return replace(
        task,
        views=[joined([view, target[others]]) for view in task.views],
        labels=np.concatenate([task.labels, carried]),
        weights=np.concatenate([task.weights, weights]),
    )


def _rows(task: Task, chosen: np.ndarray) -> Task:
    views = [view[chosen] for view in task.views]
    return replace(task, views=views, labels=task.labels[chosen], weights=task.weights[chosen])


def _logits(solved: SolvedHead, solution: Solution, features: np.ndarray) -> np.ndarray:
    return solved.fixed(features) @ solution.kernel + solution.bias
