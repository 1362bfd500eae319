"""What the figures of predicted numbers say, ready to be shown: how far off, in which direction, which pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from multitl.judging.charts import draw_points
from multitl.judging.predictions import Predictions

FEW = 10  # images: fewer tell little


@dataclass(frozen=True)
class NumberPicture:
    """An image worth a look: what is true, what was said, and how far off that is."""

    path: str
    true: float
    said: float
    error: float


def describe_numbers(
    metrics: dict[str, Any], predictions: Predictions, part: str, most_pictures: int
) -> dict[str, Any]:
    """All that the page shows of them, by name. part: what was judged, such as "test"."""
    true, said = predictions.labels, predictions.probabilities[:, 0].astype("float64")
    return {
        "answers": "the numbers of the validation images",
        "kind": "number",
        "cautions": number_cautions(metrics, part),
        "agreement": draw_points(true, said, is_square=True),
        "residuals": draw_points(true, said - true, is_square=False),
        "least": float(true.min()),
        "most": float(true.max()),
        "within": share_within(true, said, float(np.abs(said - true).mean())),
        "pictures": worst_pictures(predictions, most_pictures),
    }


def worst_pictures(predictions: Predictions, most: int) -> list[NumberPicture]:
    """The images whose numbers were furthest off, the worst first."""
    true, said = predictions.labels, predictions.probabilities[:, 0].astype("float64")
    chosen = np.argsort(-np.abs(said - true), kind="stable")[:most]
    return [
        NumberPicture(predictions.paths[i], float(true[i]), float(said[i]), float(said[i] - true[i])) for i in chosen
    ]


def share_within(true: np.ndarray, said: np.ndarray, reach: float) -> float:
    """The share of images whose numbers are off by at most `reach`."""
    return float((np.abs(said - true) <= reach).mean())


def number_cautions(metrics: Mapping[str, Any], part: str) -> list[str]:
    """What to know before believing the figures."""
    which = f"{part} " if part else ""
    found = []
    if metrics["count"] < FEW:
        found.append(f"There are only {metrics['count']} {which}images: the figures tell little.")
    if metrics["r2"] is None:
        found.append(f"All {which}images have the same number: nothing shows whether others are told apart.")
    elif metrics["mae_ci"][1] >= metrics["always_mean"]["mae"] and metrics["r2_ci"][0] <= 0:
        found.append(
            f"The errors are not clearly smaller than those of always saying {metrics['always_mean']['value']:.4g}, "
            "the mean of the training images: they do not show that anything was learned."
        )
    return found
