"""Where PyTorch's axes lie in Keras: of activations as bookkeeping, of weights as pure numpy.

PyTorch counts axes as (batch, channels, height, width); Keras computes on (batch, height, width, channels). A translated
graph keeps PyTorch's way of counting and only remembers where each axis lies, so a permutation costs nothing, and two
that cancel out leave no trace. Data moves only where an operation needs its axes in a certain order.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """The original's tensor as the value of the Keras variable, which has `shape`. The exact inverse of `to_original`."""
    return np.ascontiguousarray(array.reshape(weight.split).transpose(weight.axes).reshape(shape))


def to_original(array: np.ndarray, weight: TranslatedWeight) -> np.ndarray:
    """The value of the Keras variable as a tensor of the original's state_dict, bit by bit."""
    moved = array.reshape([weight.split[axis] for axis in weight.axes])
    return np.ascontiguousarray(moved.transpose(inverse(weight.axes)).reshape(weight.shape))
