"""`multitl drift`: whether new images look like those that a run was made of, by features of its own backbone.

Two questions. How many new images are further from the training images than nearly all of the run's other images are
(the distance to a near neighbour: Sun et al. 2022, arXiv:2204.06507)? And can a classifier tell new images from those
others, better than by guessing (Lopez-Paz and Oquab 2017, arXiv:1610.06545)? Neither needs labels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from multitl.contracts import Backend, Example
from multitl.data.unlabelled import add_unlabelled
from multitl.judging.charts import wilson_interval
from multitl.judging.evaluation import tell_left_out
from multitl.judging.opening import Run
from multitl.models.feature_maps import scaled
from multitl.reviewing.neighbours import centre_of, nearest
from multitl.reviewing.subjects import Subject, open_subject
from multitl.runs.familiarity import FALSE_ALARMS, unknown_above
from multitl.training.feature_rows import Rows, chosen
from multitl.training.sessions import session
from multitl.training.solved_head import Task, attempt

NEIGHBOUR = 10  # whose distance counts
MOST = 4000  # images of each kind that the classifier is fitted to
VERDICTS = {  # least area under the curve, by the lower end of its interval
    0.9: "the new images are clearly of another kind than those of the run: label some of them, and go on from the run",
    0.7: "the new images differ from those of the run: judge the run on some of them, with labels",
    0.5: "the new images differ a little from those of the run",
    0.0: "the new images cannot be told from those of the run",
}


@dataclass(frozen=True)
class Drift:
    """unknown: the share of new images that are further away than `threshold`, as at most FALSE_ALARMS of further
    usual images are expected to be; it, its interval and the threshold are None for too few usual images to tell.

    area: under the ROC curve of the classifier, out of fold: 0.5 for images that cannot be told apart, 1 for others.
    Intervals are of 95 %.  distances: (n,), of the new images `paths`, 1 less a cosine.  known: how many of them
    are images of the run.
    """

    images: int
    compared_with: int
    unknown: float | None
    unknown_interval: tuple[float, float] | None
    threshold: float | None
    area: float
    area_interval: tuple[float, float]
    known: int
    verdict: str
    paths: tuple[str, ...]
    distances: tuple[float, ...]

    def about(self) -> dict[str, Any]:
        """For JSON; the images that are furthest away first."""
        order = sorted(range(self.images), key=lambda row: -self.distances[row])
        rows = [{"path": self.paths[row], "distance": round(self.distances[row], 4),
                 "unknown": self.threshold is not None and self.distances[row] > self.threshold}
                for row in order]  # fmt: skip
        named = {name: value for name, value in vars(self).items() if name not in ("paths", "distances")}
        return named | {"false_alarms": FALSE_ALARMS, "rows": rows}


def measure_drift(
    run: Run, images: str | os.PathLike[str], data: str | os.PathLike[str] | None, *, backend: Backend
) -> Drift:
    """See `multitl.drift`."""
    with session(run.card.recipe, backend):
        subject = open_subject(run, data, backend)
        recipe = replace(subject.recipe, unlabelled=os.fspath(images), adapt="none")
        dataset = add_unlabelled(subject.dataset, recipe, option="")
        tell_left_out(dataset.unreadable[len(subject.dataset.unreadable) :])
        new = dataset.unlabelled
        features = subject.extracting.features(new)
    return compare(subject, new, features)


def compare(subject: Subject, new: Sequence[Example], features: Rows) -> Drift:
    """features: (n, channels), of the new images."""
    trained, others = (chosen(subject.features, subject.rows(*it)) for it in (("train",), ("validation", "test")))
    centre = centre_of(trained)
    usual, distances = (unfamiliarity(rows, trained, centre) for rows in (others, features))
    threshold = unknown_above(np.sort(usual))
    unknown = None if threshold is None else float((distances > threshold).mean())
    area = distinguishability(others, features, subject.recipe.seed)
    interval = area_interval(area, min(len(others), MOST), min(len(features), MOST))
    own = {one.sha256 for one in subject.dataset.examples}
    return Drift(
        len(new), len(others), unknown, None if unknown is None else wilson_interval(unknown, len(new)), threshold,
        area, interval,
        sum(one.sha256 in own for one in new),
        next(words for least, words in VERDICTS.items() if interval[0] > least or not least),
        tuple(one.path for one in new), tuple(distances.tolist()),
    )  # fmt: skip


def unfamiliarity(rows: Rows, trained: Rows, centre: np.ndarray) -> np.ndarray:
    """The distance of each image from its tenth nearest training image (n,), in [0, 2]."""
    count = min(NEIGHBOUR, len(trained))
    return 1 - nearest(rows, trained, count, centre).cosines[:, -1].astype("float64")


@threadpool_limits.wrap(limits=1, user_api="blas")
def distinguishability(old: Rows, new: Rows, seed: int) -> float:
    """The area under the ROC curve of a linear classifier of old and new images, each judged by one that has not seen
    it. 0.5 for too few to tell.
    """
    random = np.random.default_rng(seed)
    some = [rows[np.sort(random.permutation(len(rows))[:MOST])] for rows in (old, new)]
    is_new = np.repeat([0, 1], [len(rows) for rows in some])
    weights = (len(is_new) / 2 / np.bincount(is_new, minlength=2))[is_new].astype("float32")
    features = np.concatenate(some)
    task = Task([features], np.eye(2, dtype="float32")[is_new], weights, seed=seed)
    answers = attempt("linear", task, scaled(features), 0.0).answers
    if answers is None:
        return 0.5
    logits = answers()
    return float(roc_auc_score(is_new, logits[:, 1] - logits[:, 0]))


def area_interval(area: float, negatives: int, positives: int) -> tuple[float, float]:
    """95 % of an area under a ROC curve (Hanley and McNeil 1982)."""
    pairs, square = negatives * positives, area * area
    variance = area * (1 - area)
    variance += (positives - 1) * (area / (2 - area) - square) + (negatives - 1) * (2 * square / (1 + area) - square)
    half = 1.96 * math.sqrt(max(variance, 0.0) / pairs)
    return max(0.0, area - half), min(1.0, area + half)
