"""What mistakes cost: the option's table as a matrix, and what the answers of a run cost on average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from multitl.class_tables import costs_by_class
from multitl.judging.metrics import interval
from multitl.standalone.decisions import decide


def cost_matrix(text: str, class_names: Sequence[str]) -> np.ndarray | None:
    """(k, k): of answering the column's class of an image of the row's class; None without a table.

    Raises RecipeError for a table of other classes.
    """
    if not text:
        return None
    places = {name: place for place, name in enumerate(class_names)}
    matrix = np.zeros((len(class_names), len(class_names)))
    for (true, predicted), cost in costs_by_class(text, class_names).items():
        matrix[places[true], places[predicted]] = cost
    return matrix


def cost_figures(
    labels: np.ndarray,
    probabilities: np.ndarray,
    costs: np.ndarray,
    class_names: Sequence[str],
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Mean costs of an image, each with its 95 % bootstrap interval.

    `cost`: of the cheapest answers, those that are given.  `cost_likeliest`: of the likeliest classes.
    `cost_constant`: of always answering `constant_class`, the one that would have been the cheapest on these images.
    """
    constant = int(costs[labels].mean(axis=0).argmin())
    by_image = {
        "cost": costs[labels, decide(probabilities, costs)],
        "cost_likeliest": costs[labels, decide(probabilities, None)],
        "cost_constant": costs[labels, constant],
    }
    values = np.stack(list(by_image.values()), axis=1)
    values = values[np.lexsort(values.T)]  # the order of the files moves no interval
    means = _resampled_means(values, seed, resamples)
    figures: dict[str, Any] = {}
    for column, (name, found) in enumerate(by_image.items()):
        mean = float(found.mean())
        figures |= {name: mean, f"{name}_ci": interval(means[:, column], mean)}
    return figures | {"constant_class": class_names[constant]}


def _resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """(n, columns) -> (resamples, columns): means over images that are drawn with replacement."""
    random, size = np.random.default_rng(seed), len(values)
    return np.stack([values[random.integers(0, size, size)].mean(axis=0) for _ in range(resamples)])
