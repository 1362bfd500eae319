"""What backbones are compared by on images that their heads were not fitted to, and what could be had without any.

Each goal has its figure of merit: accuracy, the mean average precision of labels, or the share of numbers' variance
that is explained (R2). The more, the better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from multitl.judging.charts import wilson_interval
from multitl.judging.label_metrics import HALF, score_labels
from multitl.judging.number_metrics import score_numbers
from multitl.judging.proportions import baselines

FIGURES = {"one": "accuracy", "several": "map", "number": "r2"}  # by the recipe's `labels`
TITLES = {"accuracy": "accuracy", "map": "mean average precision", "r2": "R2"}  # for people
RESAMPLES = 200  # of an interval


@dataclass(frozen=True)
class Merit:
    """score: of the goal's figure, see FIGURES.  interval: 95 %.  mae: the mean absolute error of numbers, in their
    units; None of classes.
    """

    score: float
    interval: tuple[float, float]
    mae: float | None = None


@dataclass(frozen=True)
class Baseline:
    """What can be said without looking, such as "always cat", and what that gives; see `Merit`."""

    says: str
    score: float
    mae: float | None = None


def merit_of(labels: str, truth: np.ndarray, answers: np.ndarray, seed: int) -> Merit:
    """labels: the recipe's.  truth, answers: see `contracts.Goal`, the answers as probabilities (n, k)."""
    if labels == "one":
        accuracy = float((answers.argmax(axis=1) == truth).mean())
        return Merit(accuracy, wilson_interval(accuracy, len(truth)))
    if labels == "several":
        names = [str(label) for label in range(truth.shape[1])]
        figures = score_labels(truth, answers, names, [HALF] * len(names), seed, RESAMPLES)
        return _merit(figures["map"], figures["map_ci"])
    figures = score_numbers(truth, answers[:, 0], float(truth.mean()), seed, RESAMPLES)
    return _merit(figures["r2"], figures["r2_ci"], figures["mae"])


def baselines_of(labels: str, truth: np.ndarray, class_names: Sequence[str]) -> list[Baseline]:
    """The best constant answer first, then guessing."""
    if labels == "one":
        supports = np.bincount(truth, minlength=len(class_names)).tolist()
        rows = [{"class": name, "support": support} for name, support in zip(class_names, supports, strict=True)]
        known = baselines({"count": len(truth), "per_class": rows})
        return [Baseline(f"always {known.majority}", known.majority_accuracy), Baseline("guessing", known.chance)]
    if labels == "several":
        shares = truth.mean(axis=0)
        return [Baseline("guessing", float(shares[shares > 0].mean()) if shares.any() else 0.0)]
    mean = float(truth.mean())
    return [Baseline(f"always {mean:.4g}", 0.0, float(np.abs(truth - mean).mean()))]


def _merit(score: float | None, interval: Sequence[float] | None, mae: float | None = None) -> Merit:
    """Without a score where no image has a label, or all have one number: then nothing is told apart."""
    low, high = interval or (0.0, 0.0)
    return Merit(score or 0.0, (low, high), mae)
