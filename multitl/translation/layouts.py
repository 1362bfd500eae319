"""Where PyTorch's axes lie in Keras: of activations as bookkeeping, of weights as pure numpy.

PyTorch counts axes as (batch, channels, height, width); Keras computes on (batch, height, width, channels). A
translated graph keeps PyTorch's way of counting and only remembers where each axis lies: a permutation costs nothing,
and two that cancel out leave no trace. Data moves only where an operation needs its axes in a certain order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from multitl.contracts import TranslatedWeight

Axes = tuple[int, ...]


def channels_last(rank: int) -> Axes:
    """Where the axes (n, c, h, w, ...) lie in (n, h, w, ..., c): (0, 3, 1, 2) for rank 4."""
    return (0, rank - 1, *range(1, rank - 1))


def in_order(rank: int) -> Axes:
    """Every axis at its own place."""
    return tuple(range(rank))


def inverse(axes: Sequence[int]) -> Axes:
    """The permutation that undoes `axes`."""
    return tuple(int(place) for place in np.argsort(axes))


def moves(now: Sequence[int], wanted: Sequence[int]) -> Axes:
    """The argument of `transpose` that brings axes that lie at `now` to `wanted`."""
    logical = inverse(wanted)
    return tuple(now[axis] for axis in logical)


def to_keras(array: np.ndarray, weight: TranslatedWeight, shape: Sequence[int]) -> np.ndarray:
    """The original's tensor as the value of the Keras variable, which has `shape`. Undone by `to_original`."""
    moved = array.reshape(weight.split).transpose(weight.axes)
    return np.ascontiguousarray(moved).reshape(shape)  # in this order: numpy makes of a scalar's copy a vector


def to_original(array: np.ndarray, weight: TranslatedWeight) -> np.ndarray:
    """The value of the Keras variable as a tensor of the original's state_dict, bit by bit."""
    moved = array.reshape([weight.split[axis] for axis in weight.axes])
    return np.ascontiguousarray(moved.transpose(inverse(weight.axes))).reshape(weight.shape)


def plan_reshape(sizes: Sequence[int], axes: Sequence[int], wanted: Sequence[int]) -> tuple[Axes, Axes]:
    """How to reshape from `sizes` to `wanted`, both in the original's order, with as little moved as can be.

    axes: where the axes lie.  Returns where they must lie before the reshape (`axes` itself, if nothing has to move),
    and where the new ones lie after it. Axes of size 1 may lie anywhere; new ones come after the first axis.
    """
    groups = _groups(sizes, wanted)
    solid = sorted((axis for axis, size in enumerate(sizes) if size != 1), key=lambda axis: axes[axis])
    rank = {axis: place for place, axis in enumerate(solid)}
    if not all(_adjoin([rank[axis] for axis in old]) for old, _ in groups):
        groups = sorted(groups, key=lambda group: max(rank[axis] for axis in group[0]))
        solid = [axis for old, _ in groups for axis in old]
        loose = [axis for axis, size in enumerate(sizes) if size == 1]
        axes = inverse([*solid[:1], *loose, *solid[1:]])
    groups = sorted(groups, key=lambda group: axes[group[0][0]])
    order = [axis for _, new in groups for axis in new]
    loose = [axis for axis, size in enumerate(wanted) if size == 1]
    first = len(groups[0][1]) if groups else 0
    return tuple(axes), inverse([*order[:first], *loose, *order[first:]])


def _groups(sizes: Sequence[int], wanted: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Split both shapes into the shortest runs of axes with equal products; axes of size 1 are left out."""
    old = [axis for axis, size in enumerate(sizes) if size != 1]
    new = [axis for axis, size in enumerate(wanted) if size != 1]
    groups = []
    while old and new:
        group = [old.pop(0)], [new.pop(0)]
        a, b = sizes[group[0][0]], wanted[group[1][0]]
        while a != b:
            if a < b:
                group[0].append(old.pop(0))
                a *= sizes[group[0][-1]]
            else:
                group[1].append(new.pop(0))
                b *= wanted[group[1][-1]]
        groups.append(group)
    return groups


def _adjoin(places: Sequence[int]) -> bool:
    return all(after - before == 1 for before, after in pairwise(places))
