"""Ops that take parts of a value, by place or by index, or put something around it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from keras import layers
from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import BATCH, Activation, Stored, Value, part
from multitl_torch.fx_ops_shape import permute

ops = OpTable("cutting")

END = 2**62  # ATen's "up to the end"
AROUND = {  # modes that pad with what is there -> which places of an axis stand for some outside
    "circular": lambda places, size: places % size,
    "replicate": lambda places, size: np.clip(places, 0, size - 1),
}


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


@ops("index_select")
def index_select(build: Builder, x: Value, axis: int, index: Value) -> Activation:
    """Some elements of an axis, by a known list."""
    if isinstance(index, Activation):
        raise Unsupported("an index that depends on the image")
    x = build.value(x)
    return x.with_tensor(K.take(x.tensor, index.array.astype("int32"), x.place(axis)))


@ops("embedding")
def embedding(build: Builder, table: Value, places: Value, *_training) -> Activation:
    """Rows of a table (rows, width), by places of any shape: those of tokens as they come in, or known positions."""
    if isinstance(places, Activation):
        if isinstance(table, Activation):
            raise Unsupported("a computed table")
        held = part("embeddings", table)
        tensor = build.layer(lambda name: layers.Embedding(*table.shape, name=name), places.tensor, held)
        return Activation(tensor, (*places.axes, places.rank), places.batch)
    rows = index_select(build, table, 0, Stored(places.array.ravel()))
    return rows.reshaped([*places.shape, table.shape[1]])


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
    if mode in AROUND:
        return _from_around(build, x, widths, mode)
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


def _from_around(build: Builder, x: Activation, widths: Sequence[int], mode: str) -> Activation:
    """Padded with elements of `x` itself, which are taken by their places."""
    if min(widths) < 0:
        raise Unsupported("pad with negative widths")
    for number in range(len(widths) // 2):
        axis, (before, after) = x.rank - 1 - number, widths[2 * number : 2 * number + 2]
        places = np.arange(-before, x.shape[axis] + after)
        if before or after:
            x = index_select(build, x, axis, Stored(AROUND[mode](places, x.shape[axis])))
    return x
