"""What the figures of a run say, ready to be shown: which classes are confused or weak, which pictures to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multitl.judging.metrics import Judged
from multitl.judging.predictions import Predictions
from multitl.standalone.decisions import decide

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One cell of the confusion matrix. share: of the row's (true class's) images, in [0, 1]."""

    count: int
    share: float
    predicted: str
    is_right: bool


@dataclass(frozen=True)
class Row:
    name: str
    support: int
    cells: list[Cell]


@dataclass(frozen=True)
class Confusion:
    """The matrix, or its part with the most mistakes where there are too many classes. `hidden`: classes left out."""

    names: list[str]
    rows: list[Row]
    hidden: int


@dataclass(frozen=True)
class Pair:
    """`count` of the `support` images of class `true` were called `predicted`."""

    true: str
    predicted: str
    count: int
    support: int


@dataclass(frozen=True)
class Trust:
    """Of the images, the `share` with at least `confidence`; `accuracy` on these."""

    confidence: float
    share: float
    accuracy: float


MOST_PAIRS = 6  # confusions of which a picture is shown
FEW_SHOWN, MOST_SHOWN = 16, 40  # pictures of classes


@dataclass(frozen=True)
class Picture:
    """A test image worth a look. place: among those that were looked at."""

    place: int
    path: str
    true: str
    predicted: str
    confidence: float
    true_probability: float


def typical_pictures(predictions: Predictions) -> list[tuple[str, str]]:
    """Class and path of the images of each class that it is likeliest for: two of few, one of up to MOST_SHOWN."""
    names = predictions.class_names
    each = 2 if 2 * len(names) <= FEW_SHOWN else int(len(names) <= MOST_SHOWN)
    found = []
    for place, name in enumerate(names):
        own = np.flatnonzero(predictions.labels == place)
        order = np.argsort(-predictions.probabilities[own, place], kind="stable")
        found += [(name, predictions.paths[i]) for i in own[order[:each]]]
    return found


def confusion(metrics: Metrics, most: int) -> Confusion:
    """The confusion matrix over at most `most` classes, chosen by their number of mistakes."""
    counts = np.array(metrics["confusion_matrix"])
    names = [row["class"] for row in metrics["per_class"]]
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    shown = sorted(np.argsort(-mistakes, kind="stable")[:most].tolist())
    supports = counts.sum(axis=1)
    rows = [
        Row(names[i], int(supports[i]), [
            Cell(int(counts[i, j]), float(counts[i, j] / max(supports[i], 1)), names[j], i == j) for j in shown
        ])
        for i in shown
    ]  # fmt: skip
    return Confusion([names[i] for i in shown], rows, len(names) - len(shown))


def confused_pairs(metrics: Metrics, most: int) -> list[Pair]:
    """The most frequent mistakes, most frequent first."""
    counts, rows = np.array(metrics["confusion_matrix"]), metrics["per_class"]
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    cells = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        Pair(rows[i]["class"], rows[j]["class"], int(wrong[i, j]), rows[i]["support"]) for i, j in cells if wrong[i, j]
    ]


def classes_by_f1(metrics: Metrics) -> list[dict[str, Any]]:
    """`per_class`, weakest first; classes without images last."""
    return sorted(metrics["per_class"], key=lambda row: (row["support"] == 0, row["f1"]))


def telling_pictures(
    predictions: Predictions, most: int, costs: np.ndarray | None = None
) -> tuple[list[Picture], bool]:
    """The most confident mistakes and True; where there are none, the least confident right answers and False.

    Of each of the MOST_PAIRS commonest confusions the surest mistake is there too.  costs: see `decisions.decide`.
    """
    probabilities = predictions.probabilities
    predicted = decide(probabilities, costs)
    confidence = probabilities[np.arange(len(predicted)), predicted]
    wrong = predicted != predictions.labels
    ranking = np.where(wrong, -confidence, 1) if wrong.any() else confidence
    order = np.argsort(ranking, kind="stable")
    chosen, names = order[: min(most, int(wrong.sum()) or most)], predictions.class_names
    if wrong.any():
        pairs = predictions.labels * len(names) + predicted
        kinds, counts = np.unique(pairs[wrong], return_counts=True)
        common = kinds[np.argsort(-counts, kind="stable")[:MOST_PAIRS]]
        surest = [next(i for i in order if pairs[i] == kind) for kind in common]
        chosen = order[np.isin(order, [*chosen, *surest])]
    pictures = [
        Picture(
            int(i), predictions.paths[i], names[predictions.labels[i]], names[predicted[i]],
            float(confidence[i]), float(probabilities[i, predictions.labels[i]]),
        )
        for i in chosen
    ]  # fmt: skip
    return pictures, bool(wrong.any())


def overconfidence(judged: Judged) -> float:
    """Mean confidence minus accuracy, in [-1, 1]: how much too sure the model is on average."""
    return float(judged.excess.mean())


def coverage(judged: Judged, most: int = 200) -> list[Trust]:
    """How accurate the model is where it is surest, from the surest images to all of them, at most `most` steps.

    Images of equal confidence come together: nobody could tell them apart. (A risk-coverage curve,
    El-Yaniv and Wiener 2010.)
    """
    confidence, size = -np.sort(-judged.confidence), len(judged.confidence)
    right = judged.correct[np.argsort(-judged.confidence, kind="stable")].cumsum()
    ends = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True))
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, min(most, len(ends))).round().astype(int))]
    return [Trust(float(confidence[i]), (int(i) + 1) / size, float(right[i] / (i + 1))) for i in ends]


def trust_above(judged: Judged, confidence: float) -> Trust | None:
    """The images with at least this confidence; None if there is none."""
    chosen = judged.confidence >= confidence
    if not chosen.any():
        return None
    return Trust(confidence, float(chosen.mean()), float(judged.correct[chosen].mean()))


def error_bound_without_mistakes(count: int) -> float:
    """What the true error rate stays below with 95 % confidence if `count` images showed no mistake (about 3 / count).

    Resampling cannot tell: without mistakes every resample is perfect.
    """
    return 1 - 0.05 ** (1 / count)


def lowest(val_losses: Sequence[float]) -> int | None:
    """Index of the epoch whose weights were kept: the first of the lowest finite validation loss, if any."""
    finite = [(loss, index) for index, loss in enumerate(val_losses) if math.isfinite(loss)]
    return min(finite)[1] if finite else None
