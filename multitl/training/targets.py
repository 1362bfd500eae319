"""What training aims at and is judged by: the truth of images, as it is and as targets, and their weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from multitl.class_tables import weights_by_class
from multitl.contracts import Dataset, Goal, Scale, Split
from multitl.models.goals import goal_of
from multitl.recipes import Recipe


def targets_of(dataset: Dataset, recipe: Recipe, splits: Sequence[Split] = ("train",)) -> tuple[np.ndarray, np.ndarray]:
    """Targets (n, classes) and weights (n,) of the images of these splits, float32.

    Weights have the mean 1, so that a penalty and a learning rate mean the same with them and without, and only the
    ratios of a table matter.
    """
    truth, classes = truth_of(dataset, recipe, *splits), len(dataset.class_names)
    targets = goal_for(dataset, recipe).targets_of(truth, classes)
    if recipe.class_weights == "none":
        return targets, np.ones(len(targets), "float32")
    if recipe.class_weights == "balanced":
        by_class = len(truth) / (classes * np.maximum(np.bincount(truth, minlength=classes), 1))
    else:
        by_class = np.array(weights_by_class(recipe.class_weights, dataset.class_names))
        by_class /= by_class[truth].mean()
    return targets, by_class[truth].astype("float32")


def goal_for(dataset: Dataset, recipe: Recipe) -> Goal:
    """The recipe's goal, which standardises numbers by those of the training images."""
    return goal_of(recipe, scale_of(dataset, recipe))


def scale_of(dataset: Dataset, recipe: Recipe) -> Scale | None:
    """Of the training images' numbers, the same to the bit in whatever order they come; None of classes."""
    if recipe.labels != "number":
        return None
    numbers = [float(example.label) for example in dataset.split("train") if not isinstance(example.label, tuple)]
    mean = math.fsum(numbers) / len(numbers)
    return Scale(mean, math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers)))


def truth_of(dataset: Dataset, recipe: Recipe, *splits: Split) -> np.ndarray:
    """What is true of the images of these splits, one split after the other: see `contracts.Goal`."""
    examples = [example for split in splits for example in dataset.split(split)]
    return goal_of(recipe).truth_of(examples, len(dataset.class_names))
