"""What the figures of several labels an image say, ready to be shown: weak labels, labels that are seen for others,
pictures to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from multitl.judging.predictions import Predictions

MOST_SWAPS = 6
FEW = 10  # images with a label: fewer tell little


@dataclass(frozen=True)
class Swap:
    """`count` of the images that miss the label `true` were given `said`, which they do not have."""

    true: str
    said: str
    count: int


@dataclass(frozen=True)
class LabelPicture:
    """An image worth a look. true, said: its labels.  wrong: the answer that is furthest on the wrong side of its
    threshold, and how far; with no wrong answer the one that is nearest to it.
    """

    path: str
    true: tuple[str, ...]
    said: tuple[str, ...]
    wrong: str
    probability: float


def describe_labels(
    metrics: dict[str, Any], predictions: Predictions, thresholds: Sequence[float], part: str, most_pictures: int
) -> dict[str, Any]:
    """All that the page shows of them, by name. part: what was judged, such as "test"."""
    pictures, are_mistakes = telling_label_pictures(predictions, thresholds, most_pictures)
    return {
        "answers": "the answers on validation images",
        "kind": "label",
        "cautions": label_cautions(metrics, part),
        "labels": labels_by_precision(metrics),
        "swaps": seen_for(predictions, thresholds, MOST_SWAPS),
        "pictures": pictures,
        "are_mistakes": are_mistakes,
    }


def labels_by_precision(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """`per_label`, the lowest average precision first; labels that no image has last."""
    rows = metrics["per_label"]
    return sorted(rows, key=lambda row: (row["average_precision"] is None, row["average_precision"] or 0.0))


def seen_for(predictions: Predictions, thresholds: Sequence[float], most: int) -> list[Swap]:
    """Labels that are missed where another one is given wrongly, the most frequent pairs first."""
    given = predictions.probabilities >= np.asarray(thresholds)
    misses, alarms = (predictions.labels & ~given).astype(int), (given & ~predictions.labels).astype(int)
    together = misses.T @ alarms
    order = np.argsort(-together, axis=None, kind="stable")[:most]
    names = predictions.class_names
    cells = zip(*np.unravel_index(order, together.shape), strict=True)
    return [Swap(names[i], names[j], int(together[i, j])) for i, j in cells if together[i, j]]


def telling_label_pictures(
    predictions: Predictions, thresholds: Sequence[float], most: int
) -> tuple[list[LabelPicture], bool]:
    """The images with the clearest mistakes and True; where there are none, the closest calls and False."""
    limits = np.asarray(thresholds)
    given = predictions.probabilities >= limits
    margins, wrong = np.abs(predictions.probabilities - limits), given != predictions.labels
    are_mistakes = bool(wrong.any())
    strength = np.where(wrong, margins, -1) if are_mistakes else -margins
    worst = strength.max(axis=1)
    count = min(most, int(wrong.any(axis=1).sum()) or most)
    names = predictions.class_names
    pictures = []
    for i in np.argsort(-worst, kind="stable")[:count]:
        label = int(strength[i].argmax())
        true, said = (tuple(compress(names, row)) for row in (predictions.labels[i], given[i]))
        probability = float(predictions.probabilities[i, label])
        pictures.append(LabelPicture(predictions.paths[i], true, said, names[label], probability))
    return pictures, are_mistakes


def label_cautions(metrics: Mapping[str, Any], part: str) -> list[str]:
    """What to know before believing the figures."""
    rows = metrics["per_label"]
    found = []
    if none := [row["label"] for row in rows if not row["support"]]:
        found.append(f"Labels that no {part} image has, of which nothing is known: {', '.join(none[:5])}.")
    if few := [row["label"] for row in rows if 0 < row["support"] < FEW]:
        found.append(f"Labels of fewer than {FEW} {part} images, whose figures tell little: {', '.join(few[:5])}.")
    chance = [row["support"] / metrics["count"] for row in rows if row["support"]]
    if metrics["map"] is not None and metrics["map_ci"][0] <= float(np.mean(chance)):
        found.append(
            f"The {part} mean average precision, {metrics['map']:.1%}, is not clearly above that of guessing, "
            f"{np.mean(chance):.1%}: it does not show that anything was learned."
        )
    return found
