"""Images that are there twice or nearly so: saved again, made smaller, cropped a little.

Candidates are alike in features, which a crop hardly changes, or as tiny grey pictures, which a smaller size hardly
changes; small grey pictures, laid over each other, tell what is the same. Copies in several parts of a data set are the
worst: whoever is judged on them has seen the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from multitl.contracts import SPLITS, Dataset
from multitl.reviewing.issues import Issue, Kind
from multitl.reviewing.looks import GREY
from multitl.reviewing.neighbours import Neighbours
from multitl.verdicts import REMOVE

NEAREST = 5  # candidates an image
ALIKE = 0.7  # cosine of two features
ALIKE_TINY = 0.98  # of two tiny pictures, each less its mean
UNLIKE = 0.8  # of the variance: with more left between 8 x 8 pixels two pictures are not laid over each other at all
SCALES = (1.0, 0.95, 0.9, 0.85)  # sides of a crop
SIDE = GREY // 2  # pixels in which two pictures are compared
STEP = 0.75  # of a small picture's pixels: of where a crop may lie
SAME = 0.06  # of the variance, that may be left; of 150 pairs of clothes that are most alike the next had 0.072
FLATTEST = 16.0  # variance in grey values: what a JPEG does to a picture of one colour is no difference

Pair = tuple[int, int]  # of images by index, the first one lower


@dataclass(frozen=True)
class Copy:
    """left: see `difference`."""

    pair: Pair
    left: float


def pairs_of(neighbours: Neighbours, least: float) -> set[Pair]:
    """Those with a cosine of `least` or more."""
    rows, columns = np.nonzero(neighbours.cosines >= least)
    return {(min(one, other), max(one, other)) for one, other in
            zip(rows.tolist(), neighbours.places[rows, columns].tolist(), strict=True)}  # fmt: skip


def verify(pairs: Iterable[Pair], grey: Mapping[int, np.ndarray]) -> list[Copy]:
    """Those whose pixels are the same. grey: see `Looks`; an image without one is no copy."""
    seen = ((pair, grey[pair[0]], grey[pair[1]]) for pair in sorted(pairs) if pair[0] in grey and pair[1] in grey)
    copies = [Copy(pair, difference(one, other)) for pair, one, other in seen]
    return [copy for copy in copies if copy.left <= SAME]


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """The share of the variance that is left where one picture is laid over the other as well as can be, either of them
    perhaps a crop of the other. one, other: (64, 64), grey values, whatever the ratio of sides was.
    """
    coarse, against = (picture.reshape(8, GREY // 8, 8, GREY // 8).mean(axis=(1, 3)) for picture in (one, other))
    left = float(np.square(coarse - against).mean()) / max(min(float(coarse.var()), float(against.var())), FLATTEST)
    if left > UNLIKE:
        return left
    return min(_laid_over(one, _small(other)), _laid_over(other, _small(one)))


def _laid_over(whole: np.ndarray, crop: np.ndarray) -> float:
    """crop: (32, 32), which may be any part of `whole` (64, 64) by SCALES."""
    least = min(_squared_errors(whole, crop, scale) for scale in SCALES)
    return float(least / max(float(crop.var()), FLATTEST))


def _squared_errors(whole: np.ndarray, crop: np.ndarray, scale: float) -> float:
    """The least mean of them over all places of a window."""
    windows = _windows(scale)
    flat = windows.reshape(-1, GREY)
    cut = (flat @ whole @ flat.T).reshape(len(windows), SIDE, len(windows), SIDE)
    return float(np.square(cut - crop[None, :, None, :]).mean(axis=(1, 3)).min())


def _small(picture: np.ndarray) -> np.ndarray:
    return _windows(1.0)[0] @ picture @ _windows(1.0)[0].T


@cache
def _windows(scale: float) -> np.ndarray:
    """(places, 32, 64): each brings a part of 64 pixels to 32, by the area that these cover."""
    slack = GREY * (1 - scale)
    starts = np.linspace(0, slack, 1 + int(np.ceil(slack / STEP)))
    edges = starts[:, None] + np.linspace(0, GREY * scale, SIDE + 1)  # (places, 33)
    pixels = np.arange(GREY)
    covered = np.minimum(edges[:, 1:, None], pixels + 1) - np.maximum(edges[:, :-1, None], pixels)
    covered = np.maximum(covered, 0)
    return (covered / covered.sum(axis=2, keepdims=True)).astype("float32")


def copy_issues(copies: Sequence[Copy], dataset: Dataset) -> list[Issue]:
    """A row for each image that there is another copy of. Of a family the one stays that judges, or else the first:
    what is learned from can be spared, a test image cannot.
    """
    partners: dict[int, list[tuple[float, int]]] = {}
    for copy in copies:
        for image, other in (copy.pair, copy.pair[::-1]):
            partners.setdefault(image, []).append((copy.left, other))
    issues = []
    for family in families(copies):
        parts = {image: SPLITS.index(dataset.examples[image].split) for image in family}
        stays = max(family, key=lambda image: (parts[image], -image))
        for image in family:
            if image != stays:
                left, other = min(partners[image], key=lambda it: (it[1] != stays, parts[it[1]] == parts[image], it))
                kind: Kind = "copy" if parts[other] == parts[image] else "copy across parts"
                issues.append(Issue(kind, image, 1 - left, REMOVE, other))
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
