"""What the nodes of a graph give: an `Activation`, or a `Stored` tensor of the original's.

An activation depends on the image or on weights that train. It is seen as the original sees it, with its axes in the
original's order, wherever Keras has them: see `layouts`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import keras
import numpy as np
from keras import ops as K  # noqa: N812  (the field's usual short name)

from multitl.translation.layouts import Axes, in_order, inverse, moves, plan_reshape

Operand: TypeAlias = keras.KerasTensor | np.ndarray | float
BATCH = 1_000_003  # stands for the batch size in shapes: a prime, so its multiples are what depends on the batch


@dataclass(frozen=True, eq=False)
class Activation:
    """A symbolic Keras tensor, seen as the original sees it: its axis i lies at axis `axes[i]` of `tensor`.

    batch: the one axis of unknown size is `batch` times the batch size; windows are folded into it, for instance.
    """

    tensor: keras.KerasTensor
    axes: Axes
    batch: int = 1

    @property
    def rank(self) -> int:
        return len(self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """In the original's order, with multiples of BATCH for what depends on the batch."""
        sizes = self.tensor.shape
        return tuple(BATCH * self.batch if sizes[axis] is None else sizes[axis] for axis in self.axes)

    def place(self, axis: int) -> int:
        """Where the original's axis (which may be negative) lies in the tensor."""
        return self.axes[axis % self.rank]

    def with_tensor(self, tensor: keras.KerasTensor) -> Activation:
        """The same axes around another tensor."""
        return replace(self, tensor=tensor)

    def arranged(self, axes: Sequence[int]) -> Activation:
        """The same values with the axes where `axes` says; data moves only if they are not there already."""
        axes = tuple(axes)
        if axes == self.axes:
            return self
        return replace(self, tensor=K.transpose(self.tensor, moves(self.axes, axes)), axes=axes)

    def in_order(self) -> Activation:
        """Every axis where the original has it."""
        return self.arranged(in_order(self.rank))

    def without(self, tensor: keras.KerasTensor, places: Iterable[int]) -> Activation:
        """Around `tensor`, which lacks the tensor axes `places`."""
        gone = set(places)
        kept = [place for place in self.axes if place not in gone]
        order = sorted(kept)
        return replace(self, tensor=tensor, axes=tuple(order.index(place) for place in kept))

    def with_new_axis(self, axis: int) -> Activation:
        """A new axis of size 1 as the original's axis `axis`; it lies after the first, so that channels stay last."""
        place = min(1, self.rank)
        kept = [old + (old >= place) for old in self.axes]
        return replace(self, tensor=K.expand_dims(self.tensor, place), axes=(*kept[:axis], place, *kept[axis:]))

    def with_rank(self, rank: int) -> Activation:
        """New axes of size 1 in front, as broadcasting adds them."""
        new = rank - self.rank
        if not new:
            return self
        tensor = K.expand_dims(self.tensor, in_order(new))
        return replace(self, tensor=tensor, axes=(*range(new), *(place + new for place in self.axes)))

    def reshaped(self, sizes: Sequence[int]) -> Activation:
        """As `torch.reshape`: `sizes` may hold one -1 and multiples of BATCH. What is the same for all images and is
        there only once, stays so.
        """
        if all(size % BATCH for size in self.shape):
            sizes = [size // BATCH if size % BATCH == 0 else size for size in sizes]
        wanted = complete_shape(sizes, math.prod(self.shape))
        if wanted == self.shape:
            return self
        before, after = plan_reshape(self.shape, self.axes, wanted)
        x = self.arranged(before)
        order = [wanted[axis] for axis in inverse(after)]
        batches = [size // BATCH for size in order if size % BATCH == 0]
        tensor = K.reshape(x.tensor, [-1 if size % BATCH == 0 else size for size in order])
        return Activation(tensor, after, batches[0] if batches else 1)


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor of the original's: of its state_dict if it has a `name`, else a constant. `trains`: it is a
    parameter, or without a name what was computed of parameters.
    """

    array: np.ndarray
    name: str = ""
    trains: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def rank(self) -> int:
        return self.array.ndim


Value = Activation | Stored


class Part(NamedTuple):
    """How a stored tensor becomes a variable of a layer: reshaped to `split`, then transposed by `axes`."""

    variable: str
    stored: Stored
    split: tuple[int, ...]
    axes: Axes


def part(
    variable: str, stored: Stored, axes: Sequence[int] | None = None, split: Sequence[int] | None = None
) -> list[Part]:
    """One `Part` in a list, for `Builder.layer`; without `axes` and `split` the tensor is taken as it is."""
    split = tuple(split or stored.shape)
    return [Part(variable, stored, split, tuple(axes or in_order(len(split))))]


def added(a: Operand, b: Operand) -> keras.KerasTensor:
    """a + b with broadcasting.

    Keras 3.15 on TensorFlow takes a second operand with a single axis longer than 1 for a bias, if the first one's last
    (or second) axis is as long: (1, 6, 6, 6) + (1, 6, 1, 1) goes wrong. So the second one here has several.
    """
    if np.shape(a) == np.shape(b) or () in (np.shape(a), np.shape(b)):
        return K.add(a, b)
    small, large = sorted((a, b), key=_long_axes)
    return K.add(small, large) if _long_axes(large) > 1 else K.subtract(small, K.negative(large))


def _long_axes(x: Operand) -> int:
    """Axes longer than 1 whatever the batch size."""
    return sum(size not in (1, None) for size in np.shape(x))


def complete_shape(sizes: Sequence[int], count: int) -> tuple[int, ...]:
    """`sizes` with its -1, if any, replaced so that the product is `count`."""
    known = math.prod(size for size in sizes if size != -1)
    return tuple(count // known if size == -1 else size for size in sizes)
