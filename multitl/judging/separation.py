"""How well each class is told from all others, whatever the threshold; and agreement beyond chance.

Figures of a class are scikit-learn's, computed from the ranks of its own images alone: of a thousand classes that takes
a second where scikit-learn, class by class, takes half a minute.
"""

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
    count, classes = probabilities.shape
    others = count - np.bincount(labels, minlength=classes)
    rightly_not_called = others - np.bincount(predicted[predicted != labels], minlength=classes)
    return [
        {
            **areas(labels == index, probabilities[:, index]),
            "specificity": float(rightly_not_called[index] / others[index]) if others[index] else None,
        }
        for index in range(classes)
    ]


def areas(is_true: np.ndarray, probability: np.ndarray) -> dict[str, float | None]:
    """Of one class against the rest, (n,) bool and (n,): the area under the ROC curve and the average precision.

    An image of the class is above the share of others that is less probable, and of those that are as probable half;
    the area is the mean (Hanley and McNeil 1982). Precision is taken at the probability of each image of the class.
    None where all images are of one kind.
    """
    own, ranked = np.sort(probability[is_true]), np.sort(probability)
    count, others = len(own), len(ranked) - len(own)
    if not count or not others:
        return {"roc_auc": None, "average_precision": None}
    below, up_to = (np.searchsorted(ranked, own, side) - np.searchsorted(own, own, side) for side in ("left", "right"))
    at_least = np.searchsorted(ranked, own)
    precision = (count - np.searchsorted(own, own)) / (len(ranked) - at_least)
    return {
        "roc_auc": float((below + up_to).sum() / (2 * count * others)),
        "average_precision": min(1.0, float(precision.mean())),  # rounding lifts a mean of ones above 1
    }


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


def _kappa(labels: np.ndarray, predicted: np.ndarray, weights: str | None = None) -> float | None:
    if len(np.union1d(labels, predicted)) < 2:
        return None
    return float(sklearn_metrics.cohen_kappa_score(labels, predicted, weights=weights))
