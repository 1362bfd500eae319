"""What rearranges, joins, repeats or takes parts. Permutations are bookkeeping only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from multitl.onnx_graphs.sheet import Sheet
from multitl.onnx_graphs.values import Operand, Value, positive
from multitl.translation.layouts import in_order
from multitl.translation.op_tables import OpTable, Unsupported

writes = OpTable("onnx, shapes")

END = 2**62


def permuted(x: Value, axes: Sequence[int]) -> Value:
    """As np.transpose."""
    forms = {tuple(have[axis] for axis in axes): tensor for have, tensor in x.forms.items()}
    return replace(x, shape=tuple(x.shape[axis] for axis in axes), forms=forms)


@writes("ops.Transpose")
def transpose(sheet: Sheet, operation: Any, x: Value) -> Value:
    return permuted(x, positive(operation.axes, x.rank) if operation.axes else in_order(x.rank)[::-1])


@writes("layers.Permute")
def permute(sheet: Sheet, layer: Any, x: Value) -> Value:
    """dims: from 1, without the batch."""
    return permuted(x, (0, *layer.dims))


@writes("ops.Swapaxes")
def swapaxes(sheet: Sheet, operation: Any, x: Value) -> Value:
    axes = list(in_order(x.rank))
    axes[operation.axis1], axes[operation.axis2] = axes[operation.axis2], axes[operation.axis1]
    return permuted(x, axes)


@writes("ops.Moveaxis")
def moveaxis(sheet: Sheet, operation: Any, x: Value) -> Value:
    order = np.moveaxis(np.empty(range(x.rank)), operation.source, operation.destination)
    return permuted(x, order.shape)


def reshaped(sheet: Sheet, x: Value, wanted: Sequence[int | None]) -> Value:
    """wanted: with one -1 or None at most, for what is left."""
    sizes = [-1 if size is None else int(size) for size in wanted]
    count, known = math.prod(x.sizes), math.prod(size for size in sizes if size != -1)
    if x.shape.count(None) > 1:
        raise Unsupported("a reshape of images of any size")
    return sheet.reshaped(x, [count // known if size == -1 else size for size in sizes])


@writes("ops.Reshape")
def reshape(sheet: Sheet, operation: Any, x: Value) -> Value:
    return reshaped(sheet, x, operation.newshape)


@writes("layers.Reshape")
def reshape_layer(sheet: Sheet, layer: Any, x: Value) -> Value:
    """Of each image."""
    if -1 not in layer.target_shape:
        return reshaped(sheet, x, [x.sizes[0], *layer.target_shape])
    known = math.prod(x.sizes[1:]) // math.prod(size for size in layer.target_shape if size != -1)
    return reshaped(sheet, x, [x.sizes[0], *(known if size == -1 else size for size in layer.target_shape)])


@writes("layers.Flatten")
def flatten(sheet: Sheet, layer: Any, x: Value) -> Value:
    if layer.data_format == "channels_first" and x.rank > 2:
        x = permuted(x, (0, *range(2, x.rank), 1))
    return reshaped(sheet, x, [x.sizes[0], math.prod(x.sizes[1:])])


@writes("ops.Ravel")
def ravel(sheet: Sheet, operation: Any, x: Value) -> Value:
    return reshaped(sheet, x, [-1])


@writes("ops.Squeeze")
def squeeze(sheet: Sheet, operation: Any, x: Value) -> Value:
    if operation.axis is None:
        return sheet.without(x, [axis for axis, size in enumerate(x.shape) if size == 1])
    return sheet.without(x, positive(operation.axis, x.rank))


@writes("ops.ExpandDims")
def expand_dims(sheet: Sheet, operation: Any, x: Value) -> Value:
    chosen = [operation.axis] if isinstance(operation.axis, int) else operation.axis
    for axis in sorted(axis % (x.rank + len(chosen)) for axis in chosen):
        x = sheet.with_axis(x, axis)
    return x


def concatenated(sheet: Sheet, values: Sequence[Operand], axis: int) -> Value:
    """Along one axis, in the form that costs least."""
    known = [one for one in values if isinstance(one, Value)]
    held = [sheet.held(one, known[0].dtype) for one in values]
    axis %= held[0].rank
    axes = sheet.cheapest_form(sorted(known, key=lambda value: -value.elements))
    tensor = sheet.node("Concat", *(sheet.form(one, axes) for one in held), axis=axes[axis])
    lengths = [one.shape[axis] for one in held]
    total = None if None in lengths else sum(length or 0 for length in lengths)
    shape = tuple(total if one == axis else size for one, size in enumerate(known[0].shape))
    return replace(known[0], shape=shape, forms={axes: tensor})


@writes("ops.Concatenate", "layers.Concatenate")
def concatenate(sheet: Sheet, operation: Any, values: Sequence[Operand]) -> Value:
    return concatenated(sheet, values, operation.axis)


@writes("ops.Stack")
def stack(sheet: Sheet, operation: Any, values: Sequence[Operand]) -> Value:
    """Along a new axis."""
    held = [sheet.held(one) for one in values]
    axis = operation.axis % (held[0].rank + 1)
    return concatenated(sheet, [sheet.with_axis(one, axis) for one in held], axis)


def sliced(sheet: Sheet, x: Value, cuts: Sequence[slice]) -> Value:
    """One slice for each of Keras' axes. Raises Unsupported for places counted from an end that is not known."""
    chosen = [axis for axis, cut in enumerate(cuts) if cut not in (slice(None), slice(None, None, 1))]
    if not chosen:
        return x
    shape, ranges = list(x.shape), []
    for axis in chosen:
        ranges.append(_range(cuts[axis], x.shape[axis]))
        is_open = x.shape[axis] is None and cuts[axis].stop is None
        shape[axis] = None if is_open else len(ranges[-1])
    starts, ends = [one.start for one in ranges], [-END if one.stop < 0 else one.stop for one in ranges]
    rows = (starts, ends, [x.axes[axis] for axis in chosen], [one.step for one in ranges])
    tensor = sheet.node("Slice", x.forms[x.axes], *map(sheet.numbers, rows))
    return replace(x, shape=tuple(shape), forms={x.axes: tensor})


def _range(cut: slice, size: int | None) -> range:
    if size is None and (min(cut.start or 0, cut.stop or 0) < 0 or cut.step not in (None, 1)):
        raise Unsupported("a slice counted from the end of the batch")
    return range(*cut.indices(END if size is None else size))


@writes("ops.GetItem")
def get_item(sheet: Sheet, operation: Any, x: Value, key: Any) -> Value:
    """Slices, whole numbers, new axes and "..."; no arrays. A model that comes from a file has lists for tuples."""
    items = list(key) if isinstance(key, tuple | list) else [key]
    if any(not (item is None or item is Ellipsis or isinstance(item, int | slice | np.integer)) for item in items):
        raise Unsupported("an index that is an array or computed")
    taken = sum(item is not None and item is not Ellipsis for item in items)
    if Ellipsis not in items:
        items.append(Ellipsis)
    here = items.index(Ellipsis)
    items[here : here + 1] = [slice(None)] * (x.rank - taken)
    return _cut(sheet, x, items)


def _cut(sheet: Sheet, x: Value, items: Sequence[Any]) -> Value:
    olds = [item for item in items if item is not None]
    cuts = [item if isinstance(item, slice) else slice(item, item + 1 or None) for item in olds]
    x = sliced(sheet, x, cuts)
    gone = [axis for axis, item in enumerate(olds) if not isinstance(item, slice)]
    x = sheet.without(replace(x, shape=tuple(1 if axis in gone else size for axis, size in enumerate(x.shape))), gone)
    for axis, item in enumerate(item for item in items if item is None or isinstance(item, slice)):
        x = sheet.with_axis(x, axis) if item is None else x
    return x


@writes("ops.Split")
def split(sheet: Sheet, operation: Any, x: Value) -> list[Value]:
    """Equal pieces, or at known places."""
    axis, how = operation.axis % x.rank, operation.indices_or_sections
    size = x.shape[axis]
    if size is None:
        raise Unsupported("a split of the batch")
    places = [size // how * piece for piece in range(1, how)] if isinstance(how, int) else [int(one) for one in how]
    lengths = np.diff([0, *places, size]).tolist()
    tensors = sheet.node_of_several(
        "Split", len(lengths), x.forms[x.axes], sheet.numbers(lengths), axis=x.axes[axis]
    )  # fmt: skip
    return [
        replace(x, shape=(*x.shape[:axis], length, *x.shape[axis + 1 :]), forms={x.axes: tensor})
        for length, tensor in zip(lengths, tensors, strict=True)
    ]


@writes("ops.Flip")
def flip(sheet: Sheet, operation: Any, x: Value) -> Value:
    turned = positive(operation.axis, x.rank)
    return sliced(sheet, x, [slice(None, None, -1) if axis in turned else slice(None) for axis in range(x.rank)])


@writes("ops.Roll")
def roll(sheet: Sheet, operation: Any, x: Value) -> Value:
    """Elements that leave at one end come back at the other."""
    if operation.axis is None:
        raise Unsupported("a roll of all elements")
    axes = positive(operation.axis, x.rank)
    shifts = [operation.shift] * len(axes) if isinstance(operation.shift, int) else operation.shift
    for axis, shift in zip(axes, shifts, strict=True):
        size = x.shape[axis]
        if size is None:
            raise Unsupported("a roll of the batch")
        if place := -shift % size:
            before = [slice(None)] * axis
            rest = [slice(None)] * (x.rank - axis - 1)
            pieces = [sliced(sheet, x, [*before, cut, *rest]) for cut in (slice(place, None), slice(0, place))]
            x = concatenated(sheet, pieces, axis)
    return x


@writes("ops.Take")
def take(sheet: Sheet, operation: Any, x: Operand, indices: Operand) -> Value:
    """Elements of an axis by known places; a vector of places, or one."""
    if isinstance(indices, Value) or not isinstance(x, Value) or operation.axis is None:
        raise Unsupported("places that are computed, or of all elements")
    axis, places = operation.axis % x.rank, np.asarray(indices)
    if places.ndim > 1 or x.shape[axis] is None:
        raise Unsupported("a table of places, or places in the batch")
    known = sheet.numbers(np.atleast_1d(places % x.shape[axis]).tolist())
    tensor = sheet.node("Gather", x.forms[x.axes], known, axis=x.axes[axis])
    shape = (*x.shape[:axis], places.size, *x.shape[axis + 1 :])
    taken = replace(x, shape=shape, forms={x.axes: tensor})
    return taken if places.ndim else sheet.without(taken, [axis])


@writes("layers.Embedding")
def embedding(sheet: Sheet, layer: Any, x: Value) -> Value:
    """Rows of a table, by the numbers that come in."""
    table = sheet.constant(keras.ops.convert_to_numpy(layer.embeddings), name="embeddings")
    tensor = sheet.node("Gather", table, sheet.cast(x, "int64").forms[x.axes], axis=0)
    return Value((*x.shape, layer.output_dim), "float32", {(*x.axes, x.rank): tensor}, x.batch)


@writes("ops.Tile")
def tile(sheet: Sheet, operation: Any, x: Value) -> Value:
    given = [operation.repeats] if isinstance(operation.repeats, int) else list(operation.repeats)
    x = sheet.with_rank(x, max(x.rank, len(given)))
    repeats = [*[1] * (x.rank - len(given)), *given]
    laid = [repeats[axis] for axis in np.argsort(x.axes)]
    shape = tuple(None if size is None else size * count for size, count in zip(x.shape, repeats, strict=True))
    batch = x.batch * math.prod(count for size, count in zip(x.shape, repeats, strict=True) if size is None)
    return replace(
        x, shape=shape, batch=batch, forms={x.axes: sheet.node("Tile", x.forms[x.axes], sheet.numbers(laid))}
    )


@writes("ops.Repeat")
def repeat(sheet: Sheet, operation: Any, x: Value) -> Value:
    """Each element of an axis several times in a row."""
    axis = operation.axis
    if axis is None or not isinstance(operation.repeats, int) or x.shape[axis] is None:
        raise Unsupported("repeats of all elements, of the batch, or of a different number each")
    places = np.repeat(np.arange(x.shape[axis]), operation.repeats).tolist()
    tensor = sheet.node("Gather", x.forms[x.axes], sheet.numbers(places), axis=x.axes[axis])
    axis %= x.rank
    return replace(x, shape=(*x.shape[:axis], len(places), *x.shape[axis + 1 :]), forms={x.axes: tensor})


@writes("ops.BroadcastTo")
def broadcast_to(sheet: Sheet, operation: Any, x: Value) -> Value:
    """To a known shape."""
    if None in operation.shape or -1 in operation.shape or None in x.shape:
        raise Unsupported("a broadcast over the batch")
    x = sheet.with_rank(x, len(operation.shape))
    laid = [operation.shape[axis] for axis in np.argsort(x.axes)]
    tensor = sheet.node("Expand", x.forms[x.axes], sheet.numbers(laid))
    return replace(x, shape=tuple(operation.shape), forms={x.axes: tensor})
