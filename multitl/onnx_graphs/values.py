"""What flows through a graph while it is written: a `Value`, seen as Keras sees it, wherever its axes lie in ONNX.

Keras computes channels last, ONNX' convolutions channels first. Like a translation's `Activation`, a value only
remembers where each axis lies; data moves where an operation needs another order, and then both forms are at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from multitl.translation.layouts import Axes, in_order, inverse
from multitl.translation.values import BATCH

Shape: TypeAlias = tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the ONNX graph.

    shape: in Keras' order, None where only a run settles a size.  dtype: NumPy's name; "float32" is the only float.
    forms: where Keras' axes lie -> the name of a tensor that has them there, the first one made first.
    batch: the one axis of unknown size is `batch` times the batch size.
    """

    shape: Shape
    dtype: str
    forms: dict[Axes, str]
    batch: int = 1

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def axes(self) -> Axes:
        """Where the axes lie in the form that was made first."""
        return next(iter(self.forms))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape with multiples of BATCH for what depends on the batch."""
        return tuple(BATCH * self.batch if size is None else size for size in self.shape)

    @property
    def elements(self) -> int:
        """How many, of one image."""
        return math.prod(size or 1 for size in self.shape)

    def placed(self, axes: Axes) -> Shape:
        """The shape as it lies in the form `axes`."""
        return tuple(self.shape[axis] for axis in inverse(axes))


Operand: TypeAlias = Value | np.ndarray | float | int


def channels_first(rank: int, data_format: str | None = "channels_last") -> Axes:
    """Where Keras' axes lie in (batch, channels, *space): (0, 2, 3, 1) for rank 4."""
    return in_order(rank) if data_format == "channels_first" else (0, *range(2, rank), 1)


def with_last(x: Value, tail: Sequence[int]) -> Axes:
    """A form of `x` with the axes `tail` last, in this order; one that is at hand, if there is one.

    The other axes keep the order they lie in.
    """
    last = tuple(range(x.rank - len(tail), x.rank))
    for axes in x.forms:
        if tuple(axes[axis] for axis in tail) == last:
            return axes
    others = sorted((axis for axis in range(x.rank) if axis not in tail), key=lambda axis: x.axes[axis])
    return inverse([*others, *tail])


def positive(axis: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Axes counted from the front; None is all of them."""
    chosen = range(rank) if axis is None else [axis] if isinstance(axis, int) else axis
    return tuple(one % rank for one in chosen)


def plain_dtype(dtype: str) -> str:
    """Every float is written as float32, whatever a policy computes in."""
    return "float32" if "float" in dtype else dtype
