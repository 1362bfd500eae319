"""Convolutions, in ONNX' own order: channels first, kernels (out, in, *space), zeros around said side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from multitl.onnx_graphs.activations import activated
from multitl.onnx_graphs.sheet import Sheet
from multitl.onnx_graphs.values import Operand, Value, channels_first
from multitl.translation.op_tables import OpTable, Unsupported

writes = OpTable("onnx, convolutions")


@dataclass(frozen=True)
class Window:
    """How a window moves over space: one number for each spatial axis. padding: "same" or "valid"."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str

    @property
    def reach(self) -> list[int]:
        """From the first element of a window to its last, both included."""
        return [dilation * (size - 1) + 1 for size, dilation in zip(self.sizes, self.dilations, strict=True)]

    def lengths(self, space: Sequence[int | None]) -> list[int | None]:
        """Of the axes that come out."""
        triples = zip(space, self.reach, self.strides, strict=True)
        if self.padding == "same":
            return [None if have is None else -(-have // stride) for have, _, stride in triples]
        return [None if have is None else (have - reach) // stride + 1 for have, reach, stride in triples]

    def around(self, space: Sequence[int | None]) -> dict[str, Any]:
        """ONNX' attributes for the padding. Keras has more at the end where it does not come out even."""
        if self.padding == "valid":
            return {}
        if None in space:
            return {"auto_pad": "SAME_UPPER"}
        totals = [
            max((-(-have // stride) - 1) * stride + reach - have, 0)
            for have, reach, stride in zip(space, self.reach, self.strides, strict=True)
            if have is not None
        ]
        return {"pads": [*(total // 2 for total in totals), *(total - total // 2 for total in totals)]}


def each(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    """One number for each axis."""
    return (value,) * count if isinstance(value, int) else tuple(int(one) for one in value)


def array(variable: Any) -> np.ndarray:
    """A variable's value in float32."""
    return np.asarray(keras.ops.convert_to_numpy(variable), "float32")


def window_of(holder: Any, sizes: Sequence[int]) -> Window:
    """Of a layer or operation that has Keras' names for these numbers."""
    rank = len(sizes)
    if holder.padding not in ("same", "valid"):
        raise Unsupported(f"padding={holder.padding!r}")
    return Window(tuple(sizes), each(holder.strides, rank), each(holder.dilation_rate, rank), holder.padding)


def convolved(
    sheet: Sheet,
    x: Value,
    kernel: Operand,
    bias: np.ndarray | None,
    window: Window,
    data_format: str | None,
    groups: int,
) -> Value:
    """kernel: (*space, in / groups, out), as Keras has it."""
    x, axes = sheet.floats(x), channels_first(x.rank, data_format)
    places = (len(window.sizes) + 1, len(window.sizes), *range(len(window.sizes)))
    if isinstance(kernel, Value):
        weights, out = sheet.form(kernel, tuple(int(place) for place in np.argsort(places))), kernel.shape[-1]
    else:
        kernel = np.asarray(kernel)
        weights, out = sheet.constant(kernel.transpose(places), name="kernel"), kernel.shape[-1]
    biases = [] if bias is None else [sheet.constant(bias, name="bias")]
    batch, _, *space = x.placed(axes)
    tensor = sheet.node(
        "Conv", sheet.form(x, axes), weights, *biases, kernel_shape=window.sizes, strides=window.strides,
        dilations=window.dilations, group=groups, **window.around(space),
    )  # fmt: skip
    return sheet.value(tensor, axes, (batch, out, *window.lengths(space)), x)


@writes("layers.Conv1D", "layers.Conv2D", "layers.Conv3D")
def conv(sheet: Sheet, layer: Any, x: Value) -> Value:
    if layer.padding == "causal":
        raise Unsupported("padding='causal'")
    bias = array(layer.bias) if layer.use_bias else None
    window = window_of(layer, layer.kernel_size)
    y = convolved(sheet, x, array(layer.kernel), bias, window, layer.data_format, layer.groups)
    return activated(sheet, y, layer.activation)


def depthwise_kernel(kernel: np.ndarray) -> np.ndarray:
    """(*space, channels, multiplier) -> (*space, 1, channels * multiplier)"""
    return kernel.reshape(*kernel.shape[:-2], 1, -1)


@writes("layers.DepthwiseConv1D", "layers.DepthwiseConv2D")
def depthwise_conv(sheet: Sheet, layer: Any, x: Value) -> Value:
    kernel, bias = array(layer.kernel), array(layer.bias) if layer.use_bias else None
    window = window_of(layer, layer.kernel_size)
    y = convolved(sheet, x, depthwise_kernel(kernel), bias, window, layer.data_format, kernel.shape[-2])
    return activated(sheet, y, layer.activation)


@writes("layers.SeparableConv1D", "layers.SeparableConv2D")
def separable_conv(sheet: Sheet, layer: Any, x: Value) -> Value:
    """Over space, each channel by itself, and then over channels."""
    kernel, bias = array(layer.depthwise_kernel), array(layer.bias) if layer.use_bias else None
    window = window_of(layer, layer.kernel_size)
    ones = (1,) * len(window.sizes)
    y = convolved(sheet, x, depthwise_kernel(kernel), None, window, layer.data_format, kernel.shape[-2])
    point = Window(ones, ones, ones, "valid")
    y = convolved(sheet, y, array(layer.pointwise_kernel), bias, point, layer.data_format, 1)
    return activated(sheet, y, layer.activation)


@writes("ops.Conv")
def conv_operation(sheet: Sheet, operation: Any, x: Value, kernel: Operand) -> Value:
    """The kernel may be computed."""
    shape, channels = _shape(kernel), x.shape[1 if operation.data_format == "channels_first" else -1]
    window = window_of(operation, shape[:-2])
    return convolved(sheet, x, kernel, None, window, operation.data_format, (channels or shape[-2]) // shape[-2])


@writes("ops.DepthwiseConv")
def depthwise_operation(sheet: Sheet, operation: Any, x: Value, kernel: Operand) -> Value:
    """The kernel may be computed."""
    *space, channels, multiplier = _shape(kernel)
    if isinstance(kernel, Value):
        flat: Operand = sheet.reshaped(kernel, [*space, 1, channels * multiplier])
    else:
        flat = depthwise_kernel(np.asarray(kernel))
    return convolved(sheet, x, flat, None, window_of(operation, space), operation.data_format, channels)


def _shape(kernel: Operand) -> tuple[int, ...]:
    return kernel.sizes if isinstance(kernel, Value) else np.shape(kernel)


@writes("layers.Conv1DTranspose", "layers.Conv2DTranspose")
def conv_transpose(sheet: Sheet, layer: Any, x: Value) -> Value:
    """Its kernel is (*space, out, in). ONNX computes the whole and cuts it, or adds zeros at the end."""
    kernel, rank = array(layer.kernel), x.rank - 2
    x, axes, window = sheet.floats(x), channels_first(x.rank, layer.data_format), window_of(layer, layer.kernel_size)
    ends = [None] * rank if layer.output_padding is None else each(layer.output_padding, rank)
    rows = zip(window.reach, window.strides, ends, strict=True)
    zeros = [_zeros_around(reach, stride, window.padding, end) for reach, stride, end in rows]
    cuts = [(reach - 1 - before, reach - 1 - after) for reach, (before, after) in zip(window.reach, zeros, strict=True)]
    batch, _, *space = x.placed(axes)
    lengths = [
        None if have is None else (have - 1) * stride + reach - sum(cut)
        for have, stride, reach, cut in zip(space, window.strides, window.reach, cuts, strict=True)
    ]
    biases = [sheet.constant(array(layer.bias), name="bias")] if layer.use_bias else []
    weights = sheet.constant(kernel.transpose(rank + 1, rank, *range(rank)), name="kernel")
    tensor = sheet.node(
        "ConvTranspose", sheet.form(x, axes), weights, *biases, kernel_shape=window.sizes, strides=window.strides,
        dilations=window.dilations, pads=[*(cut for cut, _ in cuts), *(max(cut, 0) for _, cut in cuts)],
        output_padding=[max(-cut, 0) for _, cut in cuts],
    )  # fmt: skip
    return activated(sheet, sheet.value(tensor, axes, (batch, kernel.shape[-2], *lengths), x), layer.activation)


def _zeros_around(reach: int, stride: int, padding: str, end: int | None) -> tuple[int, int]:
    """Zeros before and after an axis whose elements stand `stride` apart, over which the kernel then moves.

    end: output_padding of the layer.
    """
    if padding == "valid":
        return reach - 1, reach - 1 + (max(stride - reach, 0) if end is None else end)
    total = stride + reach - 2 if end is None else reach + reach % 2 - 2 + end
    before = min(total // 2 + total % 2, reach - 1)
    return before, total - before
