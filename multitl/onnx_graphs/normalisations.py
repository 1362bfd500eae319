"""Normalisations, as they are in inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from multitl.onnx_graphs.convolutions import array
from multitl.onnx_graphs.elementwise import add, combined, multiply
from multitl.onnx_graphs.reductions import reduced
from multitl.onnx_graphs.sheet import Sheet
from multitl.onnx_graphs.values import Operand, Value, channels_first, positive, with_last
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import BATCH

writes = OpTable("onnx, normalisations")


@writes("layers.BatchNormalization")
def batch_normalization(sheet: Sheet, layer: Any, x: Value) -> Value:
    """By the stored statistics: ONNX' own node where channels lie at its place, else a factor and an offset."""
    x, axis = sheet.floats(x), layer.axis % x.rank
    mean, variance = array(layer.moving_mean), array(layer.moving_variance)
    gamma = array(layer.gamma) if layer.scale else np.ones_like(mean)
    beta = array(layer.beta) if layer.center else np.zeros_like(mean)
    for axes, tensor in x.forms.items():
        if axes[axis] == 1:
            parts = (gamma, beta, mean, variance)
            weights = [sheet.constant(part, name="statistic") for part in parts]
            y = sheet.node("BatchNormalization", tensor, *weights, epsilon=layer.epsilon)
            return sheet.value(y, axes, x.placed(axes), x)
    factor = gamma.astype("float64") / np.sqrt(variance.astype("float64") + layer.epsilon)
    shape = [-1 if one == axis else 1 for one in range(x.rank)]
    scaled = multiply(sheet, x, factor.astype("float32").reshape(shape))
    return add(sheet, scaled, (beta - mean * factor).astype("float32").reshape(shape))


@writes("layers.LayerNormalization")
def layer_normalization(sheet: Sheet, layer: Any, x: Value) -> Value:
    """Over axes that are put last."""
    if getattr(layer, "rms_scaling", False):
        raise Unsupported("rms_scaling")
    x = sheet.floats(x)
    tail = sorted(positive(layer.axis, x.rank))
    axes, shape = with_last(x, tail), [x.shape[axis] or 1 for axis in tail]
    scale = sheet.constant(array(layer.gamma) if layer.scale else np.ones(shape), name="scale")
    offset = [sheet.constant(array(layer.beta), name="offset")] if layer.center else []
    y = sheet.node(
        "LayerNormalization", sheet.form(x, axes), scale, *offset, axis=x.rank - len(tail), epsilon=layer.epsilon
    )
    return sheet.value(y, axes, x.placed(axes), x)


@writes("layers.RMSNormalization")
def rms_normalization(sheet: Sheet, layer: Any, x: Value) -> Value:
    """x / sqrt(mean of squares + epsilon) * scale"""
    x = sheet.floats(x)
    mean = reduced(sheet, "ReduceMean", multiply(sheet, x, x), positive(layer.axis, x.rank), True)
    length = sheet.alike(add(sheet, mean, layer.epsilon), "Sqrt")
    return multiply(sheet, combined(sheet, "Div", x, length), array(layer.scale))


@writes("layers.GroupNormalization")
def group_normalization(sheet: Sheet, layer: Any, x: Value) -> Value:
    """Groups of channels, each with its space in one row, are normalised by themselves; then come scale and offset."""
    x, axis = sheet.floats(x), layer.axis % x.rank
    axes = channels_first(x.rank, "channels_first" if axis == 1 else "channels_last")
    if axes[axis] != 1 or None in x.shape[1:]:
        raise Unsupported("channels elsewhere than last or second, or images of any size")
    groups, channels = layer.groups, x.shape[axis]
    rows = sheet.resized(sheet.form(x, axes), [BATCH, groups, x.elements // groups])
    ones, zeros = sheet.constant(np.ones(groups)), sheet.constant(np.zeros(groups))
    y = sheet.node("InstanceNormalization", rows, ones, zeros, epsilon=layer.epsilon)
    placed = x.placed(axes)
    whole = sheet.resized(y, [BATCH if size is None else size for size in placed])
    shape = [channels if one == axis else 1 for one in range(x.rank)]
    result: Operand = sheet.value(whole, axes, placed, x)
    if layer.scale:
        result = multiply(sheet, result, array(layer.gamma).reshape(shape))
    return sheet.held(add(sheet, result, array(layer.beta).reshape(shape)) if layer.center else result)


def brought_to_length(sheet: Sheet, x: Value, axis: int | Sequence[int] | None, epsilon: float) -> Value:
    """x over its length along some axes; lengths below epsilon count as that."""
    x = sheet.floats(x)
    square = reduced(sheet, "ReduceSum", multiply(sheet, x, x), positive(axis, x.rank), True)
    length = combined(sheet, "Max", sheet.alike(square, "Sqrt"), epsilon)
    return combined(sheet, "Div", x, length)


@writes("layers.UnitNormalization")
def unit_normalization(sheet: Sheet, layer: Any, x: Value) -> Value:
    return brought_to_length(sheet, x, layer.axis, 1e-12)


@writes("ops.Normalize")
def normalize(sheet: Sheet, operation: Any, x: Value) -> Value:
    if operation.order != 2:
        raise Unsupported(f"order={operation.order}")
    epsilon = keras.config.epsilon() if operation.epsilon is None else operation.epsilon
    return brought_to_length(sheet, x, operation.axis, epsilon)
