"""Labels that are likely wrong: confident learning (Northcutt, Jiang, Chuang 2021, JAIR 70; arXiv:1911.00068).

What is said of an image by a model that has not seen it is compared with how sure such models are of each class on
average, so that a class that is hard, or that they are shy of, is not suspected as a whole. It is the estimator that
cleanlab calls "confident_learning" (and gives the same images: see benchmarks/README.md); cleanlab itself, which is
maintained, would bring pandas for these few lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Suspects:
    """The likeliest error first. rows: (k,), of the images.  suggested: (k,), classes.

    score: (k,), in [0.5, 1] nearly always: (1 + p(suggested) - p(label)) / 2, the normalised margin.
    """

    rows: np.ndarray
    suggested: np.ndarray
    score: np.ndarray


def find_label_errors(probabilities: np.ndarray, labels: np.ndarray) -> Suspects:
    """The off-diagonal of the confident joint.

    probabilities: (n, classes), out of fold.  labels: (n,), as given.

    An image counts for a class of which it is at least as sure as images of that class are on average; of several such
    classes for the likeliest. It is suspected where that is another than its own.
    """
    own = probabilities[np.arange(len(labels)), labels]
    sums, counts = (
        np.bincount(labels, own, probabilities.shape[1]),
        np.bincount(labels, minlength=probabilities.shape[1]),
    )
    thresholds = np.where(counts, sums / np.maximum(counts, 1), np.inf)  # nothing is like a class without images
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    likeliest = confident.argmax(axis=1)
    rows = np.flatnonzero((confident.max(axis=1) >= 0) & (likeliest != labels))
    suggested = likeliest[rows]
    score = (1 + probabilities[rows, suggested] - own[rows]) / 2
    order = np.argsort(-score, kind="stable")
    return Suspects(rows[order], suggested[order], score[order])
