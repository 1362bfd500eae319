"""Where answers are wrong more often than elsewhere: classes that overlap, and slices of the images.

A slice that is bad by luck is found in any data if enough are looked at, so the interval of each is as wide as their
number asks (Bonferroni): with 95 % none of them all is named that is no worse than the rest.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from sklearn.cluster import MiniBatchKMeans

from multitl.judging.charts import wilson_interval
from multitl.reviewing.looks import Looks
from multitl.training.feature_rows import Rows, block_rows, some_of

PARTS = 5  # of each measure
CLUSTERS = 12
LEAST = 20  # images, of which anything can be said
MOST_PAIRS = 10
MEASURES = {"brightness": "brightness", "contrast": "contrast", "sharpness": "sharpness", "megapixels": "size",
            "aspect": "width over height"}  # fmt: skip


@dataclass(frozen=True)
class Overlap:
    """`confused` of the `count` images of two classes are taken for the other one. interval: 95 %, of that share."""

    one: str
    other: str
    confused: int
    count: int
    interval: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Slice:
    """rows: the images. accuracy: of answers to them by models that have not seen them. interval: of it, see above."""

    name: str
    rows: np.ndarray
    accuracy: float
    interval: tuple[float, float]

    def about(self) -> dict[str, Any]:
        return {"name": self.name, "count": len(self.rows), "accuracy": self.accuracy, "interval": self.interval}


def find_overlaps(predicted: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> list[Overlap]:
    """Pairs of classes with more than one mistake between them, the largest share first."""
    classes = len(class_names)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    both, sizes = counts + counts.T, counts.sum(axis=1)
    pairs = [(one, other) for one in range(classes) for other in range(one) if both[one, other] > 1]
    found = []
    for one, other in pairs:
        confused, count = int(both[one, other]), int(sizes[one] + sizes[other])
        interval = wilson_interval(confused / count, count)
        found.append(Overlap(class_names[other], class_names[one], confused, count, interval))
    return sorted(found, key=lambda it: -it.confused / it.count)[:MOST_PAIRS]


def find_slices(
    is_right: np.ndarray, looks: Looks, features: Rows, classes: Sequence[str], seed: int
) -> tuple[list[Slice], int]:
    """Slices that are clearly worse than all images, the worst first; and how many were looked at. classes: of each."""
    slices = [(name, rows) for name, rows in _slices(looks, features, classes, seed) if len(rows) >= LEAST]
    z = NormalDist().inv_cdf(1 - 0.025 / max(len(slices), 1))
    found = []
    for name, rows in slices:
        accuracy = float(is_right[rows].mean())
        found.append(Slice(name, rows, accuracy, wilson_interval(accuracy, len(rows), z)))
    worse = [one for one in found if one.interval[1] < is_right.mean()]
    return sorted(worse, key=lambda it: it.accuracy), len(slices)


def _slices(looks: Looks, features: Rows, classes: Sequence[str], seed: int) -> Iterator[tuple[str, np.ndarray]]:
    for field, title in MEASURES.items():
        values = getattr(looks, field)
        known = np.flatnonzero(np.isfinite(values))
        edges = np.unique(np.quantile(values[known], np.linspace(0, 1, PARTS + 1))) if len(known) else np.empty(0)
        for low, high in itertools.pairwise(edges):
            inside = (values[known] >= low) & ((values[known] < high) | (high == edges[-1]))
            yield f"{title} {low:.2f} to {high:.2f}", known[inside]
    clusters = _clusters(features, seed)
    for number in range(CLUSTERS):
        rows = np.flatnonzero(clusters == number)
        for name, count in Counter(classes[row] for row in rows.tolist()).most_common(1):
            yield f"alike, {count / len(rows):.0%} of them {name}", rows


def _clusters(features: Rows, seed: int) -> np.ndarray:
    if len(features) < CLUSTERS * LEAST:
        return np.full(len(features), -1)
    model = MiniBatchKMeans(CLUSTERS, random_state=seed, n_init=3).fit(some_of(features, seed))
    step = block_rows(features.shape[1])
    return np.concatenate([model.predict(features[first : first + step]) for first in range(0, len(features), step)])


def describe(overlaps: Sequence[Overlap], slices: Sequence[Slice], looked_at: int) -> dict[str, Any]:
    """For review.json."""
    return {
        "overlaps": [asdict(one) for one in overlaps],
        "slices": [one.about() for one in slices],
        "slices_looked_at": looked_at,
    }
