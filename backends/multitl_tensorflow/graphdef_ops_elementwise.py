"""Ops that work element by element, reductions, and what only acts in training."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from keras import layers
from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import BATCH, Activation, Stored, Value, added
from multitl_tensorflow.operations import Operation, scope_name

ops = OpTable("elementwise")

UNARY = {
    "Relu": K.relu, "Relu6": K.relu6, "Sigmoid": K.sigmoid, "Tanh": K.tanh, "Elu": K.elu, "Selu": K.selu,
    "Softplus": K.softplus, "Softsign": K.softsign, "Exp": K.exp, "Log": K.log, "Log1p": K.log1p, "Expm1": K.expm1,
    "Sqrt": K.sqrt, "Rsqrt": K.rsqrt, "Square": K.square, "Neg": K.negative, "Abs": K.abs, "Erf": K.erf,
    "Reciprocal": K.reciprocal, "Inv": K.reciprocal, "Sin": K.sin, "Cos": K.cos, "Floor": K.floor, "Sign": K.sign,
    "StopGradient": K.stop_gradient, "ZerosLike": K.zeros_like, "OnesLike": K.ones_like,
}  # fmt: skip
BINARY = {
    "Add": added, "AddV2": added, "Sub": K.subtract, "Mul": K.multiply, "RealDiv": K.divide, "Div": K.divide,
    "Maximum": K.maximum, "Minimum": K.minimum, "Pow": K.power,
    "SquaredDifference": lambda a, b: K.square(K.subtract(a, b)),
}  # fmt: skip


def _unary(function: Callable) -> Callable[..., Activation]:
    return lambda build, node, x: x.with_tensor(function(x.tensor))


def _binary(function: Callable) -> Callable[..., Activation]:
    return lambda build, node, a, b: combined(build, function, a, b)


for _name, _function in UNARY.items():
    ops(_name)(_unary(_function))
for _name, _function in BINARY.items():
    ops(_name)(_binary(_function))


def combined(build: Builder, function: Callable, a: Value, b: Value) -> Activation:
    """`function` of two operands with broadcasting; the larger activation keeps its layout."""
    if isinstance(a, Stored) and isinstance(b, Stored):
        a = build.value(a)
    activations = [value for value in (a, b) if isinstance(value, Activation)]
    lead = max(activations, key=lambda x: (x.rank, math.prod(x.shape))).with_rank(max(a.rank, b.rank))
    tensor = function(build.operand(a, lead), build.operand(b, lead))
    return Activation(tensor, lead.axes, max(value.batch for value in activations))


@ops("AddN")
def add_all(build: Builder, node: Operation, *values: Value) -> Value:
    """The sum of any number of values."""
    return functools.reduce(lambda a, b: combined(build, added, a, b), values)


@ops("Erfc")
def erfc(build: Builder, node: Operation, x: Activation) -> Activation:
    """1 - erf(x)."""
    return x.with_tensor(K.subtract(1.0, K.erf(x.tensor)))


@ops("LeakyRelu")
def leaky_relu(build: Builder, node: Operation, x: Activation) -> Activation:
    """x where positive, else alpha * x."""
    return x.with_tensor(K.leaky_relu(x.tensor, node.number("alpha")))


@ops("Softmax")
def softmax(build: Builder, node: Operation, x: Activation) -> Activation:
    """Along the last axis."""
    return x.with_tensor(K.softmax(x.tensor, x.place(-1)))


@ops("LogSoftmax")
def log_softmax(build: Builder, node: Operation, x: Activation) -> Activation:
    """Along the last axis."""
    return x.with_tensor(K.log_softmax(x.tensor, x.place(-1)))


@ops("ClipByValue")
def clip(build: Builder, node: Operation, x: Activation, low: Value, high: Value) -> Activation:
    """low <= x <= high."""
    return combined(build, K.minimum, combined(build, K.maximum, x, low), high)


@ops("Cast")
def cast(build: Builder, node: Operation, x: Value) -> Value:
    """Between integers and float32; other floats are refused, as the network would compute otherwise."""
    wanted = tf.as_dtype(node.dtype("DstT"))
    if isinstance(x, Stored):
        return x
    if not (wanted.is_integer or wanted == tf.float32):
        raise Unsupported(f"a cast to {wanted.name}")
    return x if x.tensor.dtype == wanted.name else x.with_tensor(K.cast(x.tensor, wanted.name))


@ops("Select", "SelectV2")
def select(build: Builder, node: Operation, mask: Value, a: Value, b: Value) -> Activation:
    """a where the mask is true, else b; only masks that are known."""
    if isinstance(mask, Activation):
        raise Unsupported("a choice that depends on the image")
    x = max((build.value(value) for value in (a, b)), key=lambda x: (x.rank, math.prod(x.shape)))
    return x.with_tensor(K.where(build.operand(mask, x), build.operand(a, x), build.operand(b, x)))


# --- reductions ---


def _mean(tensor, places: Sequence[int], keep: bool):
    return K.mean(tensor, places, keepdims=keep)


def _sum(tensor, places: Sequence[int], keep: bool):
    return K.sum(tensor, places, keepdims=keep)


def _max(tensor, places: Sequence[int], keep: bool):
    return K.max(tensor, places, keepdims=keep)


def _min(tensor, places: Sequence[int], keep: bool):
    return K.min(tensor, places, keepdims=keep)


REDUCTIONS = {"Mean": _mean, "Sum": _sum, "Max": _max, "Min": _min}


def _reduction(function: Callable) -> Callable[..., Activation]:
    def reduce(build: Builder, node: Operation, x: Activation, axes: Value) -> Activation:
        """Along axes that are known."""
        if isinstance(axes, Activation):
            raise Unsupported("a reduction along axes that depend on the image")
        keep, chosen = node.flag("keep_dims"), [int(axis) for axis in np.ravel(axes.array)]
        if any(x.shape[axis] % BATCH == 0 for axis in chosen):
            raise Unsupported("a reduction along the batch")
        places = tuple(x.place(axis) for axis in chosen)
        is_pooling = function is _mean and x.rank == 4 and sorted(places) == [1, 2]
        if is_pooling:
            tensor = layers.GlobalAveragePooling2D(keepdims=keep, name=build.name())(x.tensor)
        else:
            tensor = function(x.tensor, places, keep)
        return x.with_tensor(tensor) if keep else x.without(tensor, places)

    return reduce


for _name, _function in REDUCTIONS.items():
    ops(_name)(_reduction(_function))


# --- what passes its input on ---


@ops("Identity", "IdentityN", "PreventGradient", "Snapshot", "CheckNumerics", "EnsureShape")
def identity(build: Builder, node: Operation, *values: Value) -> Value | list[Value]:
    """The same; where dropout stands in training, that is put back."""
    if node.op in ("IdentityN", "EnsureShape"):
        return list(values)
    return dropped(build, node, values[0])


def dropped(build: Builder, node: Operation, x: Value) -> Value:
    """With the dropout or stochastic depth (arXiv:1603.09382) that the graph for training has at this place."""
    found = node.training.dropouts.get(scope_name(node.name.rpartition("/")[0]))
    if found is None or isinstance(x, Stored):
        return x
    shape: list[int | None] | None = None
    if found.spread and len(found.spread) == x.rank:
        shape = [None if found.spread[axis] else 1 for axis in np.argsort(x.axes)]
    return x.with_tensor(layers.Dropout(found.rate, noise_shape=shape, name=build.name())(x.tensor))
