"""A map of the judged images: what the model takes for alike lies together, and mistakes lie where classes meet.

The two directions in which the logits of all images differ most (principal components), from the probabilities alone.
Numbers in, SVG coordinates out, as in charts.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multitl.judging.axes import Scale
from multitl.judging.predictions import Predictions

MOST_IMAGES, MOST_NAMED = 1000, 20
LEAST = 1e-6  # a probability below it is as good as none
WIDTH, HEIGHT, EDGE = 720.0, 430.0, 14.0
GOLDEN = 137.5  # degrees from a class' hue to the next: no two of few are alike


@dataclass(frozen=True)
class Dot:
    """An image that was named wrongly."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Group:
    """Images of a true class. hue: degrees.  dots: an SVG path, of those that were named rightly."""

    name: str
    hue: float
    dots: str
    wrong: list[Dot]


@dataclass(frozen=True)
class ImageMap:
    """share: of the variance that the two directions hold.  shown: images of `total`.  is_named: whether the classes
    are few enough to be told by their colours.
    """

    width: float
    height: float
    groups: list[Group]
    share: float
    shown: int
    total: int
    is_named: bool


def draw_map(predictions: Predictions, predicted: np.ndarray) -> ImageMap | None:
    """None where there are fewer than three classes or images, which a plane does not show.

    predicted: (n,), the classes that were said.
    """
    total, names = len(predictions.paths), predictions.class_names
    if len(names) < 3 or total < 3:
        return None
    rows = np.unique(np.linspace(0, total - 1, min(MOST_IMAGES, total)).round().astype(int))
    places, share = _plane(np.log(np.maximum(predictions.probabilities[rows].astype("float64"), LEAST)))
    x, y = (_axis(places[:, axis], far) for axis, far in enumerate((WIDTH, HEIGHT)))
    groups = []
    for place in np.unique(predictions.labels[rows]):
        own = np.flatnonzero(predictions.labels[rows] == place)
        is_right = predicted[rows[own]] == place
        dots = "".join(f"M{x[i]:.1f} {y[i]:.1f}h.01" for i in own[is_right])
        wrong = [
            Dot(round(x[i], 1), round(y[i], 1), f"{names[place]}, called {names[predicted[rows[i]]]}")
            for i in own[~is_right]
        ]
        groups.append(Group(names[place], round(place * GOLDEN % 360, 1), dots, wrong))
    return ImageMap(WIDTH, HEIGHT, groups, share, len(rows), total, len(groups) <= MOST_NAMED)


def _plane(logits: np.ndarray) -> tuple[np.ndarray, float]:
    """(n, k) -> (n, 2), and the share of the variance that is left."""
    centred = logits - logits.mean(axis=1, keepdims=True)
    centred -= centred.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    plane = directions[:2]
    plane = plane * np.sign(plane[np.arange(2), np.abs(plane).argmax(axis=1)])[:, None]  # a sign is the library's whim
    return centred @ plane.T, float(np.square(sizes[:2]).sum() / max(np.square(sizes).sum(), 1e-300))


def _axis(values: np.ndarray, far: float) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    scale = Scale(low, high if high > low else low + 1.0, EDGE, far - EDGE)
    return np.array([scale(float(value)) for value in values])
