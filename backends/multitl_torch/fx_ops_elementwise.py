"""Ops that work element by element, and what only acts in training."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from keras import layers
from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import Activation, Stored, Value, added

ops = OpTable("elementwise")

SAME_NAME = ("relu", "relu6", "sigmoid", "tanh", "silu", "selu", "exp", "log", "sqrt", "rsqrt", "square", "abs", "sin",
             "cos", "erf", "reciprocal", "floor", "sign", "ceil", "round", "trunc", "log1p", "expm1", "log2", "tan",
             "sinh", "cosh")  # fmt: skip
OTHER_NAME = {"neg": K.negative, "hardswish": K.hard_silu, "hardsigmoid": K.hard_sigmoid, "log_sigmoid": K.log_sigmoid,
              "asin": K.arcsin, "acos": K.arccos, "atan": K.arctan}  # fmt: skip


def _unary(function: Callable) -> Callable[..., Activation]:
    return lambda build, x: x.with_tensor(function(x.tensor))


for _name in SAME_NAME:
    ops(_name)(_unary(getattr(K, _name)))
for _name, _function in OTHER_NAME.items():
    ops(_name)(_unary(_function))


@ops("zero_")
def zero(build: Builder, x: Activation) -> Activation:
    """All zeros."""
    return x.with_tensor(K.zeros_like(x.tensor))


@ops("fill_.Scalar", "fill_.Tensor")
def fill(build: Builder, x: Activation, value: float | Stored) -> Activation:
    """One number everywhere."""
    number = value.array.item() if isinstance(value, Stored) else value
    return x.with_tensor(K.full_like(x.tensor, number))


@ops("gelu")
def gelu(build: Builder, x: Activation, approximate: str) -> Activation:
    """approximate: "none" or "tanh"."""
    return x.with_tensor(K.gelu(x.tensor, approximate=approximate == "tanh"))


@ops("mish")
def mish(build: Builder, x: Activation) -> Activation:
    """x * tanh(softplus(x))."""
    return x.with_tensor(K.multiply(x.tensor, K.tanh(K.softplus(x.tensor))))


@ops("softplus")
def softplus(build: Builder, x: Activation, beta: float, _threshold: float) -> Activation:
    """log(1 + exp(beta x)) / beta; beyond the threshold PyTorch takes x itself, which is the same in float32."""
    return x.with_tensor(K.divide(K.softplus(K.multiply(x.tensor, beta)), beta))


@ops("leaky_relu")
def leaky_relu(build: Builder, x: Activation, slope: float) -> Activation:
    """x where positive, else slope * x."""
    return x.with_tensor(K.leaky_relu(x.tensor, slope))


@ops("elu")
def elu(build: Builder, x: Activation, alpha: float, scale: float, input_scale: float) -> Activation:
    """x where positive, else alpha * (exp(x) - 1)."""
    if (scale, input_scale) != (1, 1):
        raise Unsupported("elu with scales")
    return x.with_tensor(K.elu(x.tensor, alpha))


@ops("celu")
def celu(build: Builder, x: Activation, alpha: float) -> Activation:
    """x where positive, else alpha * (exp(x / alpha) - 1)."""
    return x.with_tensor(K.celu(x.tensor, alpha))


@ops("rrelu")
def rrelu(build: Builder, x: Activation, lower: float, upper: float, _train: bool, _generator) -> Activation:
    """Outside training the slope of negative numbers is the mean of those that training draws from."""
    return leaky_relu(build, x, (lower + upper) / 2)


@ops("hardshrink")
def hardshrink(build: Builder, x: Activation, width: float) -> Activation:
    """0 from -width to width, else x."""
    return x.with_tensor(K.where(K.greater(K.abs(x.tensor), width), x.tensor, 0.0))


@ops("softshrink")
def softshrink(build: Builder, x: Activation, width: float) -> Activation:
    """0 from -width to width, else x brought nearer to 0 by the width."""
    return x.with_tensor(K.subtract(x.tensor, K.clip(x.tensor, -width, width)))


@ops("threshold")
def threshold(build: Builder, x: Activation, least: float, value: float) -> Activation:
    """x where it is above `least`, else `value`."""
    return x.with_tensor(K.where(K.greater(x.tensor, least), x.tensor, float(value)))


@ops("glu")
def glu(build: Builder, x: Activation, axis: int) -> Activation:
    """The first half of an axis, times the sigmoid of the second."""
    first, second = K.split(x.tensor, 2, x.place(axis))
    return x.with_tensor(K.multiply(first, K.sigmoid(second)))


@ops("prelu")
def prelu(build: Builder, x: Activation, slope: Value) -> Activation:
    """x where positive, else slope[channel] * x."""
    shape = [1, -1, *[1] * (x.rank - 2)]
    slopes = build.operand(build.value(slope).reshaped(shape), x)
    return x.with_tensor(K.add(K.relu(x.tensor), K.multiply(K.minimum(x.tensor, 0.0), slopes)))


@ops("hardtanh", "clamp")
def clamp(build: Builder, x: Activation, low: Value | float | None, high: Value | float | None) -> Activation:
    """low <= x <= high; either may be a tensor, such as the range that a quantised network has learned."""
    if not isinstance(low, Value) and not isinstance(high, Value) and (low, high) == (0, 6):
        return x.with_tensor(K.relu6(x.tensor))
    least, most = (build.operand(bound, x) if isinstance(bound, Value) else bound for bound in (low, high))
    tensor = x.tensor if least is None else K.maximum(x.tensor, least)
    return x.with_tensor(tensor if most is None else K.minimum(tensor, most))


@ops("clamp_min")
def clamp_min(build: Builder, x: Activation, low: float) -> Activation:
    """low <= x."""
    return clamp(build, x, low, None)


@ops("clamp_max")
def clamp_max(build: Builder, x: Activation, high: float) -> Activation:
    """x <= high."""
    return clamp(build, x, None, high)


@ops("softmax.int")
def softmax(build: Builder, x: Activation, axis: int, _dtype) -> Activation:
    """Along one axis."""
    return x.with_tensor(K.softmax(x.tensor, x.place(axis)))


@ops("log_softmax.int")
def log_softmax(build: Builder, x: Activation, axis: int, _dtype) -> Activation:
    """Along one axis."""
    return x.with_tensor(K.log_softmax(x.tensor, x.place(axis)))


# --- two operands ---


@ops("add.Tensor", "add.Scalar")
def add(build: Builder, a: Value | float, b: Value | float, alpha: float = 1) -> Activation:
    """a + alpha * b."""
    return combined(build, added, a, _times(build, b, alpha))


@ops("sub.Tensor", "sub.Scalar", "subtract.Tensor", "subtract.Scalar")
def subtract(build: Builder, a: Value | float, b: Value | float, alpha: float) -> Activation:
    """a - alpha * b."""
    return combined(build, K.subtract, a, _times(build, b, alpha))


@ops("rsub.Scalar", "rsub.Tensor")
def reverse_subtract(build: Builder, a: Value | float, b: Value | float, alpha: float) -> Activation:
    """b - alpha * a."""
    return combined(build, K.subtract, b, _times(build, a, alpha))


@ops("mul.Tensor", "mul.Scalar")
def multiply(build: Builder, a: Value | float, b: Value | float) -> Activation:
    """a * b."""
    return combined(build, K.multiply, a, b)


@ops("div.Tensor", "div.Scalar")
def divide(build: Builder, a: Value | float, b: Value | float) -> Activation:
    """a / b."""
    return combined(build, K.divide, a, b)


@ops("maximum")
def maximum(build: Builder, a: Value, b: Value) -> Activation:
    """The larger one."""
    return combined(build, K.maximum, a, b)


@ops("minimum")
def minimum(build: Builder, a: Value, b: Value) -> Activation:
    """The smaller one."""
    return combined(build, K.minimum, a, b)


@ops("pow.Tensor_Scalar")
def power(build: Builder, x: Activation, exponent: float) -> Activation:
    """x ** exponent."""
    return x.with_tensor(K.square(x.tensor) if exponent == 2 else K.power(x.tensor, float(exponent)))


@ops("pow.Tensor_Tensor", "pow.Scalar")
def power_of(build: Builder, a: Value | float, b: Value) -> Activation:
    """a ** b, as generalised-mean pooling (GeM) has it with an exponent that trains."""
    return combined(build, K.power, a, b)


@ops("lerp.Scalar", "lerp.Tensor")
def lerp(build: Builder, a: Value, b: Value, share: Value | float) -> Activation:
    """a + share * (b - a)."""
    return add(build, a, multiply(build, subtract(build, b, a, 1), share))


@ops("addcdiv")
def addcdiv(build: Builder, x: Value, a: Value, b: Value, value: float) -> Activation:
    """x + value * a / b."""
    return add(build, x, divide(build, build.value(a), b), value)


@ops("addcmul")
def addcmul(build: Builder, x: Value, a: Value, b: Value, value: float) -> Activation:
    """x + value * a * b."""
    product = multiply(build, build.value(a), b)
    return add(build, x, product, value)


def combined(build: Builder, function: Callable, a: Value | float, b: Value | float) -> Activation:
    """`function` of two operands with broadcasting; the larger activation keeps its layout."""
    if isinstance(a, int | float):
        assert isinstance(b, Value)
        b = build.value(b)
        return b.with_tensor(function(a, b.tensor))
    if isinstance(b, int | float):
        a = build.value(a)
        return a.with_tensor(function(a.tensor, b))
    a = build.value(a) if isinstance(a, Stored) and isinstance(b, Stored) else a
    rank = max(a.rank, b.rank)
    operands = [value for value in (a, b) if isinstance(value, Activation)]
    lead = max(operands, key=lambda x: (x.rank, math.prod(x.shape))).with_rank(rank)
    tensor = function(build.operand(a, lead), build.operand(b, lead))
    return Activation(tensor, lead.axes, max(value.batch for value in operands))


def _times(build: Builder, value: Value | float, factor: float) -> Value | float:
    if factor == 1:
        return value
    return operator.mul(value, factor) if isinstance(value, int | float) else multiply(build, value, factor)


# --- what only acts in training ---


@ops("dropout", "feature_dropout")
def dropout(build: Builder, x: Activation, rate: float, _train: bool) -> Activation:
    """The graph is traced in evaluation; a rate says what training would do."""
    return x.with_tensor(layers.Dropout(rate, name=build.name())(x.tensor)) if rate else x


@ops("alpha_dropout", "feature_alpha_dropout")
def alpha_dropout(build: Builder, x: Activation, rate: float, _train: bool) -> Activation:
    """Dropout that keeps mean and variance, as SELU wants it."""
    return x.with_tensor(layers.AlphaDropout(rate, name=build.name())(x.tensor)) if rate else x


@ops("multitl.drop_path")
def drop_path(build: Builder, x: Activation, rate: float, by_image: bool) -> Activation:
    """Stochastic depth (arXiv:1603.09382): a whole branch is dropped, for each image or for the batch at once."""
    if not rate:
        return x
    shape: list[int | None] = [1] * x.rank
    if by_image:
        shape[x.place(0)] = None
    return x.with_tensor(layers.Dropout(rate, noise_shape=shape, name=build.name())(x.tensor))
