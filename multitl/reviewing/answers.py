"""What is said of each image by a head that has not seen it.

A linear head on the run's own features. Of training and validation images that is out of fold: five fits, each judged
on the fifth that it was not fitted to; the penalty is chosen as for any head. Test images are judged by the fit to all
of the others.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from multitl.models.feature_maps import scaled
from multitl.training.feature_rows import Rows, block_rows, some_of
from multitl.training.large_tasks import draw, is_large
from multitl.training.solved_head import FOLDS, Attempt, Task, assign_folds, attempt


@threadpool_limits.wrap(limits=1, user_api="blas")
def unseen_answers(task: Task, others: Rows) -> tuple[np.ndarray, np.ndarray] | None:
    """Probabilities of the task's images (n, classes) and of others' features (m, channels), none of which are in it.

    None where a fold would leave nothing to fit to. More features than memory should hold are parted, each class
    evenly, and each part is judged by folds of its own.
    """
    parts = _parts_of(task)
    found = np.empty(task.labels.shape)
    sums = np.zeros((len(others), task.labels.shape[1]))
    for number in range(parts.max() + 1):
        rows = np.flatnonzero(parts == number)
        fitted = _fit(replace(task, views=[task.views[0][rows]], labels=task.labels[rows], weights=task.weights[rows]))
        if fitted is None or fitted.answers is None:
            return None
        found[rows] = task.goal.activate(fitted.answers())
        sums += _judge(fitted, others, task)
    return found, sums / (parts.max() + 1)


def _parts_of(task: Task) -> np.ndarray:
    """(n,): which part an image is in; 0 for all that fit into memory."""
    if not is_large(task):
        return np.zeros(len(task.labels), int)
    count = -(-len(task.labels) // len(draw(task).labels))
    return assign_folds(task.goal.kinds(task.labels), count, task.seed)


def _fit(task: Task) -> Attempt | None:
    return (
        attempt("linear", task, scaled(some_of(task.views[0], task.seed)), 0.0) if len(task.labels) >= FOLDS else None
    )


def _judge(fitted: Attempt, features: Rows, task: Task) -> np.ndarray:
    if not len(features):
        return np.empty((0, task.labels.shape[1]))
    solution, step = fitted.solve(), block_rows(features.shape[1])
    blocks = (fitted.fixed(features[first : first + step]) for first in range(0, len(features), step))
    return np.concatenate([task.goal.activate(block @ solution.kernel + solution.bias) for block in blocks])
