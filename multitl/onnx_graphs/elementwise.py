"""Operations that work element by element, and the layers made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from multitl.onnx_graphs.sheet import Sheet
from multitl.onnx_graphs.values import Operand, Shape, Value, plain_dtype
from multitl.translation.layouts import Axes, inverse
from multitl.translation.op_tables import OpTable, Unsupported

writes = OpTable("onnx, element by element")

OF_ONE = {
    "Absolute": "Abs", "Arccos": "Acos", "Arcsin": "Asin", "Arctan": "Atan", "Ceil": "Ceil", "Cos": "Cos",
    "Cosh": "Cosh", "Erf": "Erf", "Exp": "Exp", "Floor": "Floor", "Log": "Log", "Negative": "Neg",
    "Reciprocal": "Reciprocal", "Round": "Round", "Sign": "Sign", "Sin": "Sin", "Sinh": "Sinh", "Sqrt": "Sqrt",
    "Tan": "Tan",
}  # fmt: skip
OF_TWO = {
    "Add": "Add", "Subtract": "Sub", "Multiply": "Mul", "Maximum": "Max", "Minimum": "Min", "Power": "Pow",
}  # fmt: skip
COMPARED = {
    "Equal": "Equal", "Greater": "Greater", "GreaterEqual": "GreaterOrEqual", "Less": "Less",
    "LessEqual": "LessOrEqual", "LogicalAnd": "And", "LogicalOr": "Or", "LogicalXor": "Xor",
}  # fmt: skip


def combined(sheet: Sheet, kind: str, *operands: Operand, dtype: str = "") -> Value:
    """A node of several operands with broadcasting. dtype: what they are cast to, by default Keras' promotion."""
    dtype = dtype or _promoted(operands)
    given = [sheet.cast(one, dtype) if isinstance(one, Value) else one for one in operands]
    tensors, axes = _together(sheet, given, dtype)
    return _result(given, dtype, {axes: sheet.node(kind, *tensors)})


def _together(sheet: Sheet, operands: Sequence[Operand], dtype: str) -> tuple[list[str], Axes]:
    """Names of tensors of one rank, all in the form `axes`, which is the cheapest for them."""
    rank = max(np.ndim(one) if not isinstance(one, Value) else one.rank for one in operands)
    laid = [sheet.with_rank(one, rank) if isinstance(one, Value) else one for one in operands]
    values = [one for one in laid if isinstance(one, Value)]
    axes = sheet.cheapest_form(sorted(values, key=lambda value: -value.elements))
    return [
        sheet.form(one, axes) if isinstance(one, Value) else sheet.constant(_laid(one, axes), dtype) for one in laid
    ], axes


def _laid(array: np.ndarray | float, axes: Axes) -> np.ndarray:
    """A known operand in the form `axes`; a number stays one."""
    array = np.asarray(array)
    return (
        array.reshape((1,) * (len(axes) - array.ndim) + array.shape).transpose(inverse(axes)) if array.ndim else array
    )


def _result(operands: Sequence[Operand], dtype: str, forms: dict[Axes, str]) -> Value:
    shape = _broadcast([one.shape if isinstance(one, Value) else np.shape(one) for one in operands])
    return Value(shape, dtype, forms, max(one.batch for one in operands if isinstance(one, Value)))


def _promoted(operands: Sequence[Operand]) -> str:
    kinds = [type(one) if isinstance(one, bool | int | float) else str(one.dtype) for one in operands]
    return plain_dtype(keras.backend.result_type(*kinds))


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    rank = max(map(len, shapes))
    columns = zip(*((*[1] * (rank - len(shape)), *shape) for shape in shapes), strict=True)
    return tuple(None if None in sizes else max(size or 0 for size in sizes) for sizes in columns)


def add(sheet: Sheet, *operands: Operand) -> Value:
    """a + b"""
    return combined(sheet, "Add", *operands)


def subtract(sheet: Sheet, *operands: Operand) -> Value:
    """a - b"""
    return combined(sheet, "Sub", *operands)


def multiply(sheet: Sheet, *operands: Operand) -> Value:
    """a * b"""
    return combined(sheet, "Mul", *operands)


def unary(kind: str) -> Callable[..., Value]:
    """A function that writes one node of a type that wants floats."""
    return lambda sheet, operation, x: sheet.alike(sheet.floats(x), kind)


def _binary(kind: str) -> Callable[..., Value]:
    return lambda sheet, operation, x1, x2: combined(sheet, kind, x1, x2)


def _comparison(kind: str) -> Callable[..., Value]:
    return lambda sheet, operation, x1, x2: replace(combined(sheet, kind, x1, x2), dtype="bool")


for _name, _kind in OF_ONE.items():
    writes(f"ops.{_name}")(unary(_kind))
for _name, _kind in OF_TWO.items():
    writes(f"ops.{_name}")(_binary(_kind))
for _name, _kind in COMPARED.items():
    writes(f"ops.{_name}")(_comparison(_kind))


@writes("ops.Divide", "ops.TrueDivide")
def divide(sheet: Sheet, operation: Any, x1: Operand, x2: Operand) -> Value:
    return combined(sheet, "Div", x1, x2, dtype="float32")


@writes("ops.Square")
def square(sheet: Sheet, operation: Any, x: Value) -> Value:
    tensor = x.forms[x.axes]
    return replace(x, forms={x.axes: sheet.node("Mul", tensor, tensor)})


@writes("ops.Rsqrt")
def rsqrt(sheet: Sheet, operation: Any, x: Value) -> Value:
    return sheet.alike(sheet.alike(sheet.floats(x), "Sqrt"), "Reciprocal")


@writes("ops.NotEqual")
def not_equal(sheet: Sheet, operation: Any, x1: Operand, x2: Operand) -> Value:
    return sheet.alike(replace(combined(sheet, "Equal", x1, x2), dtype="bool"), "Not")


@writes("ops.LogicalNot")
def negation(sheet: Sheet, operation: Any, x: Value) -> Value:
    return sheet.alike(sheet.cast(x, "bool"), "Not")


@writes("ops.Trunc")
def trunc(sheet: Sheet, operation: Any, x: Value) -> Value:
    """sign(x) * floor(|x|)"""
    x = sheet.floats(x)
    return multiply(sheet, sheet.alike(x, "Sign"), sheet.alike(sheet.alike(x, "Abs"), "Floor"))


@writes("ops.Log1p")
def log_of_more(sheet: Sheet, operation: Any, x: Value) -> Value:
    """log(1 + x)"""
    return sheet.alike(add(sheet, sheet.floats(x), 1.0), "Log")


@writes("ops.Expm1")
def less_than_exp(sheet: Sheet, operation: Any, x: Value) -> Value:
    """exp(x) - 1"""
    return subtract(sheet, sheet.alike(sheet.floats(x), "Exp"), 1.0)


@writes("ops.Log2")
def log2(sheet: Sheet, operation: Any, x: Value) -> Value:
    """log(x) / log(2)"""
    return multiply(sheet, sheet.alike(sheet.floats(x), "Log"), 1 / math.log(2))


@writes("ops.Clip")
def clip(sheet: Sheet, operation: Any, x: Value) -> Value:
    low, high = operation.x_min, operation.x_max
    if isinstance(low, Value) or isinstance(high, Value):
        raise Unsupported("limits that are computed")
    return combined(sheet, "Min", combined(sheet, "Max", x, low), high)


@writes("ops.Where")
def where(sheet: Sheet, operation: Any, condition: Operand, x1: Operand, x2: Operand) -> Value:
    """x1 where the condition is true, else x2."""
    dtype = _promoted([x1, x2])
    mask = sheet.cast(sheet.held(condition), "bool")
    given = [mask, *(sheet.cast(one, dtype) if isinstance(one, Value) else one for one in (x1, x2))]
    tensors, axes = _together(sheet, given, dtype)
    return _result(given, dtype, {axes: sheet.node("Where", *tensors)})


@writes("ops.Cast")
def cast(sheet: Sheet, operation: Any, x: Value, dtype: str = "") -> Value:
    """Floats of any precision are float32."""
    return sheet.cast(x, dtype or operation.dtype)


@writes("ops.StopGradient", "ops.Copy", "layers.Identity", "layers.Dropout", "layers.SpatialDropout1D",
        "layers.SpatialDropout2D", "layers.SpatialDropout3D", "layers.GaussianNoise", "layers.GaussianDropout",
        "layers.AlphaDropout", "layers.ActivityRegularization", "layers.StochasticDepth", "layers.RandomFlip",
        "layers.RandomRotation", "layers.RandomTranslation", "layers.RandomZoom", "layers.RandomContrast",
        "layers.RandomBrightness")  # fmt: skip
def unchanged(sheet: Sheet, operation: Any, x: Value) -> Value:
    """What only acts in training."""
    return x


@writes("ops.OnesLike", "ops.ZerosLike", "ops.FullLike")
def filled(sheet: Sheet, operation: Any, x: Value, fill_value: float | np.ndarray | None = None) -> Operand:
    """One number everywhere: known, if the shape is."""
    number = {"OnesLike": 1, "ZerosLike": 0}.get(type(operation).__name__, fill_value)
    dtype = plain_dtype(operation.dtype or x.dtype)
    if None not in x.shape:
        return np.full(x.sizes, number, dtype)
    shape = sheet.node("Shape", x.forms[x.axes])
    tensor = sheet.node("Expand", sheet.constant(np.full((1,) * x.rank, number), dtype), shape)
    return replace(x, dtype=dtype, forms={x.axes: tensor})


# --- layers ---


def _merged(kind: str) -> Callable[..., Value]:
    def write(sheet: Sheet, layer: Any, inputs: Sequence[Operand]) -> Value:
        result = inputs[0]
        for one in inputs[1:]:
            result = combined(sheet, kind, result, one)
        return sheet.held(result)

    return write


for _name, _kind in {"Add": "Add", "Multiply": "Mul", "Maximum": "Max", "Minimum": "Min", "Subtract": "Sub"}.items():
    writes(f"layers.{_name}")(_merged(_kind))


@writes("layers.Average")
def average(sheet: Sheet, layer: Any, inputs: Sequence[Operand]) -> Value:
    return multiply(sheet, _merged("Add")(sheet, layer, inputs), 1 / len(inputs))


@writes("layers.Rescaling")
def rescaling(sheet: Sheet, layer: Any, x: Value) -> Value:
    """x * scale + offset; both may have a number for each channel."""
    scale, offset = (np.asarray(one, "float32") for one in (layer.scale, layer.offset))
    scaled = multiply(sheet, sheet.floats(x), scale) if np.any(scale != 1) else sheet.floats(x)
    return add(sheet, scaled, offset) if np.any(offset != 0) else scaled


@writes("layers.Normalization")
def normalization(sheet: Sheet, layer: Any, x: Value) -> Value:
    """(x - mean) / deviation, or back."""
    mean = keras.ops.convert_to_numpy(layer.mean)
    deviation = np.maximum(np.sqrt(keras.ops.convert_to_numpy(layer.variance)), keras.config.epsilon())
    if layer.invert:
        return add(sheet, multiply(sheet, sheet.floats(x), deviation), mean)
    return combined(sheet, "Div", subtract(sheet, sheet.floats(x), mean), deviation)


@writes("layers.LayerScale")
def layer_scale(sheet: Sheet, layer: Any, x: Value) -> Value:
    """Of ConvNeXt."""
    return multiply(sheet, x, keras.ops.convert_to_numpy(layer.gamma))


@writes("layers.CustomScaleLayer")
def residual_scale(sheet: Sheet, layer: Any, inputs: Sequence[Value]) -> Value:
    """Of InceptionResNetV2: a + b * scale."""
    return add(sheet, inputs[0], multiply(sheet, inputs[1], layer.scale))
