"""Ops that move, cut and join values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from keras import layers
from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import BATCH, Activation, Stored, Value
from multitl_tensorflow.operations import Operation

ops = OpTable("shape")


def numbers(value: Value) -> list[int]:
    """A known list of whole numbers."""
    if isinstance(value, Activation) or value.name:
        raise Unsupported("a shape, an axis or an index that depends on the image or a weight")
    return [int(one) for one in np.ravel(value.array)]


@ops("Reshape")
def reshape(build: Builder, node: Operation, x: Activation, shape: Value) -> Activation:
    """To sizes of which one may be -1."""
    return x.reshaped(numbers(shape))


@ops("Squeeze")
def squeeze(build: Builder, node: Operation, x: Activation) -> Activation:
    """Drops axes of size 1: those listed, or all."""
    listed = node.integers("squeeze_dims") or [axis for axis, size in enumerate(x.shape) if size == 1]
    places = tuple(x.place(axis) for axis in listed)
    return x.without(K.squeeze(x.tensor, places), places) if places else x


@ops("ExpandDims")
def expand_dims(build: Builder, node: Operation, x: Activation, axis: Value) -> Activation:
    """A new axis of size 1."""
    (place,) = numbers(axis)
    return x.with_new_axis(place % (x.rank + 1))


@ops("Transpose")
def transpose(build: Builder, node: Operation, x: Activation, order: Value) -> Activation:
    """Only bookkeeping: data moves where an operation needs it to."""
    return Activation(x.tensor, tuple(x.axes[axis] for axis in numbers(order)), x.batch)


@ops("ConcatV2")
def concatenate(build: Builder, node: Operation, *values: Value) -> Activation:
    """Along the axis that comes last."""
    (axis,) = numbers(values[-1])
    return _joined(build, values[:-1], axis)


@ops("Concat")
def concatenate_first(build: Builder, node: Operation, axis: Value, *values: Value) -> Activation:
    """Along the axis that comes first."""
    return _joined(build, values, numbers(axis)[0])


def _joined(build: Builder, values: Sequence[Value], axis: int) -> Activation:
    activations = [value for value in values if isinstance(value, Activation)]
    lead = max(activations or [build.value(values[0])], key=lambda x: math.prod(x.shape))
    place = axis % lead.rank
    spread = [_spread(build, value, lead, place) for value in values]
    tensors = [value.arranged(lead.axes).tensor for value in spread]
    return lead.with_tensor(layers.Concatenate(lead.place(place), name=build.name())(tensors))


def _spread(build: Builder, value: Value, lead: Activation, axis: int) -> Activation:
    """A value in the layout of `lead` and, where that has the batch, for each image."""
    x = build.value(value, lead.axes if value.rank == lead.rank else None)
    for other, size in enumerate(lead.shape):
        if other != axis and size % BATCH == 0 and x.shape[other] == 1:
            x = build.over_batch(x, other)
    return x


@ops("Pack")
def pack(build: Builder, node: Operation, *values: Value) -> Activation:
    """Along a new axis."""
    held = [build.value(value) for value in values]
    axis = node.integer("axis") % (held[0].rank + 1)
    return _joined(build, [value.with_new_axis(axis) for value in held], axis)


@ops("Unpack")
def unpack(build: Builder, node: Operation, x: Activation) -> list[Activation]:
    """Every element of an axis."""
    axis = node.integer("axis") % x.rank
    return [_element(x, axis, index) for index in range(node.integer("num"))]


@ops("Split")
def split(build: Builder, node: Operation, axis: Value, x: Value) -> list[Activation]:
    """Equal pieces."""
    x, count, (place,) = build.value(x), node.integer("num_split"), numbers(axis)
    size = x.shape[place] // count
    return [_range(x, place % x.rank, index * size, (index + 1) * size) for index in range(count)]


@ops("SplitV")
def split_sizes(build: Builder, node: Operation, x: Activation, pieces: Value, axis: Value) -> list[Activation]:
    """Pieces of the given sizes, one of which may be -1."""
    (place,) = numbers(axis)
    wanted = numbers(pieces)
    wanted = [x.shape[place] - sum(wanted) - 1 if size == -1 else size for size in wanted]
    ends = np.cumsum(wanted).tolist()
    return [_range(x, place % x.rank, end - size, end) for size, end in zip(wanted, ends, strict=True)]


@ops("Slice")
def slice_(build: Builder, node: Operation, x: Activation, begin: Value, size: Value) -> Activation:
    """From `begin`, `size` elements; -1 for all that are left."""
    for axis, (start, count) in enumerate(zip(numbers(begin), numbers(size), strict=True)):
        end = x.shape[axis] if count == -1 else start + count
        x = _range(x, axis, start, end)
    return x


@ops("StridedSlice")
def strided_slice(build: Builder, node: Operation, x: Activation, begin: Value, end: Value, steps: Value) -> Activation:
    """x[begin:end:step, ...] with Python's meaning, as the masks say."""
    items = slice_items(node, x.rank, numbers(begin), numbers(end), numbers(steps))
    axis = 0
    for item in items:
        if item is None:
            x = x.with_new_axis(axis)
        elif isinstance(item, int):
            x = _element(x, axis, item)
            continue
        elif item.step in (None, 1):
            size = x.shape[axis]
            x = _range(x, axis, *item.indices(size)[:2])
        elif item.step < 0:  # Keras on PyTorch does not cut backwards
            _keep_batch(x, axis)
            known = np.arange(x.shape[axis], dtype="int32")[item]
            x = x.with_tensor(K.take(x.tensor, known, x.place(axis)))
        else:
            x = _cut(x, axis, item)
        axis += 1
    return x


def slice_items(
    node: Operation, rank: int, begin: Sequence[int], end: Sequence[int], steps: Sequence[int]
) -> list[slice | int | None]:
    """What stands between the brackets in Python; None is a new axis, and '...' is spelled out."""

    def has(mask: str, place: int) -> bool:
        return bool(node.integer(mask) >> place & 1)

    items: list[slice | int | None] = []
    used = sum(not has("new_axis_mask", place) and not has("ellipsis_mask", place) for place in range(len(begin)))
    for place, (first, last, step) in enumerate(zip(begin, end, steps, strict=True)):
        if has("ellipsis_mask", place):
            items += [slice(None)] * (rank - used)
        elif has("new_axis_mask", place):
            items.append(None)
        elif has("shrink_axis_mask", place):
            items.append(first)
        else:
            start = None if has("begin_mask", place) else first
            stop = None if has("end_mask", place) else last
            items.append(slice(start, stop, step))
    return items


def _element(x: Activation, axis: int, index: int) -> Activation:
    """One element of an axis, which goes."""
    _keep_batch(x, axis)
    cut: list[slice | int] = [slice(None)] * x.rank
    cut[x.place(axis)] = index
    return x.without(x.tensor[tuple(cut)], [x.place(axis)])


def _range(x: Activation, axis: int, start: int, end: int) -> Activation:
    if start == 0 and end >= x.shape[axis]:
        return x
    return _cut(x, axis, slice(start, end))


def _cut(x: Activation, axis: int, item: slice) -> Activation:
    _keep_batch(x, axis)
    cut = [slice(None)] * x.rank
    cut[x.place(axis)] = item
    return x.with_tensor(x.tensor[tuple(cut)])


def _keep_batch(x: Activation, axis: int) -> None:
    if x.shape[axis] % BATCH == 0:
        raise Unsupported("a slice of the batch")


@ops("GatherV2")
def gather(build: Builder, node: Operation, x: Activation, indices: Value, axis: Value) -> Activation:
    """Some elements of an axis, by a known list; an index alone drops the axis."""
    (place,) = numbers(axis)
    chosen = numbers(indices)
    if not indices.rank:
        return _element(x, place % x.rank, chosen[0])
    _keep_batch(x, place)
    y = x.with_tensor(K.take(x.tensor, np.array(chosen, "int32"), x.place(place)))
    place %= x.rank
    return y if indices.rank == 1 else y.reshaped([*y.shape[:place], *indices.shape, *y.shape[place + 1 :]])


@ops("Pad", "PadV2")
def pad(build: Builder, node: Operation, x: Activation, widths: Value, value: Value | None = None) -> Activation:
    """A constant around each axis; -inf becomes a number that JSON knows."""
    fill = float(value.array) if isinstance(value, Stored) else 0.0
    around = _around(x, widths)
    return x.with_tensor(K.pad(x.tensor, around, constant_values=max(fill, -3e38))) if any(map(any, around)) else x


@ops("MirrorPad")
def mirror_pad(build: Builder, node: Operation, x: Activation, widths: Value) -> Activation:
    """The values themselves, mirrored."""
    return x.with_tensor(K.pad(x.tensor, _around(x, widths), mode=node.text("mode").lower()))


def _around(x: Activation, widths: Value) -> list[tuple[int, int]]:
    pairs = np.reshape(numbers(widths), (x.rank, 2)).tolist()
    around = [(0, 0)] * x.rank
    for axis, (before, after) in enumerate(pairs):
        around[x.place(axis)] = (before, after)
    return around


@ops("BroadcastTo")
def broadcast(build: Builder, node: Operation, x: Activation, shape: Value) -> Activation:
    """Repeats along axes of size 1, the batch included."""
    wanted = numbers(shape)
    x = x.with_rank(len(wanted))
    return build.repeated(x, [1 if have == size else size for have, size in zip(x.shape, wanted, strict=True)])


@ops("Tile")
def tile(build: Builder, node: Operation, x: Activation, counts: Value) -> Activation:
    """Repeats each axis; for each image of the batch needs an axis of size 1."""
    return build.repeated(x, numbers(counts))


@ops("DepthToSpace", "SpaceToDepth")
def move_blocks(build: Builder, node: Operation, x: Activation) -> Activation:
    """(n, h * b, w * b, c) <-> (n, h, w, b * b * c)."""
    if node.text("data_format") != "NHWC":
        raise Unsupported(f"{node.op} with channels first")
    (n, height, width, channels), block = x.shape, node.integer("block_size")
    if node.op == "SpaceToDepth":
        split_ = x.reshaped([n, height // block, block, width // block, block, channels])
        moved = Activation(split_.tensor, tuple(split_.axes[axis] for axis in (0, 1, 3, 2, 4, 5)), x.batch)
        return moved.reshaped([n, height // block, width // block, block * block * channels])
    split_ = x.reshaped([n, height, width, block, block, channels // block**2])
    moved = Activation(split_.tensor, tuple(split_.axes[axis] for axis in (0, 1, 3, 2, 4, 5)), x.batch)
    return moved.reshaped([n, height * block, width * block, channels // block**2])


@ops("ResizeBilinear", "ResizeNearestNeighbor")
def resize(build: Builder, node: Operation, x: Activation, size: Value) -> Activation:
    """To a known height and width; the same size is left alone."""
    height, width = numbers(size)
    x = x.in_order()
    if x.shape[1:3] == (height, width):
        return x
    if not node.flag("half_pixel_centers"):
        raise Unsupported("a resize without half_pixel_centers")
    method = "bilinear" if node.op == "ResizeBilinear" else "nearest"
    return x.with_tensor(layers.Resizing(height, width, interpolation=method, name=build.name())(x.tensor))
