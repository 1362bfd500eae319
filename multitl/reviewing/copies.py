"""Images that are there twice or nearly so: saved again, made smaller, cropped a little.

Candidates are alike in features, which a crop hardly changes, or as tiny grey pictures, which a smaller size hardly
changes; small grey pictures, laid over each other, tell what is the same. Copies in several parts of a data set are the
worst: whoever is judged on them has seen the answer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from multitl.contracts import SPLITS, Dataset
from multitl.reviewing.issues import Issue, Kind
from multitl.reviewing.looks import GREY
from multitl.reviewing.neighbours import Neighbours
from multitl.system.progress import progress_bar
from multitl.verdicts import REMOVE

NEAREST = 5  # candidates an image
ALIKE = 0.7  # cosine of two features
ALIKE_TINY = 0.98  # of two tiny pictures, each less its mean
UNLIKE = 1.2  # of the variance: with more left between 8 x 8 pixels, as of most pairs, nothing is laid over each other
SCALES = (1.0, 0.95, 0.9, 0.85)  # sides of a crop
SIDE = GREY // 2  # pixels in which two pictures are compared
STEP = 0.75  # of a small picture's pixels: of where a crop may lie
NEAR, FINER = np.linspace(-0.5, 0.5, 5), (-0.02, -0.01, 0.0, 0.01, 0.02)  # then: places and scales around the best
# Of 100 crops of clothes, halved and saved again as JPEG, 95 leave 0.025 or less and keep 0.943 or more of the details;
# other clothes that leave 0.08 keep 0.77 at best, crops of circuit boards, black and white, 0.93 but for 18 of 2,400.
SAME, SAME_DETAILS = 0.08, 0.93
NO_DETAIL = 0.25  # squared grey values
FLATTEST = 16.0  # variance in grey values: what a JPEG does to a picture of one colour is no difference

Pair = tuple[int, int]  # of images by index, the first one lower


class Likeness(NamedTuple):
    """Of two pictures, one laid over the other as well as can be.

    left: the share of the variance of grey values that is left.  details: the correlation, in [-1, 1], of what is finer
    than three pixels: a picture of the same kind on the same ground leaves as little, but has other folds and prints.
    """

    left: float
    details: float

    @property
    def is_same(self) -> bool:
        return self.left <= SAME and self.details >= SAME_DETAILS


@dataclass(frozen=True)
class Copy:
    pair: Pair
    likeness: Likeness


def pairs_of(neighbours: Neighbours, least: float) -> set[Pair]:
    """Those with a cosine of `least` or more."""
    rows, columns = np.nonzero(neighbours.cosines >= least)
    return {(min(one, other), max(one, other)) for one, other in
            zip(rows.tolist(), neighbours.places[rows, columns].tolist(), strict=True)}  # fmt: skip


@threadpool_limits.wrap(limits=1, user_api="blas")  # of products so small threads only wait for each other
def verify(pairs: Collection[Pair], grey: Mapping[int, np.ndarray]) -> list[Copy]:
    """Those whose pixels are the same. grey: see `Looks`; an image without one is no copy."""
    copies = []
    with progress_bar() as bar:
        task = bar.add_task("comparing", total=len(pairs), note="")
        for one, other in sorted(pairs):
            if one in grey and other in grey:
                copies.append(Copy((one, other), compare(grey[one], grey[other])))
            bar.advance(task)
    return [copy for copy in copies if copy.likeness.is_same]


def compare(one: np.ndarray, other: np.ndarray) -> Likeness:
    """one, other: (64, 64), grey values, whatever the ratio of sides was; either may be a crop of the other."""
    coarse, against = (picture.reshape(8, GREY // 8, 8, GREY // 8).mean(axis=(1, 3)) for picture in (one, other))
    left = float(np.square(coarse - against).mean()) / max(min(float(coarse.var()), float(against.var())), FLATTEST)
    if left > UNLIKE:
        return Likeness(left, 0.0)
    return min(_laid_over(one, _small(other)), _laid_over(other, _small(one)))


def _laid_over(whole: np.ndarray, crop: np.ndarray) -> Likeness:
    """crop: (32, 32), perhaps a part of `whole` (64, 64) by SCALES. The best place is looked for, then near it."""
    slacks = {scale: GREY * (1 - scale) for scale in SCALES}
    places = {scale: np.linspace(0, slack, 1 + int(np.ceil(slack / STEP))) for scale, slack in slacks.items()}
    best = min(_best_place(whole, crop, scale, starts, starts) for scale, starts in places.items())
    if best.scale < 1:
        best = min(_best_place(whole, crop, best.scale + it, best.top + NEAR, best.left + NEAR) for it in FINER)
    cut = _windows(best.scale, (best.top,))[0] @ whole @ _windows(best.scale, (best.left,))[0].T
    return Likeness(best.error / max(float(crop.var()), FLATTEST), _correlation(_details(cut), _details(crop)))


class _Place(NamedTuple):
    """Mean squared error of a window, its side, and where its corner is."""

    error: float
    scale: float
    top: float
    left: float


def _best_place(whole: np.ndarray, crop: np.ndarray, scale: float, tops: np.ndarray, lefts: np.ndarray) -> _Place:
    rows, columns = _windows(scale, tuple(tops)), _windows(scale, tuple(lefts))
    cut = rows.reshape(-1, GREY) @ whole @ columns.reshape(-1, GREY).T
    errors = cut.reshape(len(tops), SIDE, len(lefts), SIDE) - crop[None, :, None, :]
    means = np.square(errors).mean(axis=(1, 3))
    row, column = np.unravel_index(means.argmin(), means.shape)
    return _Place(float(means[row, column]), scale, float(tops[row]), float(lefts[column]))


def _details(picture: np.ndarray) -> np.ndarray:
    """Less the mean of 3 x 3 pixels."""
    around = np.pad(picture, 1, mode="reflect")
    return picture - sum(around[y : y + SIDE, x : x + SIDE] for y in range(3) for x in range(3)) / 9


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of details: 1 where there are none."""
    size = float(np.sqrt(np.square(one).mean() * np.square(other).mean()))
    return (float((one * other).mean()) + NO_DETAIL) / (size + NO_DETAIL)


def _small(picture: np.ndarray) -> np.ndarray:
    (whole,) = _windows(1.0, (0.0,))
    return whole @ picture @ whole.T


@lru_cache(maxsize=64)
def _windows(scale: float, starts: tuple[float, ...]) -> np.ndarray:
    """(places, 32, 64): each brings a part of 64 pixels to 32, by the area that these cover."""
    edges = np.array(starts)[:, None] + np.linspace(0, GREY * scale, SIDE + 1)  # (places, 33)
    pixels = np.arange(GREY)
    covered = np.minimum(edges[:, 1:, None], pixels + 1) - np.maximum(edges[:, :-1, None], pixels)
    covered = np.maximum(covered, 0)
    return (covered / np.maximum(covered.sum(axis=2, keepdims=True), 1e-6)).astype("float32")


def copy_issues(copies: Sequence[Copy], dataset: Dataset) -> list[Issue]:
    """A row for each image that there is another copy of. Of a family the one stays that judges, or else the first:
    what is learned from can be spared, a test image cannot.
    """
    partners: dict[int, list[tuple[float, int]]] = {}
    for copy in copies:
        for image, other in (copy.pair, copy.pair[::-1]):
            partners.setdefault(image, []).append((-copy.likeness.details, other))
    issues = []
    for family in families(copies):
        parts = {image: SPLITS.index(dataset.examples[image].split) for image in family}
        stays = max(family, key=lambda image: (parts[image], -image))
        for image in family:
            if image != stays:
                least, other = min(partners[image], key=lambda it: (it[1] != stays, parts[it[1]] == parts[image], it))
                kind: Kind = "copy" if parts[other] == parts[image] else "copy across parts"
                issues.append(Issue(kind, image, -least, REMOVE, other))
    return issues


def families(copies: Sequence[Copy]) -> list[list[int]]:
    """Images that are copies of each other, directly or by way of others; each family by index."""
    parent: dict[int, int] = {}

    def root(image: int) -> int:
        while parent.setdefault(image, image) != image:
            parent[image] = parent[parent[image]]
            image = parent[image]
        return image

    for copy in copies:
        one, other = copy.pair
        parent[root(other)] = root(one)
    members: dict[int, list[int]] = {}
    for image in sorted(parent):
        members.setdefault(root(image), []).append(image)
    return list(members.values())
