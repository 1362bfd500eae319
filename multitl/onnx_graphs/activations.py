"""Activation functions: as operations, as layers, and by the function that a layer holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from multitl.onnx_graphs.elementwise import add, combined, multiply, subtract, unary
from multitl.onnx_graphs.sheet import Sheet
from multitl.onnx_graphs.values import Value, with_last
from multitl.translation.op_tables import OpTable, Unsupported

writes = OpTable("onnx, activations")

PLAIN = {
    "ops.HardSilu": "HardSwish", "ops.Relu": "Relu", "ops.Selu": "Selu", "ops.Sigmoid": "Sigmoid",
    "ops.Softplus": "Softplus", "ops.Softsign": "Softsign", "ops.Tanh": "Tanh",
}  # fmt: skip
for _name, _kind in PLAIN.items():
    writes(_name)(unary(_kind))


def relu6(sheet: Sheet, x: Value) -> Value:
    return clipped(sheet, x, 0.0, 6.0)


def clipped(sheet: Sheet, x: Value, low: float, high: float) -> Value:
    """low <= x <= high"""
    return sheet.alike(sheet.floats(x), "Clip", sheet.constant(low), sheet.constant(high))


def hard_sigmoid(sheet: Sheet, x: Value) -> Value:
    """relu6(x + 3) / 6"""
    return sheet.alike(sheet.floats(x), "HardSigmoid", alpha=1 / 6, beta=0.5)


def silu(sheet: Sheet, x: Value) -> Value:
    """x * sigmoid(x)"""
    x = sheet.floats(x)
    return multiply(sheet, x, sheet.alike(x, "Sigmoid"))


def mish(sheet: Sheet, x: Value) -> Value:
    """x * tanh(softplus(x))"""
    x = sheet.floats(x)
    return multiply(sheet, x, sheet.alike(sheet.alike(x, "Softplus"), "Tanh"))


def gelu(sheet: Sheet, x: Value, approximate: bool = False) -> Value:
    """x * (1 + erf(x / sqrt 2)) / 2, which onnxruntime fuses, or the same with the tanh that comes near it."""
    x = sheet.floats(x)
    if approximate:
        cubed = multiply(sheet, multiply(sheet, x, x), x)
        inner = multiply(sheet, add(sheet, x, multiply(sheet, cubed, 0.044715)), math.sqrt(2 / math.pi))
        bent = sheet.alike(inner, "Tanh")
    else:
        bent = sheet.alike(combined(sheet, "Div", x, math.sqrt(2)), "Erf")
    return multiply(sheet, multiply(sheet, x, add(sheet, bent, 1.0)), 0.5)


def leaky_relu(sheet: Sheet, x: Value, slope: float = 0.2) -> Value:
    return sheet.alike(sheet.floats(x), "LeakyRelu", alpha=float(slope))


def elu(sheet: Sheet, x: Value, alpha: float = 1.0) -> Value:
    return sheet.alike(sheet.floats(x), "Elu", alpha=float(alpha))


def celu(sheet: Sheet, x: Value, alpha: float = 1.0) -> Value:
    return sheet.alike(sheet.floats(x), "Celu", alpha=float(alpha))


def log_sigmoid(sheet: Sheet, x: Value) -> Value:
    """-softplus(-x)"""
    return sheet.alike(sheet.alike(sheet.alike(sheet.floats(x), "Neg"), "Softplus"), "Neg")


def softmax(sheet: Sheet, x: Value, axis: int | Sequence[int] | None = -1, kind: str = "Softmax") -> Value:
    """Along one axis, wherever that lies."""
    if not isinstance(axis, int):
        raise Unsupported("a softmax along several axes")
    x = sheet.floats(x)
    axes = x.axes if kind == "Softmax" else with_last(x, [axis % x.rank])
    tensor = sheet.node(kind, sheet.form(x, axes), axis=axes[axis % x.rank])
    return sheet.value(tensor, axes, x.placed(axes), x)


def log_softmax(sheet: Sheet, x: Value, axis: int = -1) -> Value:
    return softmax(sheet, x, axis, "LogSoftmax")


def hard_tanh(sheet: Sheet, x: Value) -> Value:
    return clipped(sheet, x, -1.0, 1.0)


def _with(function: Callable[..., Value], *names: str) -> Callable[..., Value]:
    """For the table: a function above, with attributes of the operation or layer as its further arguments."""
    return lambda sheet, operation, x: function(sheet, x, *(getattr(operation, name) for name in names))


writes("ops.Relu6")(_with(relu6))
writes("ops.HardSigmoid")(_with(hard_sigmoid))
writes("ops.HardTanh")(_with(hard_tanh))
writes("ops.Silu")(_with(silu))
writes("ops.LogSigmoid")(_with(log_sigmoid))
writes("ops.Gelu")(_with(gelu, "approximate"))
writes("ops.LeakyRelu", "layers.LeakyReLU")(_with(leaky_relu, "negative_slope"))
writes("ops.Elu", "layers.ELU")(_with(elu, "alpha"))
writes("ops.Celu")(_with(celu, "alpha"))
writes("ops.Softmax", "layers.Softmax")(_with(softmax, "axis"))
writes("ops.LogSoftmax")(_with(log_softmax, "axis"))


@writes("layers.ReLU")
def _relu_layer(sheet: Sheet, layer: Any, x: Value) -> Value:
    """0 below the threshold, or a slope, and no more than the most."""
    x, slope, most = sheet.floats(x), float(layer.negative_slope), layer.max_value
    if layer.threshold and slope:
        raise Unsupported("a threshold and a slope")
    if layer.threshold:
        above = combined(sheet, "Greater", x, float(layer.threshold))
        x = multiply(sheet, x, sheet.cast(_as_bool(above), "float32"))
    elif slope:
        x = leaky_relu(sheet, x, slope)
    elif most is None:
        return sheet.alike(x, "Relu")
    else:
        return clipped(sheet, x, 0.0, float(most))
    return x if most is None else combined(sheet, "Min", x, float(most))


def _as_bool(x: Value) -> Value:
    return Value(x.shape, "bool", x.forms, x.batch)


@writes("layers.PReLU")
def _prelu(sheet: Sheet, layer: Any, x: Value) -> Value:
    """max(x, 0) + alpha * min(x, 0)"""
    x = sheet.floats(x)
    slopes = keras.ops.convert_to_numpy(layer.alpha)
    below = subtract(sheet, x, sheet.alike(x, "Relu"))
    return add(sheet, sheet.alike(x, "Relu"), multiply(sheet, below, slopes))


BY_NAME: dict[str, Callable[[Sheet, Value], Value]] = {
    "celu": celu,
    "elu": elu,
    "gelu": gelu,
    "hard_sigmoid": hard_sigmoid,
    "leaky_relu": leaky_relu,
    "linear": lambda sheet, x: x,
    "log_sigmoid": log_sigmoid,
    "log_softmax": log_softmax,
    "mish": mish,
    "relu6": relu6,
    "silu": silu,
    "softmax": softmax,
    "hard_tanh": hard_tanh,
    "exponential": lambda sheet, x: sheet.alike(sheet.floats(x), "Exp"),
    "hard_silu": lambda sheet, x: sheet.alike(sheet.floats(x), "HardSwish"),
    "relu": lambda sheet, x: sheet.alike(sheet.floats(x), "Relu"),
    "selu": lambda sheet, x: sheet.alike(sheet.floats(x), "Selu"),
    "sigmoid": lambda sheet, x: sheet.alike(sheet.floats(x), "Sigmoid"),
    "softplus": lambda sheet, x: sheet.alike(sheet.floats(x), "Softplus"),
    "softsign": lambda sheet, x: sheet.alike(sheet.floats(x), "Softsign"),
    "tanh": lambda sheet, x: sheet.alike(sheet.floats(x), "Tanh"),
}


def activated(sheet: Sheet, x: Value, function: Any) -> Value:
    """What a layer's `activation`, a function of keras.activations or None, makes of `x`. Raises Unsupported."""
    name = "linear" if function is None else getattr(function, "__name__", type(function).__name__)
    known = function is None or function is getattr(keras.activations, name, None)
    if not known or name not in BY_NAME:
        raise Unsupported(f"the activation {name}")
    return BY_NAME[name](sheet, x)


@writes("layers.Activation")
def activation(sheet: Sheet, layer: Any, x: Value) -> Value:
    return activated(sheet, x, layer.activation)
