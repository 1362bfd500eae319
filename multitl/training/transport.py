"""Labels carried from labelled images to those of another domain by optimal transport.

Every training image is a heap of sand, every image of the other domain a hole; what lies nearest is filled first, and
all sand finds a hole (Courty et al. 2016, "Optimal Transport for Domain Adaptation", arXiv:1507.00504, by Sinkhorn's
iteration, Cuturi 2013, arXiv:1306.0895). An image's labels are those of the sand that came (label propagation as in
Redko et al. 2019, arXiv:1803.04899). Since all is carried, this takes both domains to hold the classes in about the
same proportions, and it helps where an image has its counterpart on the other side.
"""

from __future__ import annotations

import numpy as np

from multitl.training.feature_rows import Rows

CLEAR = 3.0  # standard errors above chance, from which on a share of counterparts is none
BLUR = 0.02  # of the plan: entropy's weight, where costs are from 0 to 2
ITERATIONS = 300
MOST_IMAGES = 4000  # of each domain: a plan is a matrix of both


def carry_labels(source: np.ndarray, labels: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Shares of each class (m, classes) for target features (m, channels), rows that sum to 1.

    source: (n, channels).  labels: (n, classes), rows that sum to 1.  A distance is that of two directions, each seen
    from the mean of its own domain.
    """
    plan = find_plan(1.0 - _directions(source) @ _directions(target).T, BLUR)
    carried = plan.T @ labels
    return carried / carried.sum(axis=1, keepdims=True)


def find_counterparts(source: Rows, target: Rows, seed: int) -> tuple[float, bool]:
    """The share of training images that the other domain has a closer relative of than the training images have, and
    whether that is clearly more than chance would give if all images were of one kind.

    Then the other domain shows the same things again, as another vendor's drawings of the same signs do; what is
    carried between those is mostly right. It is not where relatives are of the same class at best.
    """
    some, others = (_directions(one[draw_some(len(one), MOST_IMAGES, seed)]) for one in (source, target))
    own = some @ some.T
    np.fill_diagonal(own, -np.inf)
    share = float(np.mean((some @ others.T).max(axis=1) > own.max(axis=1)))
    chance = len(others) / (len(others) + len(some) - 1)  # that the nearest of all is one of the others
    return share, bool(share > chance + CLEAR * np.sqrt(chance * (1 - chance) / len(some)))


def draw_some(count: int, most: int, seed: int) -> np.ndarray:
    """Indices of at most so many, drawn without a change of their order."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def find_plan(costs: np.ndarray, blur: float) -> np.ndarray:
    """How much goes from where to where (n, m), in float64: row sums 1/n, column sums 1/m at the last.

    costs: (n, m), from 0 to 2, so that no exponential vanishes.
    """
    kernel = np.exp(-costs.astype("float64") / blur)
    rows, columns = np.full(len(costs), 1 / len(costs)), np.full(costs.shape[1], 1 / costs.shape[1])
    right = columns
    for _ in range(ITERATIONS):
        left = rows / (kernel @ right)
        right = columns / (kernel.T @ left)
    return left[:, None] * kernel * right


def _directions(features: np.ndarray) -> np.ndarray:
    """From the mean of all, of length 1; (n, channels) float64."""
    centred = features.astype("float64") - features.mean(axis=0, dtype="float64")
    return centred / np.sqrt(np.maximum(np.square(centred).sum(axis=1, keepdims=True), 1e-12))
