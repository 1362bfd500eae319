"""Ops that rearrange, repeat or join. Most only change the bookkeeping of where axes lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.layouts import channels_last
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import BATCH, Activation, Stored, Value
from multitl_torch.fx_ops_convolution import each

ops = OpTable("shape")


@ops("contiguous", "clone", "detach", "alias", "lift_fresh_copy", "detach_")
def unchanged(build: Builder, x: Value, *_options) -> Value:
    """Memory formats and gradients are Keras' business."""
    return x


@ops("to", "to.dtype", "to.dtype_layout", "type_as", "_to_copy")
def converted(build: Builder, x: Value, *options) -> Value:
    """Floats, whole numbers and truth values become each other; the arithmetic's precision is Keras' business."""
    kinds = [_kind(option.tensor) for option in options if isinstance(option, Activation)]
    kinds += [_kind(option) for option in options if isinstance(option, torch.dtype)]
    if isinstance(x, Stored) or not kinds or kinds[0] == _kind(x.tensor):
        return x
    return x.with_tensor(K.cast(x.tensor, kinds[0]))


def _kind(typed: Any) -> str:
    """The type in Keras of a tensor or a type of PyTorch: of three."""
    name = str(typed if isinstance(typed, torch.dtype) else typed.dtype)
    return "float32" if "float" in name else "bool" if "bool" in name else "int32"


@ops("permute")
def permute(build: Builder, x: Value, axes: Sequence[int]) -> Activation:
    """Bookkeeping only."""
    x = build.value(x)
    return Activation(x.tensor, tuple(x.place(axis) for axis in axes), x.batch)


@ops("transpose.int", "swapaxes", "swapdims")
def transpose(build: Builder, x: Value, first: int, second: int) -> Activation:
    """Bookkeeping only."""
    axes = list(range(x.rank))
    axes[first], axes[second] = axes[second], axes[first]
    return permute(build, x, axes)


@ops("movedim.int", "movedim.intlist")
def movedim(build: Builder, x: Value, sources: int | Sequence[int], places: int | Sequence[int]) -> Activation:
    """Bookkeeping only."""
    moved = dict(zip((place % x.rank for place in each(places, 1)), each(sources, 1), strict=True))
    rest = iter(axis for axis in range(x.rank) if axis not in [source % x.rank for source in moved.values()])
    return permute(build, x, [moved[place] if place in moved else next(rest) for place in range(x.rank)])


@ops("t", "numpy_T", "mT")
def transpose_last(build: Builder, x: Value) -> Activation:
    """Bookkeeping only."""
    return transpose(build, x, -2, -1) if x.rank > 1 else build.value(x)


@ops("view", "reshape", "_unsafe_view")
def reshape(build: Builder, x: Value, sizes: Sequence[int]) -> Activation:
    """Moves data only where merged axes do not lie side by side."""
    return build.value(x).reshaped(sizes)


@ops("reshape_as", "view_as")
def reshape_as(build: Builder, x: Value, other: Value) -> Activation:
    """As `reshape`, to another value's shape."""
    return reshape(build, x, other.shape)


@ops("flatten.using_ints")
def flatten(build: Builder, x: Value, first: int, last: int) -> Activation:
    """Axes first to last, both included, become one."""
    first, last = first % x.rank, last % x.rank
    return reshape(build, x, [*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]])


@ops("unflatten.int")
def unflatten(build: Builder, x: Value, axis: int, sizes: Sequence[int]) -> Activation:
    """One axis becomes several."""
    axis %= x.rank
    known = -math.prod(sizes) if -1 in sizes else 0
    sizes = [x.shape[axis] // known if size == -1 else size for size in sizes]
    return reshape(build, x, [*x.shape[:axis], *sizes, *x.shape[axis + 1 :]])


@ops("unsqueeze")
def unsqueeze(build: Builder, x: Value, axis: int) -> Activation:
    """A new axis of size 1."""
    return build.value(x).with_new_axis(axis % (x.rank + 1))


@ops("squeeze.dim")
def squeeze(build: Builder, x: Value, axis: int) -> Activation:
    """Drops an axis if its size is 1."""
    return squeeze_several(build, x, [axis])


@ops("squeeze.dims")
def squeeze_several(build: Builder, x: Value, axes: Sequence[int]) -> Activation:
    """Drops those axes whose size is 1."""
    x = build.value(x)
    places = tuple(x.place(axis) for axis in axes if x.shape[axis] == 1)
    return x.without(K.squeeze(x.tensor, places), places) if places else x


@ops("squeeze")
def squeeze_all(build: Builder, x: Value) -> Activation:
    """Drops all axes of size 1."""
    return squeeze_several(build, x, range(x.rank))


@ops("expand")
def expand(build: Builder, x: Value, sizes: Sequence[int], _implicit: bool = False) -> Activation:
    """Repeats along axes of size 1, the batch included."""
    x = build.value(x).with_rank(len(sizes))
    repeats = [1] * x.rank
    for axis, (have, wanted) in enumerate(zip(x.shape, sizes, strict=True)):
        if have == 1 and wanted % BATCH == 0:
            if wanted != BATCH:
                raise Unsupported("expand to a multiple of the batch")
            x = build.over_batch(x, axis)
        elif have == 1 and wanted > 1:
            repeats[x.place(axis)] = wanted
    return x.with_tensor(K.tile(x.tensor, repeats)) if max(repeats) > 1 else x


@ops("expand_as")
def expand_as(build: Builder, x: Value, other: Value) -> Activation:
    """As `expand`, to another value's shape."""
    return expand(build, x, other.shape)


@ops("copy_")
def copy(build: Builder, x: Activation, source: Value, _non_blocking: bool) -> Activation:
    """The source's values, as many as `x` has."""
    return expand_as(build, source, x)


@ops("repeat")
def repeat(build: Builder, x: Value, repeats: Sequence[int]) -> Activation:
    """Tiles; a repetition for each image of the batch needs an axis of size 1."""
    return build.repeated(build.value(x).with_rank(len(repeats)), repeats)


@ops("tile")
def tile(build: Builder, x: Value, repeats: Sequence[int]) -> Activation:
    """As `repeat`, where a missing number at the front is 1."""
    return repeat(build, x, [*[1] * (x.rank - len(repeats)), *repeats])


@ops("repeat_interleave.self_int")
def repeat_interleave(build: Builder, x: Value, count: int, axis: int | None, _size: int | None) -> Activation:
    """Each element of an axis `count` times in a row; without an axis, of all elements."""
    if axis is None:
        return repeat_interleave(build, reshape(build, x, [-1]), count, 0, None)
    axis %= x.rank
    before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    y = expand(build, unsqueeze(build, x, axis + 1), [*before, size, count, *after])
    return y.reshaped([*before, size * count, *after])


@ops("cat", "concat")
def concatenate(build: Builder, values: Sequence[Value], axis: int = 0) -> Activation:
    """Along one axis, in the layout of the first activation."""
    values = [value for value in values if value.shape != (0,)]
    activations = [value for value in values if isinstance(value, Activation)]
    if not activations:  # all are weights, or constants beside one
        activations = [build.hold(value) for value in values if isinstance(value, Stored) and value.name]
    lead = max(activations, key=lambda x: math.prod(x.shape))
    axis %= lead.rank
    tensors = [_spread(build, value, lead, axis).arranged(lead.axes).tensor for value in values]
    return lead.with_tensor(K.concatenate(tensors, lead.place(axis)))


def _spread(build: Builder, value: Value, lead: Activation, axis: int) -> Activation:
    """A value as an activation in the layout of `lead` and, where that has the batch, for each image."""
    x = build.value(value, lead.axes)
    sizes = [
        have if other == axis else wanted for other, (have, wanted) in enumerate(zip(x.shape, lead.shape, strict=True))
    ]
    return expand(build, x, sizes)


@ops("stack")
def stack(build: Builder, values: Sequence[Value], axis: int = 0) -> Activation:
    """Along a new axis."""
    return concatenate(build, [unsqueeze(build, value, axis) for value in values], axis)


@ops("roll")
def roll(build: Builder, x: Activation, shifts: int | Sequence[int], axes: int | Sequence[int]) -> Activation:
    """Elements that leave at one end come back at the other."""
    for shift, axis in zip(each(shifts, 1), each(axes, 1), strict=True):
        x = x.with_tensor(K.roll(x.tensor, shift, x.place(axis)))
    return x


@ops("flip")
def flip(build: Builder, x: Activation, axes: Sequence[int]) -> Activation:
    """Back to front."""
    return x.with_tensor(K.flip(x.tensor, tuple(x.place(axis) for axis in axes)))


@ops("pixel_shuffle")
def pixel_shuffle(build: Builder, x: Activation, factor: int) -> Activation:
    """(n, c * f * f, h, w) -> (n, c, h * f, w * f)."""
    n, c, h, w = x.shape
    x = x.reshaped([n, c // factor**2, factor, factor, h, w])
    x = permute(build, x, [0, 1, 4, 2, 5, 3])
    return x.reshaped([n, c // factor**2, h * factor, w * factor])


@ops("pixel_unshuffle")
def pixel_unshuffle(build: Builder, x: Activation, factor: int) -> Activation:
    """(n, c, h * f, w * f) -> (n, c * f * f, h, w)."""
    n, c, h, w = x.shape
    x = x.reshaped([n, c, h // factor, factor, w // factor, factor])
    x = permute(build, x, [0, 1, 3, 5, 2, 4])
    return x.reshaped([n, c * factor**2, h // factor, w // factor])


@ops("channel_shuffle")
def channel_shuffle(build: Builder, x: Activation, groups: int) -> Activation:
    """Channels of the groups, one of each in turn."""
    n, c, *space = x.shape
    x = x.arranged(channels_last(x.rank)).reshaped([n, groups, c // groups, *space])
    return transpose(build, x, 1, 2).reshaped([n, c, *space])
