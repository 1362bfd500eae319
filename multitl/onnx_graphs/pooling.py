"""Pooling, resizing, and what is put around an image or cut off it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from multitl.onnx_graphs.convolutions import Window, each
from multitl.onnx_graphs.products import mixed
from multitl.onnx_graphs.shapes import sliced
from multitl.onnx_graphs.sheet import Sheet
from multitl.onnx_graphs.values import Value, channels_first
from multitl.translation.op_tables import OpTable, Unsupported

writes = OpTable("onnx, pooling")


def _pooled(sheet: Sheet, kind: str, holder: Any, x: Value) -> Value:
    """Means do not count the padding."""
    x, rank, axes = sheet.floats(x), x.rank - 2, channels_first(x.rank, holder.data_format)
    size = each(holder.pool_size, rank)
    window = Window(size, each(holder.strides or size, rank), (1,) * rank, holder.padding)
    batch, channels, *space = x.placed(axes)
    tensor = sheet.node(
        kind, sheet.form(x, axes), kernel_shape=window.sizes, strides=window.strides, **window.around(space)
    )
    return sheet.value(tensor, axes, (batch, channels, *window.lengths(space)), x)


def _pooling(kind: str) -> Callable[..., Value]:
    return lambda sheet, holder, x: _pooled(sheet, kind, holder, x)


writes("layers.MaxPooling1D", "layers.MaxPooling2D", "layers.MaxPooling3D", "ops.MaxPool")(_pooling("MaxPool"))
writes("layers.AveragePooling1D", "layers.AveragePooling2D", "layers.AveragePooling3D", "ops.AveragePool")(
    _pooling("AveragePool")
)


def _pooled_globally(kind: str) -> Callable[..., Value]:
    def write(sheet: Sheet, layer: Any, x: Value) -> Value:
        x, axes = sheet.floats(x), channels_first(x.rank, layer.data_format)
        batch, channels, *space = x.placed(axes)
        tensor = sheet.node(kind, sheet.form(x, axes))
        y = sheet.value(tensor, axes, (batch, channels, *[1] * len(space)), x)
        return y if layer.keepdims else sheet.without(y, [axis for axis, place in enumerate(axes) if place > 1])

    return write


writes("layers.GlobalAveragePooling1D", "layers.GlobalAveragePooling2D")(_pooled_globally("GlobalAveragePool"))
writes("layers.GlobalMaxPooling1D", "layers.GlobalMaxPooling2D")(_pooled_globally("GlobalMaxPool"))


def padded(
    sheet: Sheet, x: Value, widths: Sequence[tuple[int, int]], mode: str = "constant", value: float = 0
) -> Value:
    """widths: before and after, for each of Keras' axes."""
    if not any(map(any, widths)):
        return x
    axes = x.axes
    laid = [widths[axis] for axis in np.argsort(axes)]
    pads = sheet.numbers([*(before for before, _ in laid), *(after for _, after in laid)])
    more = [sheet.constant(np.asarray(value), x.dtype)] if mode == "constant" else []
    tensor = sheet.node("Pad", x.forms[axes], pads, *more, mode=mode)
    shape = tuple(
        None if size is None else size + before + after for size, (before, after) in zip(x.shape, widths, strict=True)
    )
    return replace(x, shape=shape, forms={axes: tensor})


@writes("ops.Pad")
def pad(sheet: Sheet, operation: Any, x: Value, constant_values: float | np.ndarray | None = None) -> Value:
    """With a number, or with what lies at the edge or is mirrored in it."""
    modes = {"constant": "constant", "reflect": "reflect", "edge": "edge"}
    if operation.mode not in modes:
        raise Unsupported(f"mode={operation.mode!r}")
    widths = [(int(before), int(after)) for before, after in np.broadcast_to(operation.pad_width, (x.rank, 2))]
    return padded(sheet, x, widths, modes[operation.mode], float(constant_values or 0))


def _space(layer: Any, x: Value, widths: Any) -> list[tuple[int, int]]:
    """A layer's widths, of its spatial axes, as those of all axes."""
    pairs = [(int(before), int(after)) for before, after in np.reshape(widths, (-1, 2))]
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return [(0, 0), (0, 0), *pairs] if first else [(0, 0), *pairs, (0, 0)]


@writes("layers.ZeroPadding1D", "layers.ZeroPadding2D", "layers.ZeroPadding3D")
def zero_padding(sheet: Sheet, layer: Any, x: Value) -> Value:
    return padded(sheet, x, _space(layer, x, layer.padding))


@writes("layers.Cropping1D", "layers.Cropping2D", "layers.Cropping3D")
def cropping(sheet: Sheet, layer: Any, x: Value) -> Value:
    cuts = [slice(before, -after or None) for before, after in _space(layer, x, layer.cropping)]
    return sliced(sheet, x, cuts)


# --- other sizes ---


def resized(sheet: Sheet, x: Value, size: Sequence[int], settings: dict[str, Any], data_format: str | None) -> Value:
    """Nearest by ONNX' own operation; else rows and columns are mixed as Keras mixes them, which is exact."""
    x, axes = sheet.floats(x), channels_first(x.rank, data_format)
    batch, channels, *space = x.placed(axes)
    if None in space:
        raise Unsupported("other sizes of images of any size")
    if tuple(space) == tuple(size):
        return x
    if settings["interpolation"] != "nearest":
        matrices = [_resampling(have or 0, wanted, settings) for have, wanted in zip(space, size, strict=True)]
        return mixed(sheet, x, [axis for axis, place in enumerate(axes) if place > 1], matrices)
    scales = sheet.constant([1, 1, *(wanted / have for have, wanted in zip(space, size, strict=True) if have)])
    tensor = sheet.node(
        "Resize", sheet.form(x, axes), "", scales, mode="nearest", nearest_mode="round_prefer_ceil",
        coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    return sheet.value(tensor, axes, (batch, channels, *size), x)


def _resampling(have: int, wanted: int, settings: dict[str, Any]) -> np.ndarray:
    """(wanted, have): what Keras makes of unit vectors, which stand side by side in images of four columns."""
    columns = np.repeat(np.eye(have, dtype="float32")[:, :, None, None], 4, axis=2)
    found = keras.ops.image.resize(columns, (wanted, 4), data_format="channels_last", **settings)
    return keras.ops.convert_to_numpy(found)[:, :, 1, 0].T


@writes("layers.Resizing")
def resizing(sheet: Sheet, layer: Any, x: Value) -> Value:
    return _resized_by(sheet, layer, x, (layer.height, layer.width))


@writes("ops.Resize")
def resize(sheet: Sheet, operation: Any, x: Value) -> Value:
    return _resized_by(sheet, operation, x, operation.size)


def _resized_by(sheet: Sheet, holder: Any, x: Value, size: Sequence[int]) -> Value:
    if holder.crop_to_aspect_ratio or holder.pad_to_aspect_ratio:
        raise Unsupported("a resize that keeps the ratio of the sides")
    settings = {"interpolation": holder.interpolation, "antialias": holder.antialias}
    return resized(sheet, x, size, settings, holder.data_format)


@writes("layers.UpSampling2D", "layers.UpSampling1D")
def up_sampling(sheet: Sheet, layer: Any, x: Value) -> Value:
    """Each row and column several times, or what lies between them."""
    data_format = getattr(layer, "data_format", "channels_last")
    _, _, *space = x.placed(channels_first(x.rank, data_format))
    factors = each(layer.size, len(space))
    size = [(have or 0) * factor for have, factor in zip(space, factors, strict=True)]
    settings = {"interpolation": getattr(layer, "interpolation", "nearest")}
    if None in space:
        raise Unsupported("other sizes of images of any size")
    return resized(sheet, x, size, settings, data_format)
