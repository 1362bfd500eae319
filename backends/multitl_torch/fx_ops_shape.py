"""Ops that rearrange, cut or join. Most only change the bookkeeping of where axes lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.layouts import channels_last
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import BATCH, Activation, Stored, Value
from multitl_torch.fx_ops_convolution import each

ops = OpTable("shape")

END = 2**62  # ATen's "up to the end"


@ops("contiguous", "clone", "detach", "alias", "to", "to.dtype", "to.dtype_layout", "type_as", "lift_fresh_copy",
     "_to_copy", "detach_")  # fmt: skip
def unchanged(build: Builder, x: Value, *_options) -> Value:
    """Memory formats and gradients are Keras' business, and so is the arithmetic's precision."""
    return x


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


@ops("slice.Tensor")
def slice_(build: Builder, x: Value, axis: int, start: int | None, end: int | None, step: int) -> Activation:
    """start to end, end excluded, by step."""
    x = build.value(x)
    size = x.shape[axis]
    start, end = start or 0, END if end is None else end
    if start == 0 and end >= size and step == 1:
        return x
    if size % BATCH == 0:
        raise Unsupported("a slice of the batch")
    cut = [slice(None)] * x.rank
    cut[x.place(axis)] = slice(start, None if end >= size else end, step)
    return x.with_tensor(x.tensor[tuple(cut)])


@ops("narrow")
def narrow(build: Builder, x: Value, axis: int, start: int, length: int) -> Activation:
    """`length` from `start` on."""
    return slice_(build, x, axis, start, start + length, 1)


@ops("select.int")
def select(build: Builder, x: Value, axis: int, index: int) -> Activation:
    """One element of an axis, which goes."""
    x = build.value(x)
    cut: list[slice | int] = [slice(None)] * x.rank
    cut[x.place(axis)] = index
    return x.without(x.tensor[tuple(cut)], [x.place(axis)])


@ops("unbind.int")
def unbind(build: Builder, x: Value, axis: int) -> list[Activation]:
    """Every element of an axis."""
    return [select(build, x, axis, index) for index in range(x.shape[axis])]


@ops("split.Tensor")
def split(build: Builder, x: Value, size: int, axis: int) -> list[Activation]:
    """Pieces of `size`, the last one shorter."""
    total = x.shape[axis]
    return [slice_(build, x, axis, start, min(start + size, total), 1) for start in range(0, total, size)]


@ops("split_with_sizes", "split.sizes")
def split_with_sizes(build: Builder, x: Value, sizes: Sequence[int], axis: int) -> list[Activation]:
    """Pieces of the given sizes."""
    ends = np.cumsum(sizes).tolist()
    return [slice_(build, x, axis, end - size, end, 1) for size, end in zip(sizes, ends, strict=True)]


@ops("chunk")
def chunk(build: Builder, x: Value, count: int, axis: int) -> list[Activation]:
    """`count` equal pieces, the last one shorter."""
    return split(build, x, -(-x.shape[axis] // count), axis)


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


@ops("index_select")
def index_select(build: Builder, x: Value, axis: int, index: Value) -> Activation:
    """Some elements of an axis, by a known list."""
    if isinstance(index, Activation):
        raise Unsupported("an index that depends on the image")
    x = build.value(x)
    return x.with_tensor(K.take(x.tensor, index.array.astype("int32"), x.place(axis)))


@ops("index.Tensor")
def index(build: Builder, x: Value, indices: Sequence[Value | None]) -> Activation:
    """x[:, i, j]: by known arrays, whose common shape takes the place of the axes, or comes first if these are apart.

    The axes become one, by which the elements are counted. A mask stands for as many axes as it has.
    """
    x = build.value(x)
    chosen, arrays = _chosen(indices)
    sizes = [x.shape[axis] for axis in chosen]
    if any(size % BATCH == 0 for size in sizes):
        raise Unsupported("an index over the batch")
    known = np.ravel_multi_index(np.broadcast_arrays(*arrays), sizes, mode="wrap")
    first = chosen[0] if chosen == list(range(chosen[0], chosen[-1] + 1)) else 0
    others = [axis for axis in range(x.rank) if axis not in chosen]
    y = permute(build, x, [*others[:first], *chosen, *others[first:]])
    before, after = y.shape[:first], y.shape[first + len(chosen) :]
    y = index_select(build, y.reshaped([*before, math.prod(sizes), *after]), first, Stored(known.ravel()))
    return y.reshaped([*before, *known.shape, *after])


def _chosen(indices: Sequence[Value | None]) -> tuple[list[int], list[np.ndarray]]:
    """The axes that are indexed, and each one's array."""
    axes: list[int] = []
    arrays: list[np.ndarray] = []
    axis = 0
    for value in indices:
        if isinstance(value, Activation):
            raise Unsupported("an index that depends on the image")
        found = [] if value is None else value.array.nonzero() if value.array.dtype == bool else [value.array]
        axes += range(axis, axis + len(found))
        arrays += found
        axis += len(found) or 1
    return axes, arrays


@ops("unfold")
def unfold(build: Builder, x: Value, axis: int, size: int, step: int) -> Activation:
    """Windows along an axis, which becomes their number; their elements are a new last axis."""
    axis %= x.rank
    y = windows(build, x, axis, size, step)
    return permute(build, y, [*range(axis + 1), *range(axis + 2, y.rank), axis + 1])


def windows(build: Builder, x: Value, axis: int, size: int, step: int, dilation: int = 1) -> Activation:
    """An axis becomes two: windows and their elements."""
    known = window_indices(x.shape[axis], size, step, dilation)
    if step != size or dilation > 1:
        return index(build, x, [*[None] * axis, Stored(known)])
    y = slice_(build, x, axis, 0, known.size, 1)
    return y.reshaped([*y.shape[:axis], *known.shape, *y.shape[axis + 1 :]])


def window_indices(length: int, size: int, step: int, dilation: int = 1) -> np.ndarray:
    """Of windows that lie inside an axis: (windows, size)."""
    starts = np.arange(0, length - dilation * (size - 1), step)
    return starts[:, None] + dilation * np.arange(size)


@ops("constant_pad_nd")
def constant_pad(build: Builder, x: Activation, widths: Sequence[int], value: float) -> Activation:
    """As `pad`, with a constant."""
    return pad(build, x, widths, "constant", value)


@ops("pad")
def pad(build: Builder, x: Activation, widths: Sequence[int], mode: str, value: float | None) -> Activation:
    """widths: before and after, from the last axis forward; negative ones cut."""
    if mode not in ("constant", "reflect"):
        raise Unsupported(f"pad in the mode {mode}")
    around = [(0, 0)] * x.rank
    for number in range(len(widths) // 2):
        axis, (before, after) = x.rank - 1 - number, widths[2 * number : 2 * number + 2]
        if before < 0 or after < 0:
            x = slice_(build, x, axis, max(-before, 0), x.shape[axis] + min(after, 0), 1)
        around[x.place(axis)] = (max(before, 0), max(after, 0))
    if not any(map(any, around)):
        return x
    if mode == "reflect":
        return x.with_tensor(K.pad(x.tensor, around, mode="reflect"))
    return x.with_tensor(K.pad(x.tensor, around, constant_values=max(float(value or 0), -3e38)))


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
