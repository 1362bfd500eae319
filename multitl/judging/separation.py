"""How well each class is told from all others, whatever the threshold; and agreement beyond chance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

NUMBERED = re.compile(r"(\D*?)[ _-]*(\d+(?:\.\d+)?)")  # "3", "grade_3"


def separation(
    labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray | None = None
) -> list[dict[str, float | None]]:
    """Of every class against the rest: area under the ROC curve, average precision, specificity (n,), (n, k) -> k rows.

    Specificity is of the class that is answered, `predicted` (n,) or the one with the largest probability: the share of
    other images that are not called by its name.
    None where the images are all of one kind, so that there is nothing to tell apart.
    """
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    return [
        _one_against_rest(labels == index, probabilities[:, index], predicted == index)
        for index in range(probabilities.shape[1])
    ]


def average_precision(is_true: np.ndarray, probability: np.ndarray) -> float:
    """scikit-learn's, (n,), (n,); rounding lifts its sum of shares above 1."""
    return min(1.0, float(sklearn_metrics.average_precision_score(is_true, probability)))


def mean_of(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """Over the classes that have the figure."""
    values = [row[name] for row in rows if row[name] is not None]
    return float(np.mean(values)) if values else None


def agreement(labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]) -> dict[str, float | None]:
    """Cohen's kappa (1960); weighted by the squared distance of grades too (Cohen 1968), where the classes are grades.

    None where labels and predictions are all of one class: chance alone agrees then.
    """
    found = {"kappa": _kappa(labels, predicted)}
    ranks = grades(class_names)
    if ranks is not None:
        found["kappa_quadratic"] = _kappa(ranks[labels], ranks[predicted], "quadratic")
    return found


def grades(class_names: Sequence[str]) -> np.ndarray | None:
    """The rank (k,) of each class among classes that are called after numbers, such as "0" or "grade_3"; else None.

    Two classes are no grades: their order says nothing that kappa does not.
    """
    parsed = [NUMBERED.fullmatch(name) for name in class_names]
    if len(parsed) < 3 or not all(parsed):
        return None
    prefixes = {one[1] for one in parsed if one}
    numbers = [float(one[2]) for one in parsed if one]
    if len(prefixes) > 1 or len(set(numbers)) < len(numbers):
        return None
    return np.argsort(np.argsort(numbers))


def _one_against_rest(
    is_true: np.ndarray, probability: np.ndarray, is_predicted: np.ndarray
) -> dict[str, float | None]:
    others = ~is_true
    if not is_true.any() or not others.any():
        specificity = float((~is_predicted[others]).mean()) if others.any() else None
        return {"roc_auc": None, "average_precision": None, "specificity": specificity}
    return {
        "roc_auc": float(sklearn_metrics.roc_auc_score(is_true, probability)),
        "average_precision": average_precision(is_true, probability),
        "specificity": float((~is_predicted[others]).mean()),
    }


def _kappa(labels: np.ndarray, predicted: np.ndarray, weights: str | None = None) -> float | None:
    if len(np.union1d(labels, predicted)) < 2:
        return None
    return float(sklearn_metrics.cohen_kappa_score(labels, predicted, weights=weights))
