"""How good a classifier is, from its labels and probabilities alone. Loads no framework.

Point figures come from scikit-learn; intervals from resampling the examples (a percentile bootstrap). An interval says
how far the figure could move with another test set of the same size, not with another training run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from multitl.errors import DataError
from multitl.judging.separation import agreement, mean_of, separation
from multitl.standalone.decisions import decide

BINS = 15  # of the calibration error, as in Guo et al. 2017
TOP_K = 5
LEVEL = 0.95
EPSILON = np.finfo("float64").eps  # of a probability, in the log loss, as in scikit-learn
TOLERANCE = 1e-3  # how far a row of probabilities may be from summing to 1


@dataclass(frozen=True)
class Judged:
    """Every example reduced to what the figures need: arrays (n,), in an order that does not depend on the data's.

    label, predicted: int class indices.  confidence: float in [0, 1], the probability of `predicted`.
    bin: int in [0, BINS), the calibration bin of `confidence`.  classes: how many classes there are.
    """

    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    bin: np.ndarray
    classes: int

    @property
    def correct(self) -> np.ndarray:
        return self.label == self.predicted

    @property
    def excess(self) -> np.ndarray:
        """(n,) confidence minus correctness: averages to 0 where the model is calibrated."""
        return self.confidence - self.correct


@dataclass(frozen=True)
class ReliabilityBin:
    """The examples whose confidence lies in (low, high]: how many, how sure, how often right."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def score(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], seed: int = 0, resamples: int = 1000,
    costs: np.ndarray | None = None,
) -> dict[str, Any]:  # fmt: skip
    """All figures of one split, as plain JSON values without NaN.

    labels: int (n,) in [0, k).  probabilities: float (n, k), rows summing to 1.  class_names: k names.
    costs: see `decisions.decide`, whose answers are judged.

    Macro F1 averages over the classes that occur in the labels or in the predictions (scikit-learn's default): a class
    that is absent from this data and never predicted neither helps nor hurts, one predicted though absent counts 0.
    Undefined precision, recall and F1 count 0. `confusion_matrix` and `per_class` list all k classes, rows are true.
    `roc_auc` and `map` (mean average precision) average over the classes that have both images and others; Cohen's
    `kappa` is agreement beyond chance, `kappa_quadratic` that of grades: see separation.py. None of these four is there
    where it is undefined.
    `ece`: expected calibration error, 15 equal-width bins of confidence (Guo et al. 2017, arXiv:1706.04599).
    `*_ci`: 95 % bootstrap percentile intervals, widened to contain the figure itself where resampling is biased (the
    calibration error of few examples). `top5_accuracy` is there with more than 5 classes only.

    Raises DataError for shapes, labels or rows that cannot be scored.
    """
    labels, probabilities = _checked(labels, probabilities, len(class_names))
    judged = judge(labels, probabilities, costs)
    predicted = decide(probabilities, costs)
    figures = _point_figures(judged)
    intervals = _intervals(judged, figures, seed, resamples)
    result: dict[str, Any] = {"count": len(labels)}
    for name, value in figures.items():
        result |= {name: value, f"{name}_ci": intervals[name]}
    every_class = np.arange(len(class_names))
    if len(class_names) > TOP_K:
        result["top5_accuracy"] = float(_is_among_first(labels, probabilities, TOP_K).mean())
    sure = probabilities[np.arange(len(labels)), labels]
    result["log_loss"] = float(-np.log(sure.clip(EPSILON, 1 - EPSILON)).mean())
    apart = separation(labels, probabilities, predicted)
    ranks = {"roc_auc": mean_of(apart, "roc_auc"), "map": mean_of(apart, "average_precision")}
    ranks |= agreement(labels, predicted, class_names)
    result |= {name: value for name, value in ranks.items() if value is not None}
    result["per_class"] = [row | more for row, more in zip(_per_class(judged, class_names), apart, strict=True)]
    confusion = sklearn_metrics.confusion_matrix(judged.label, judged.predicted, labels=every_class)
    return result | {"confusion_matrix": confusion.tolist()}


def interval(values: np.ndarray, figure: float) -> list[float]:
    """The 95 % percentile interval of a figure from its values on resamples, NaN where one has none; see `score`."""
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [min(float(low), figure), max(float(high), figure)]


def judge(labels: np.ndarray, probabilities: np.ndarray, costs: np.ndarray | None = None) -> Judged:
    """Reduce valid labels (n,) and probabilities (n, k) to predictions, confidences and calibration bins.

    costs: see `decisions.decide`; an answer that is not the likeliest has the confidence of its own probability.
    """
    predicted = decide(probabilities, costs)
    confidence = probabilities[np.arange(len(labels)), predicted]
    # A fixed order, so that listing the same files differently cannot move a bootstrap interval.
    order = np.lexsort((confidence, predicted, labels))
    edges = np.linspace(0, 1, BINS + 1)[1:-1]
    bins = np.digitize(confidence, edges, right=True)
    return Judged(labels[order], predicted[order], confidence[order], bins[order], probabilities.shape[1])


def reliability(judged: Judged) -> list[ReliabilityBin]:
    """The non-empty bins of the reliability diagram, from low confidence to high."""
    counts, confidence, correct = (
        np.bincount(judged.bin, weights=weights, minlength=BINS)
        for weights in (None, judged.confidence, judged.correct)
    )
    return [
        ReliabilityBin(
            i / BINS, (i + 1) / BINS, int(counts[i]), float(confidence[i] / counts[i]), float(correct[i] / counts[i])
        )
        for i in np.flatnonzero(counts)
    ]


def _point_figures(judged: Judged) -> dict[str, float]:
    true, predicted = judged.label, judged.predicted
    return {
        "accuracy": float(sklearn_metrics.accuracy_score(true, predicted)),
        "f1_macro": float(sklearn_metrics.f1_score(true, predicted, average="macro", zero_division=0)),
        "f1_weighted": float(sklearn_metrics.f1_score(true, predicted, average="weighted", zero_division=0)),
        "ece": float(_calibration_error(np.bincount(judged.bin, judged.excess, BINS), len(true))),
    }


def _is_among_first(labels: np.ndarray, probabilities: np.ndarray, most: int) -> np.ndarray:
    """(n,): whether the true class is one of so many likeliest; of two as likely the latter is the first, as in
    scikit-learn's `top_k_accuracy_score`, which sorts each row."""
    own = probabilities[np.arange(len(labels)), labels][:, None]
    before = (probabilities > own).sum(axis=1)
    before += ((probabilities == own) & (np.arange(probabilities.shape[1]) > labels[:, None])).sum(axis=1)
    return before < most


def _per_class(judged: Judged, class_names: Sequence[str]) -> list[dict[str, Any]]:
    columns = sklearn_metrics.precision_recall_fscore_support(
        judged.label, judged.predicted, labels=np.arange(judged.classes), zero_division=0
    )
    return [
        {"class": str(name), "precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, p, r, f, s in zip(class_names, *columns, strict=True)
    ]


def _intervals(judged: Judged, figures: dict[str, float], seed: int, resamples: int) -> dict[str, list[float]]:
    resampled = _resampled_figures(judged, seed, resamples)
    return {name: interval(values, figures[name]) for name, values in resampled.items()}


def _resampled_figures(judged: Judged, seed: int, resamples: int) -> dict[str, np.ndarray]:
    """Figure name -> (resamples,) its value on examples drawn with replacement.

    Only counts are collected in the loop, 10,000 examples in about a tenth of a millisecond; scikit-learn would need
    thousands of times as long.
    """
    random, size, classes = np.random.default_rng(seed), len(judged.label), judged.classes
    correct, excess = judged.correct, judged.excess
    support, predicted, hits = (np.zeros((resamples, classes), np.int64) for _ in range(3))
    gaps = np.zeros((resamples, BINS))
    for i in range(resamples):
        drawn = random.integers(0, size, size)
        label = judged.label[drawn]
        support[i] = np.bincount(label, minlength=classes)
        predicted[i] = np.bincount(judged.predicted[drawn], minlength=classes)
        hits[i] = np.bincount(label[correct[drawn]], minlength=classes)
        gaps[i] = np.bincount(judged.bin[drawn], excess[drawn], BINS)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return {
        "accuracy": hits.sum(axis=1) / size,
        "f1_macro": f1.sum(axis=1) / (support + predicted > 0).sum(axis=1),
        "f1_weighted": (f1 * support).sum(axis=1) / size,
        "ece": _calibration_error(gaps, size),
    }


def _calibration_error(gaps: np.ndarray, size: int) -> np.ndarray:
    """gaps (..., BINS): sums of (confidence - correct) over each bin's examples -> (...)."""
    return np.abs(gaps).sum(axis=-1) / size


def _checked(labels: np.ndarray, probabilities: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Valid labels as int64 (n,) and probabilities as float64 (n, k) whose rows sum to 1 exactly."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] != classes or labels.shape != probabilities.shape[:1]:
        raise _bad("Labels and probabilities do not fit together.", f"labels (n,), probabilities (n, {classes})",
                   f"labels {labels.shape}, probabilities {probabilities.shape}")  # fmt: skip
    if len(labels) == 0:
        raise _bad("There is nothing to score.", "at least one labelled image", "none")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise _bad("A label is out of range.", f"integers from 0 to {classes - 1}", f"{labels.dtype}: {labels}")
    probabilities = probabilities.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf: reported below
        sums = probabilities.sum(axis=1)
    valid = (np.abs(sums - 1) <= TOLERANCE) & (probabilities >= -TOLERANCE).all(axis=1)  # False for nan and inf
    if not valid.all():
        row = int(np.argmin(valid))
        raise _bad("Probabilities do not add up to 1.", "rows of values in [0, 1] that sum to 1",
                   f"row {row}: {probabilities[row]}, sum {sums[row]:g}")  # fmt: skip
    probabilities = np.clip(probabilities, 0, None)
    return labels.astype(np.int64), probabilities / probabilities.sum(axis=1, keepdims=True)


def _bad(problem: str, expected: str, received: str) -> DataError:
    return DataError(
        problem, expected=expected, received=received, fix="pass softmax outputs and the labels they belong to"
    )
