"""How good a classifier of several labels an image is, from truth and probabilities alone. Loads no framework.

Point figures come from scikit-learn; intervals from resampling the images (a percentile bootstrap), as in metrics.py.
A label is given to an image where its probability reaches the label's threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from multitl.errors import DataError
from multitl.judging.metrics import interval
from multitl.judging.separation import areas, mean_of

HALF = 0.5  # the threshold of a label that no validation image has
MOST_NUMBERS = 3 * 10**8  # resamples x images x labels: more are a minute
AT_ONCE = 10**7  # resamples x images that are held at once
FEWEST_RESAMPLES = 100


def best_thresholds(truth: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """For each label the threshold at which F1 is highest; of several the one nearest to one half.

    truth: bool (n, k).  probabilities: (n, k). Thresholds lie halfway between two probabilities that differ.
    """
    return [_best_threshold(*columns) for columns in zip(truth.T, probabilities.T.astype("float64"), strict=True)]


def _best_threshold(truth: np.ndarray, probabilities: np.ndarray) -> float:
    if not truth.any():
        return HALF
    order, ends = _ranked(probabilities)
    ranked = np.append(probabilities[order], 0.0)
    f1 = 2 * truth[order].cumsum()[ends] / (ends + 1 + truth.sum())
    thresholds = (ranked[ends] + ranked[ends + 1]) / 2
    best = np.lexsort((np.abs(thresholds - HALF), -f1))[0]
    return float(thresholds[best])


def score_labels(
    truth: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], thresholds: Sequence[float],
    seed: int = 0, resamples: int = 1000,
) -> dict[str, Any]:  # fmt: skip
    """All figures of one split, as plain JSON values without NaN.

    truth: bool (n, k).  probabilities: (n, k) in [0, 1].  class_names: the k labels.  thresholds: one a label.

    `map` is the mean of the labels' average precisions, `roc_auc` that of their areas under the ROC curve; both over
    the labels for which there is one, None if there is none: some images have to have a label, and for the area some
    must not. `f1_macro` averages over labels that occur in truth or answers, `f1_micro` is of all answers together.
    `subset_accuracy`: images whose labels are all right. `hamming_loss`: wrong answers, of all. `log_loss`: of an image
    the sum over labels. `*_ci`: 95 % bootstrap percentile intervals, widened to contain the figure itself.

    Raises DataError for shapes or numbers that cannot be scored.
    """
    probabilities = _checked(truth, probabilities, class_names)
    given = probabilities >= np.asarray(thresholds)
    order = np.lexsort((*probabilities.T, *truth.T))  # in which the images come is not to move an interval
    truth, given, probabilities = truth[order], given[order], probabilities[order]
    rows = [
        _describe_label(*columns)
        for columns in zip(class_names, thresholds, truth.T, given.T, probabilities.T, strict=True)
    ]
    figures = _point_figures(truth, given, rows)
    resamples = min(resamples, max(FEWEST_RESAMPLES, MOST_NUMBERS // truth.size))
    intervals = _intervals(truth, given, probabilities, figures, seed, resamples)
    result: dict[str, Any] = {"count": len(truth)}
    for name, value in figures.items():
        result |= {name: value, f"{name}_ci": intervals[name]}
    result["roc_auc"] = mean_of(rows, "roc_auc")
    result["log_loss"] = float(log_losses(truth, probabilities).mean())
    return result | {"per_label": rows}


def _describe_label(
    name: str, threshold: float, truth: np.ndarray, given: np.ndarray, probabilities: np.ndarray
) -> dict[str, Any]:
    """Figures of one label, and its two-by-two table: hits, false alarms, misses, and images rightly without it."""
    hits, alarms, misses = int((truth & given).sum()), int((given & ~truth).sum()), int((truth & ~given).sum())
    apart = areas(truth, probabilities)
    if truth.all():  # each answer is right, whatever the threshold
        apart["average_precision"] = 1.0
    return {
        "label": str(name),
        "threshold": float(threshold),
        **apart,
        "f1": 2 * hits / max(1, 2 * hits + alarms + misses),
        "precision": hits / max(1, hits + alarms),
        "recall": hits / max(1, hits + misses),
        "support": hits + misses,
        "hits": hits,
        "false_alarms": alarms,
        "misses": misses,
        "rightly_without": len(truth) - hits - alarms - misses,
    }


def _point_figures(truth: np.ndarray, given: np.ndarray, rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    occurs = np.flatnonzero((truth | given).any(axis=0))
    f1 = {
        average: float(sklearn_metrics.f1_score(truth, given, labels=occurs, average=average, zero_division=0))
        if len(occurs)
        else 0.0
        for average in ("macro", "micro")
    }
    return {
        "map": mean_of(rows, "average_precision"),
        "f1_macro": f1["macro"],
        "f1_micro": f1["micro"],
        "subset_accuracy": float(sklearn_metrics.accuracy_score(truth, given)),
        "hamming_loss": float(sklearn_metrics.hamming_loss(truth, given)),
    }


def _intervals(
    truth: np.ndarray, given: np.ndarray, probabilities: np.ndarray, figures: dict[str, float | None], seed: int,
    resamples: int,
) -> dict[str, list[float] | None]:  # fmt: skip
    draws, at_once = drawn(len(truth), seed, resamples), max(1, AT_ONCE // len(truth))
    parts = [
        resampled_figures(truth, given, probabilities, np.stack(weights))
        for weights in iter(lambda: list(islice(draws, at_once)), [])
    ]
    found: dict[str, list[float] | None] = {}
    for name in parts[0]:
        figure = figures[name]
        found[name] = None if figure is None else interval(np.concatenate([part[name] for part in parts]), figure)
    return found


def drawn(count: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """How often each of `count` images was drawn, with replacement: (count,) float32, resample by resample."""
    random = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(random.integers(0, count, count), minlength=count).astype("float32")


def resampled_figures(
    truth: np.ndarray, given: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Figure name -> (resamples,); nan where a resample has no label at all. weights: (resamples, n)."""
    count = weights.shape[1]
    hits, answers, support = (weights @ one.astype("float32") for one in (truth & given, given, truth))
    f1 = 2 * hits / np.maximum(answers + support, 1)
    precisions = np.stack(
        [average_precisions(*columns, weights) for columns in zip(truth.T, probabilities.T, strict=True)]
    )
    known = ~np.isnan(precisions)
    wrong = (truth != given).astype("float32")
    return {
        "map": np.where(known, precisions, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan),
        "f1_macro": f1.sum(axis=1) / np.maximum((answers + support > 0).sum(axis=1), 1),
        "f1_micro": 2 * hits.sum(axis=1) / np.maximum((answers + support).sum(axis=1), 1),
        "subset_accuracy": weights @ (~wrong.any(axis=1)).astype("float32") / count,
        "hamming_loss": weights @ wrong.mean(axis=1) / count,
    }


def average_precisions(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The average precision of one label in each resample (resamples,), nan where no image has it.

    As scikit-learn's: precision at each threshold, times the recall gained there. weights: (resamples, n).
    """
    order, ends = _ranked(probabilities)
    ranked = weights[:, order]
    hits = (ranked * truth[order]).cumsum(axis=1)[:, ends]
    precision = hits / np.maximum(ranked.cumsum(axis=1)[:, ends], 1)
    gained = np.diff(hits, axis=1, prepend=0)
    return np.minimum(1, (gained * precision).sum(axis=1) / np.where(hits[:, -1] > 0, hits[:, -1], np.nan))


def _ranked(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions from the highest probability down, and where in that order a run of equal ones ends."""
    order = np.argsort(-probabilities, kind="stable")
    values = probabilities[order]
    return order, np.flatnonzero(np.append(values[1:] != values[:-1], True))


def log_losses(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(n,): of each image the sum over its labels."""
    return -np.log(np.maximum(np.where(truth, probabilities, 1 - probabilities), 1e-12)).sum(axis=1)


def _checked(truth: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """The probabilities in float64."""
    values = np.asarray(probabilities, "float64")
    if values.ndim != 2 or values.shape != truth.shape or values.shape[1] != len(class_names):
        raise _bad(f"(n, {len(class_names)}) of both", f"truth {truth.shape}, probabilities {values.shape}")
    if not len(values):
        raise _bad("at least one labelled image", "none")
    if not ((values >= 0) & (values <= 1)).all():  # False for nan
        raise _bad("probabilities in [0, 1]", f"from {values.min()} to {values.max()}")
    return values


def _bad(expected: str, received: str) -> DataError:
    return DataError(
        "These labels and probabilities cannot be scored.",
        expected=expected,
        received=received,
        fix="pass sigmoid outputs and the labels they belong to",
    )
