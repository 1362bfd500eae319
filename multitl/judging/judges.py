"""Who judges a run: by one class an image, several labels, or a number. What judging does differently is here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from multitl.contracts import VALUE, Scale
from multitl.judging.costs import cost_figures, cost_matrix
from multitl.judging.label_metrics import best_thresholds, score_labels
from multitl.judging.metrics import score
from multitl.judging.number_metrics import score_numbers
from multitl.judging.predictions import Judged, write_label_predictions, write_number_predictions, write_predictions
from multitl.recipes import Recipe
from multitl.standalone.decisions import decide, reaching


class Judge(Protocol):
    """Of the images of a run. Truth and probabilities: see `contracts.Goal`."""

    def score(self, truth: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
        """The figures of one split."""

    def answer(self, probabilities: np.ndarray) -> dict[str, Any]:
        """What is said of an image, of its probabilities (k,)."""

    def write(self, path: str | os.PathLike[str], rows: Sequence[Judged]) -> None:
        """predictions.csv."""


@dataclass(frozen=True, eq=False)
class ClassJudge:
    """One class an image: the likeliest, or by costs (k, k) the cheapest, see `decisions.decide`."""

    class_names: Sequence[str]
    seed: int
    costs: np.ndarray | None = None

    def score(self, truth: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
        figures = score(truth, probabilities, self.class_names, self.seed, costs=self.costs)
        if self.costs is None:
            return figures
        return figures | cost_figures(truth, probabilities, self.costs, self.class_names, self.seed)

    def answer(self, probabilities: np.ndarray) -> dict[str, Any]:
        best = int(decide(probabilities[np.newaxis], self.costs)[0])
        return {
            "predicted": self.class_names[best],
            "confidence": float(probabilities[best]),
            "probabilities": _by_name(self.class_names, probabilities),
        }

    def write(self, path: str | os.PathLike[str], rows: Sequence[Judged]) -> None:
        named = [(split, image, self.class_names[truth], values) for split, image, truth, values in rows]
        write_predictions(path, named, self.class_names, self.costs)


@dataclass(frozen=True)
class LabelJudge:
    """Several labels an image, each given where its probability reaches its threshold."""

    class_names: Sequence[str]
    seed: int
    thresholds: Sequence[float]

    def score(self, truth: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
        return score_labels(truth, probabilities, self.class_names, self.thresholds, self.seed)

    def answer(self, probabilities: np.ndarray) -> dict[str, Any]:
        """The labels that are given, the likeliest first, and all probabilities."""
        names = [self.class_names[index] for index in reaching(probabilities, self.thresholds)]
        return {"predicted": names, "probabilities": _by_name(self.class_names, probabilities)}

    def write(self, path: str | os.PathLike[str], rows: Sequence[Judged]) -> None:
        write_label_predictions(path, rows, self.class_names, self.thresholds)


@dataclass(frozen=True)
class NumberJudge:
    """A number an image. mean: of the training images."""

    mean: float
    seed: int

    def score(self, truth: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
        return score_numbers(truth, probabilities[:, 0], self.mean, self.seed)

    def answer(self, probabilities: np.ndarray) -> dict[str, Any]:
        return {VALUE: float(probabilities[0])}

    def write(self, path: str | os.PathLike[str], rows: Sequence[Judged]) -> None:
        write_number_predictions(path, rows)


def choose_thresholds(recipe: Recipe, truth: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """Of the labels, on validation images; none where an image has one class or a number."""
    return best_thresholds(truth, probabilities) if recipe.labels == "several" else []


def judge_of(
    recipe: Recipe, class_names: Sequence[str], thresholds: Sequence[float], scale: Scale | None = None
) -> Judge:
    """thresholds: of the labels, if an image may have several.  scale: of numbers. Raises RecipeError for costs of
    other classes.
    """
    if scale:
        return NumberJudge(scale.mean, recipe.seed)
    if recipe.labels == "one":
        return ClassJudge(class_names, recipe.seed, cost_matrix(recipe.costs, class_names))
    return LabelJudge(class_names, recipe.seed, thresholds)


def _by_name(class_names: Sequence[str], probabilities: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(class_names, probabilities, strict=True)}
