"""The head that is not even solved: an image belongs to the class whose mean feature is nearest.

Of features of length 1 the squared distance to a mean m is 1 - 2 x.m + |m|^2, so the classifier is a dense layer; how
far a distance speaks for a class (`scale`) is chosen by the log loss out of fold.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from multitl.models.feature_maps import FeatureMap
from multitl.training.feature_rows import block_rows
from multitl.training.large_tasks import is_large
from multitl.training.softmax_regression import Solution
from multitl.training.solved_head import Attempt, Task

SCALES = tuple(2.0**power for power in range(9))
UNKNOWN = 16.0  # the scale where there are too few images to choose by


def attempt_means(task: Task, fixed: FeatureMap) -> Attempt:
    """fixed: a map to features of length 1."""
    folds, labels = task.folds(), task.all_labels()
    features = _features(task, fixed)
    if len(np.unique(folds)) < 2:
        return Attempt("mean", fixed, 0.0, np.empty(0), 0.0, partial(find_means, task, fixed, UNKNOWN), scale=UNKNOWN)
    scores = np.empty(labels.shape)
    for fold in np.unique(folds):
        one = _means(features[folds != fold], labels[folds != fold], 1.0)
        scores[folds == fold] = _without_absent(features[folds == fold] @ one.kernel + one.bias, labels[folds != fold])
    judged = {scale: task.goal.losses_and_accuracy(scale * scores, labels) for scale in SCALES}
    scale = min(SCALES, key=lambda one: task.by_image(judged[one][0]).mean())
    losses, accuracy = judged[scale]
    finish = partial(find_means, task, fixed, scale)
    return Attempt("mean", fixed, 0.0, task.by_image(losses), accuracy, finish, scale=scale)


def find_means(task: Task, fixed: FeatureMap, scale: float) -> Solution:
    """Of all images: of those that do not fit into memory block by block."""
    if not is_large(task):
        return _means(_features(task, fixed), task.all_labels(), scale)
    step, sums = block_rows(task.views[0].shape[1]), np.zeros((task.views[0].shape[1], task.labels.shape[1]))
    for view in task.views:
        for first in range(0, len(view), step):
            sums += fixed(view[first : first + step]).astype("float64").T @ task.labels[first : first + step]
    return _of_sums(sums, len(task.views) * task.labels.sum(axis=0, dtype="float64"), scale)


def _features(task: Task, fixed: FeatureMap) -> np.ndarray:
    return fixed(np.concatenate([view[:] for view in task.views])).astype("float64")


def _without_absent(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores (n, classes) in which a class without an image among those with `labels` is as far as the furthest: from
    the middle of all, where its mean is said to be, it would get each image that is unlike the others, and rightly so
    wherever the only image of a class is held out.
    """
    furthest = scores.min(axis=1, keepdims=True)
    return np.where(labels.any(axis=0), scores, furthest)


def _means(features: np.ndarray, labels: np.ndarray, scale: float) -> Solution:
    """A class without an image has its mean in the middle of all."""
    return _of_sums(features.T @ labels, labels.sum(axis=0), scale)


def _of_sums(sums: np.ndarray, counts: np.ndarray, scale: float) -> Solution:
    """sums: of each class' features (channels, classes).  counts: of its images (classes,)."""
    means = sums / np.maximum(counts, 1)
    return Solution(scale * means, -scale / 2 * np.square(means).sum(axis=0), 0.0)
