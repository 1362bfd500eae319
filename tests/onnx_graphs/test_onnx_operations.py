"""Every operation of keras.ops that is written gives under onnxruntime what Keras computes: channels last or first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops as K  # noqa: N812

pytest.importorskip("onnx")

from onnx_twins import assert_same, images, network

from multitl.errors import TranslationError
from multitl.onnx_graphs.writing import TABLE, key_of, onnx_model

SHAPE = (6, 8, 4)
CHANNELS = np.array([0.5, -1.0, 2.0, 1.5], "float32")
KERNEL = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype("float32")
MATRIX = np.random.default_rng(1).normal(size=(3, 6)).astype("float32")
PLACE = np.random.default_rng(2).normal(size=(1, 6, 1, 1)).astype("float32")


def positive(function: Callable) -> Callable:
    """Of values that a root or a logarithm takes."""
    return lambda x: function(K.add(K.square(x), 0.1))


CASES: dict[str, Callable[[Any], Any]] = {
    "Absolute": K.absolute,
    "Add": lambda x: [
        K.add(x, CHANNELS),
        K.add(1.0, x),
        K.add(x, PLACE),
        K.add(x, K.mean(x, 1, keepdims=True)),
        K.add(K.mean(x, 0), x),
    ],
    "Arccos": lambda x: K.arccos(K.multiply(K.sin(x), 0.9)),
    "Arcsin": lambda x: K.arcsin(K.multiply(K.sin(x), 0.9)),
    "Arctan": K.arctan,
    "Argmax": lambda x: [K.argmax(x, 1), K.argmax(x, -1, keepdims=True)],
    "Argmin": lambda x: K.argmin(x, 2),
    "AveragePool": lambda x: [K.average_pool(x, 3, 1, "same"), K.average_pool(x, 2, 2)],
    "BroadcastTo": lambda x: K.add(x, K.broadcast_to(K.mean(x, 0, keepdims=True)[0, 0], (6, 8, 4))),
    "Cast": lambda x: K.cast(K.cast(K.multiply(x, 10.0), "int32"), "float32"),
    "Ceil": K.ceil,
    "Celu": lambda x: K.celu(x, 0.6),
    "Clip": lambda x: K.clip(x, -0.5, 0.4),
    "Concatenate": lambda x: [K.concatenate([x, K.abs(x)], axis) for axis in (1, 2, 3, -1)],
    "Conv": lambda x: [
        K.conv(x, KERNEL, 2, "same"),
        K.conv(x, K.reshape(K.mean(x, 0)[:3, :3], (3, 3, 4, 1)), padding="same", dilation_rate=2),
    ],
    "Copy": lambda x: K.copy(x),
    "Cos": K.cos,
    "Cosh": K.cosh,
    "Cumsum": lambda x: [K.cumsum(x, 1), K.cumsum(x, -1)],
    "DepthwiseConv": lambda x: [
        K.depthwise_conv(x, KERNEL[..., :2], padding="same"),
        K.depthwise_conv(x, K.expand_dims(K.mean(x, 0)[:3, :3], -1)),
    ],
    "Divide": lambda x: [K.divide(x, 3), K.divide(2.0, K.add(K.abs(x), 1.0))],
    "Einsum": lambda x: [
        K.einsum("bhwc,bhvc->bhwv", x, x),
        K.einsum("bhwc,bgwc->bwhg", x, x),
        K.einsum("bhwc,bhvc->bwv", x, x),
        K.einsum("bhwc,bhwc->bc", x, x),
        K.einsum("bhwc,oh->bowc", x, MATRIX),
        K.einsum("oh,bhwc->bwoc", MATRIX, x),
        K.einsum("bhwc,oh,pw->bopc", x, MATRIX, np.ones((5, 8), "float32")),
        K.einsum("bhwc->bchw", x),
        K.einsum("bhwc,bhwc->bhwc", x, x),
        K.einsum("b...c,ck->b...k", x, KERNEL[0, 0]),
        K.einsum("ck,b...c->...bk", KERNEL[0, 0], x),
        K.einsum("bhwc,hwck->bk", x, np.ones((6, 8, 4, 2), "float32")),
    ],
    "Elu": lambda x: K.elu(x, 0.5),
    "Equal": lambda x: K.where(K.equal(K.floor(x), 0), x, 0.0),
    "Erf": K.erf,
    "Exp": K.exp,
    "Expm1": K.expm1,
    "ExpandDims": lambda x: [K.expand_dims(x, 1), K.expand_dims(x, -1), K.expand_dims(x, (2, 4))],
    "Flip": lambda x: [K.flip(x, -1), K.flip(x, (1, 2))],
    "Floor": K.floor,
    "FullLike": lambda x: [K.full_like(x, 3), K.add(K.full_like(x[:, 0, 0, 0], 2.0), x[:, 1, 1, 1])],
    "Gelu": lambda x: [K.gelu(x, approximate=True), K.gelu(x, approximate=False)],
    "GetItem": lambda x: [x[:, 1], x[:, -1], x[..., 0], x[:, ::2, 1:-1], x[:, None, 2, ..., 1:3]],
    "Greater": lambda x: K.where(K.greater(x, 0.1), x, 0.0),
    "GreaterEqual": lambda x: K.where(K.greater_equal(x, 0.1), x, 0.0),
    "HardSigmoid": K.hard_sigmoid,
    "HardSilu": K.hard_silu,
    "HardTanh": K.hard_tanh,
    "LeakyRelu": lambda x: K.leaky_relu(x, 0.3),
    "Less": lambda x: K.where(K.less(x, 0.1), x, 0.0),
    "LessEqual": lambda x: K.where(K.less_equal(x, 0.1), x, 0.0),
    "Log": positive(K.log),
    "Log1p": positive(K.log1p),
    "Log2": positive(K.log2),
    "LogSigmoid": K.log_sigmoid,
    "LogSoftmax": lambda x: [K.log_softmax(x), K.log_softmax(x, 1)],
    "LogicalAnd": lambda x: K.where(K.logical_and(K.greater(x, 0.1), K.less(x, 0.5)), x, 0.0),
    "LogicalNot": lambda x: K.where(K.logical_not(K.greater(x, 0.1)), x, 0.0),
    "LogicalOr": lambda x: K.where(K.logical_or(K.greater(x, 0.1), K.less(x, -0.5)), x, 0.0),
    "LogicalXor": lambda x: K.where(K.logical_xor(K.greater(x, 0.1), K.less(x, 0.5)), x, 0.0),
    "Logsumexp": lambda x: [K.logsumexp(x, 1), K.logsumexp(x, (1, 2), keepdims=True)],
    "Matmul": lambda x: [
        K.matmul(x, K.transpose(x, (0, 1, 3, 2))),
        K.matmul(x, KERNEL[0, 0]),
        K.matmul(K.transpose(x, (0, 1, 3, 2)), x),
        K.matmul(K.mean(x, 1, keepdims=True), K.swapaxes(x, 2, 3)),
    ],
    "Max": lambda x: [K.max(x, (1, 2)), K.max(x, -1, keepdims=True)],
    "MaxPool": lambda x: K.max_pool(x, 3, 2, "same"),
    "Maximum": lambda x: [K.maximum(x, 0.2), K.maximum(x, CHANNELS)],
    "Mean": lambda x: [K.mean(x, (1, 2)), K.mean(x, 2, keepdims=True), K.mean(x, (1, 2, 3))],
    "Min": lambda x: K.min(x, (1, 3)),
    "Minimum": lambda x: K.minimum(x, 0.2),
    "Moveaxis": lambda x: K.moveaxis(x, -1, 1),
    "Multiply": lambda x: [K.multiply(x, 3), K.multiply(x, K.mean(x, (1, 2), keepdims=True))],
    "Negative": K.negative,
    "Normalize": lambda x: K.normalize(x, axis=-1),
    "NotEqual": lambda x: K.where(K.not_equal(K.floor(x), 0), x, 0.0),
    "OnesLike": lambda x: K.add(x, K.ones_like(x[:1, 0, 0])),
    "Pad": lambda x: [
        K.pad(x, [(0, 0), (1, 2), (0, 3), (0, 0)]),
        K.pad(x, [(0, 0), (1, 2), (0, 3), (1, 0)], constant_values=-2.0),
        K.pad(x, [(0, 0), (1, 2), (0, 3), (0, 0)], mode="reflect"),
    ],
    "Power": lambda x: K.power(K.abs(x), 1.5),
    "Prod": lambda x: K.prod(x, 1),
    "Ravel": K.ravel,
    "Reciprocal": positive(K.reciprocal),
    "Relu": K.relu,
    "Relu6": lambda x: K.relu6(K.multiply(x, 4.0)),
    "Repeat": lambda x: K.repeat(x, 3, axis=2),
    "Reshape": lambda x: [
        K.reshape(x, (-1, 6, 8, 2, 2)),
        K.reshape(x, (-1, 48, 4)),
        K.reshape(K.transpose(K.reshape(x, (-1, 2, 3, 4, 2, 4)), (0, 1, 3, 2, 4, 5)), (-1, 6, 4)),
        K.reshape(x, (-1, 4)),
        K.reshape(K.reshape(x, (-1, 8, 4)), (-1, 6, 32)),
    ],
    "Resize": lambda x: K.image.resize(x, (5, 9)),
    "Roll": lambda x: [K.roll(x, 2, 1), K.roll(x, (-1, 3), (1, 2))],
    "Round": lambda x: K.round(K.multiply(x, 3.0)),
    "Rsqrt": positive(K.rsqrt),
    "Selu": K.selu,
    "Sigmoid": K.sigmoid,
    "Sign": K.sign,
    "Silu": K.silu,
    "Sin": K.sin,
    "Sinh": K.sinh,
    "Softmax": lambda x: [K.softmax(x), K.softmax(x, 1)],
    "Softplus": K.softplus,
    "Softsign": K.softsign,
    "Split": lambda x: [*K.split(x, 2, -1), *K.split(x, [1, 4], 1)],
    "Sqrt": positive(K.sqrt),
    "Square": K.square,
    "Squeeze": lambda x: [K.squeeze(x[:, :1], 1), K.squeeze(K.mean(x, (1, 2), keepdims=True), (1, 2))],
    "Stack": lambda x: [K.stack([x, K.abs(x)], axis) for axis in (1, -1)],
    "Std": lambda x: K.std(x, (1, 2)),
    "StopGradient": K.stop_gradient,
    "Subtract": lambda x: [K.subtract(1.0, x), K.subtract(x, CHANNELS)],
    "Sum": lambda x: K.sum(x, (1, 3)),
    "Swapaxes": lambda x: K.swapaxes(x, 1, -1),
    "Take": lambda x: [K.take(x, np.array([0, 3, -1]), 1), K.take(x, np.array(2), 3)],
    "Tan": lambda x: K.tan(K.tanh(x)),  # away from its poles, where rounding decides
    "Tanh": K.tanh,
    "Tile": lambda x: [K.tile(x, (1, 2, 1, 3)), K.tile(x, (2, 1))],
    "TopK": lambda x: [K.top_k(x, 2)[0], K.cast(K.top_k(x, 3)[1], "int32"), K.negative(K.top_k(K.negative(x), 3)[0])],
    "Transpose": lambda x: K.transpose(x, (0, 3, 2, 1)),
    "TrueDivide": lambda x: K.true_divide(x, 3.0),
    "Trunc": lambda x: K.trunc(K.multiply(x, 3.0)),
    "Var": lambda x: [K.var(x, (1, 2)), K.var(x, -1, keepdims=True)],
    "Where": lambda x: K.where(np.array([True, False, True, True]), x, K.mean(x, (1, 2), keepdims=True)),
    "ZerosLike": lambda x: K.add(K.reshape(K.zeros_like(x[:, 0, 0, 0]), (-1, 1, 1)), KERNEL[0]),
}


def models(function: Callable[[Any], Any]) -> Iterator[keras.Model]:
    """Of what comes in as Keras has it, and of what a convolution gives."""
    for before in ([], [layers.Conv2D(4, 1)]):
        base = network(*before, shape=SHAPE)
        yield keras.Model(base.input, function(base.output))


@pytest.mark.parametrize("name", CASES)
def test_an_operation(name: str):
    for model in models(CASES[name]):
        assert f"ops.{name}" in {key_of(operation) for operation in model.operations}
        assert_same(model)


def test_every_operation_of_the_table_has_a_case():
    assert {key.removeprefix("ops.") for key in TABLE if key.startswith("ops.")} == CASES.keys()


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: K.pad(x, [(0, 0), (1, 2), (0, 3), (0, 0)], mode="symmetric"), "mode='symmetric'"),
        (lambda x: K.softmax(x, (1, 2)), "several axes"),
        (lambda x: K.take(x, K.cast(x[0, 0, :, 0], "int32"), 1), "computed"),
        (lambda x: K.normalize(x, order=1), "order=1"),
        (lambda x: K.image.resize(x, (4, 4), crop_to_aspect_ratio=True), "ratio of the sides"),
        (lambda x: K.max(x, 1, initial=0.0), "initial"),
        (lambda x: K.roll(x, 1), "all elements"),
    ],
)
def test_what_is_not_written_is_refused(function: Callable, reason: str):
    image = keras.Input(SHAPE)
    with pytest.raises(TranslationError, match=reason):
        onnx_model(keras.Model(image, function(image)))


def test_whole_numbers_become_floats_as_in_keras():
    image = keras.Input(SHAPE, dtype="uint8")
    model = keras.Model(image, [K.add(image, 0.5), K.divide(image, 3), K.flip(image, -1), K.mean(image, 1)])
    written = assert_same(model)
    assert images(model, 1)[0].dtype == "uint8" and written.graph.input[0].type.tensor_type.elem_type == 2
