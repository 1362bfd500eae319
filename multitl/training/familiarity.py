"""What images of the usual kind look like to a classifier, learned from some of the training and validation images, so
that `predict` can say of another one that it is of none of the classes: see `runs/familiarity.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from multitl.contracts import Example
from multitl.models.feature_maps import FeatureMap
from multitl.runs.familiarity import Familiarity, Usual

MOST_TRAIN, MOST_USUAL = 1000, 500  # images that are looked at: a pass of the whole network over them
PROTOTYPES = 4  # of a class: 1 and 16 tell less (benchmarks/unknown.py)
WITHOUT_CLASSES = 32  # where an image has several labels, or a number
FOR_EACH = 5  # images
ENOUGH = 20  # validation images to take means and deviations of


@dataclass(frozen=True, eq=False)
class Seen:
    """What the network makes of some images: features (n, channels), logits (n, k)."""

    features: np.ndarray
    logits: np.ndarray


def rows_to_see(groups: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Which of n images, rising: at most so many, as many of each group as of any other where there are that many.

    groups: (n,), as `groups_of` gives them. At least one of each is taken.
    """
    random = np.random.default_rng(seed)
    each = max(1, most // max(1, len(np.unique(groups))))
    some = (np.flatnonzero(groups == group) for group in np.unique(groups))
    return np.sort(np.concatenate([random.permutation(rows)[:each] for rows in some] or [np.empty(0, int)]))


def groups_of(examples: Sequence[Example], labels: str) -> np.ndarray:
    """The class of each (n,); where an image has not one, they are one group. labels: as `Recipe` has it."""
    return np.array([one.labels[0] if labels == "one" else 0 for one in examples], int)


@threadpool_limits.wrap(limits=1)  # also of OpenMP, whose threads add up in any order
def learn_familiarity(trained: Seen, groups: np.ndarray, usual: Seen, *, has_classes: bool, seed: int) -> Familiarity:
    """trained: some training images, of these groups (n,).  usual: some validation images."""
    centre = trained.features.mean(axis=0, dtype="float64").astype("float32")
    count = PROTOTYPES if has_classes else WITHOUT_CLASSES
    towards = FeatureMap(1.0, centre)(trained.features)
    found = [_prototypes(towards[groups == group], count, seed) for group in np.unique(groups)]
    prototypes = np.concatenate(found).astype("float32")
    standard = usual if len(usual.features) >= ENOUGH else trained
    distance = _usual(distances(standard.features, centre, prototypes))
    energy = _usual(energies(standard.logits)) if has_classes else Usual(0.0, 0.0)
    scores = distance.standardised(distances(usual.features, centre, prototypes))
    if has_classes:
        scores = scores + energy.standardised(energies(usual.logits))
    return Familiarity(centre, prototypes, energy, distance, np.sort(scores))


def energies(logits: np.ndarray) -> np.ndarray:
    """(n, k) -> (n,): the lower, the more some class answers."""
    return -logsumexp(logits.astype("float64"), axis=1)


def distances(features: np.ndarray, centre: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """(n, channels) -> (n,): 1 less the largest cosine."""
    return 1 - (FeatureMap(1.0, centre)(features) @ prototypes.T).max(axis=1).astype("float64")


def _prototypes(towards: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Of the directions (n, channels) of a group: (m, channels), of length 1; m at most count."""
    clusters = max(1, min(count, len(towards) // FOR_EACH))
    means = towards.mean(axis=0, keepdims=True)
    if clusters > 1:
        means = KMeans(clusters, n_init=1, random_state=seed).fit(towards).cluster_centers_
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6)


def _usual(scores: np.ndarray) -> Usual:
    return Usual(float(scores.mean()), float(max(scores.std(), 1e-6)))
