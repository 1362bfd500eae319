"""Functions of TensorFlow that tf_keras records between layers (`x / 127.5 - 1`), in terms of `keras.ops`.

A file names the function (`"math.truediv"`) and its arguments. What stands in the table below is what preprocessing
inside a model, keras.applications and attention by hand are made of; anything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops as K  # noqa: N812  (the field's usual short name)

from multitl.sources.saved_graphs import SavedLayer
from multitl.translation.op_tables import OpTable
from multitl.translation.values import added

TFOP_KINDS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
OPS = OpTable("tf")
Tensor: TypeAlias = keras.KerasTensor


def tf_function(saved: SavedLayer) -> str:
    """ "math.truediv"; of a TensorFlowOpLayer (TensorFlow 2.0 to 2.3), which is not read, the op's own name."""
    node = saved.config.get("node_def")
    return str(saved.config.get("function") or (node.get("op") if isinstance(node, dict) else None) or saved.name)[:80]


_OF_TWO = {  # function of two tensors, or of one and numbers -> names in TensorFlow
    added: ("__operators__.add", "math.add", "add"),
    K.subtract: ("math.subtract", "subtract"),
    K.multiply: ("math.multiply", "multiply"),
    K.true_divide: ("math.truediv", "math.divide", "divide", "compat.v1.div"),
    K.maximum: ("math.maximum", "maximum"),
    K.minimum: ("math.minimum", "minimum"),
    K.power: ("math.pow", "pow"),
}


def _of_two(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    def call(x: Any, y: Any) -> Tensor:
        return function(_constant(x, y), _constant(y, x))

    return call


for _function, _names in _OF_TWO.items():
    OPS(*_names)(_of_two(_function))


@OPS("nn.bias_add")
def bias_add(value: Tensor, bias: Sequence[float], data_format: str | None = None) -> Tensor:
    if data_format not in (None, "NHWC", "N...C"):
        raise ValueError("nn.bias_add of channels-first images")
    return added(value, _constant(bias, value))


@OPS("__operators__.getitem")
def getitem(x: Tensor, slice_spec: Any) -> Tensor:
    """Slices of step -1 over a whole axis, as in RGB -> BGR, become a flip: PyTorch knows no negative steps."""
    parts = list(slice_spec) if isinstance(slice_spec, list | tuple) else [slice_spec]
    if Ellipsis in parts:
        here = parts.index(Ellipsis)
        parts[here : here + 1] = [slice(None)] * (len(x.shape) - len(parts) + 1)
    turned = [axis for axis, part in enumerate(parts) if part == slice(None, None, -1)]
    parts = [slice(None) if axis in turned else part for axis, part in enumerate(parts)]
    x = K.flip(x, turned) if turned else x
    return x[tuple(parts)] if any(part != slice(None) for part in parts) else x


@OPS("concat")
def concat(values: Sequence[Tensor], axis: int) -> Tensor:
    return K.concatenate(values, axis)


@OPS("stack")
def stack(values: Sequence[Tensor], axis: int = 0) -> Tensor:
    return K.stack(values, axis)


@OPS("math.reduce_mean", "reduce_mean")
def reduce_mean(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    return K.mean(x, axis, keepdims=keepdims)


@OPS("math.reduce_sum", "reduce_sum")
def reduce_sum(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    return K.sum(x, axis, keepdims=keepdims)


@OPS("math.reduce_max", "reduce_max")
def reduce_max(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    return K.max(x, axis, keepdims=keepdims)


@OPS("reshape")
def reshape(x: Tensor, shape: Sequence[int]) -> Tensor:
    return K.reshape(x, shape)


@OPS("transpose", "compat.v1.transpose")
def transpose(x: Tensor, perm: Sequence[int] | None = None, conjugate: bool = False) -> Tensor:
    return K.transpose(x, perm)


@OPS("squeeze", "compat.v1.squeeze")
def squeeze(x: Tensor, axis: Any = None) -> Tensor:
    return K.squeeze(x, tuple(axis) if isinstance(axis, list) else axis)


@OPS("expand_dims")
def expand_dims(x: Tensor, axis: int) -> Tensor:
    return K.expand_dims(x, axis)


@OPS("cast")
def cast(x: Tensor, dtype: str) -> Tensor:
    return K.cast(x, dtype)


@OPS("identity", "stop_gradient")
def identity(x: Tensor) -> Tensor:
    return x


@OPS("clip_by_value")
def clip(x: Tensor, clip_value_min: float, clip_value_max: float) -> Tensor:
    return K.clip(x, clip_value_min, clip_value_max)


@OPS("linalg.matmul", "matmul")
def matmul(x: Tensor, b: Tensor, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    return K.matmul(_turned(x) if transpose_a else x, _turned(b) if transpose_b else b)


@OPS("math.l2_normalize", "linalg.l2_normalize", "nn.l2_normalize")
def l2_normalize(x: Tensor, axis: Any = None, epsilon: float = 1e-12) -> Tensor:
    square_sum = K.sum(K.square(x), axis, keepdims=True)
    return K.multiply(x, K.rsqrt(K.maximum(square_sum, epsilon)))


@OPS("nn.softmax", "compat.v1.nn.softmax")
def softmax(x: Tensor, axis: int | None = -1) -> Tensor:
    return K.softmax(x, -1 if axis is None else axis)


@OPS("nn.gelu")
def gelu(x: Tensor, approximate: bool = False) -> Tensor:
    return K.gelu(x, approximate=approximate)


@OPS("nn.leaky_relu")
def leaky_relu(x: Tensor, alpha: float = 0.2) -> Tensor:
    return K.leaky_relu(x, alpha)


@OPS("nn.silu", "nn.swish")
def silu(x: Tensor, beta: float = 1.0) -> Tensor:
    return K.silu(x) if beta == 1 else K.multiply(x, K.sigmoid(K.multiply(x, beta)))


_OF_ONE = {  # function of one tensor -> names in TensorFlow
    K.abs: ("math.abs", "abs"),
    K.exp: ("math.exp", "exp"),
    K.log: ("math.log",),
    K.negative: ("math.negative", "negative"),
    K.relu: ("nn.relu",),
    K.relu6: ("nn.relu6",),
    K.rsqrt: ("math.rsqrt",),
    K.sigmoid: ("math.sigmoid", "nn.sigmoid", "sigmoid"),
    K.softplus: ("math.softplus", "nn.softplus"),
    K.sqrt: ("math.sqrt", "sqrt"),
    K.square: ("math.square", "square"),
    K.tanh: ("math.tanh", "nn.tanh", "tanh"),
    K.elu: ("nn.elu",),
    K.selu: ("nn.selu",),
}
for _function, _names in _OF_ONE.items():
    OPS(*_names)(_function)


def _turned(x: Tensor) -> Tensor:
    return K.swapaxes(x, -1, -2)


def _constant(value: Any, partner: Any) -> Any:
    """A tensor or number as it is; a list as an array of the partner's rank, not taken for another axis' bias."""
    if not isinstance(value, list | tuple):
        return value
    array = np.asarray(value, "float32")
    return array.reshape((1,) * (len(partner.shape) - array.ndim) + array.shape)
