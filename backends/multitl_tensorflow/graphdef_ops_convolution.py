"""Convolutions, batch normalisation and pooling.

Inputs come in the order of TensorFlow's op definitions; a bias that the graph adds right after may come last
(fusing.py). Kernels are (height, width, in, out) as Keras has them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from keras import layers
from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.layouts import channels_last
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import Activation, Part, Stored, Value, added, part
from multitl_tensorflow.operations import Operation

ops = OpTable("convolution")

MOMENTUM = 0.99  # of moving statistics, where the module does not say: Keras' and TF Hub's own


@ops("Conv2D")
def convolution(
    build: Builder, node: Operation, x: Activation, kernel: Value, bias: Stored | None = None
) -> Activation:
    """x: (n, h, w, c), kernel: (h, w, c / groups, out)."""
    x, strides, dilations = _spatial(node, x)
    tensor, padding = _padded(node, x.tensor)
    if isinstance(kernel, Activation):  # as by weight standardisation: no layer can hold it
        y = K.conv(tensor, kernel.in_order().tensor, strides, padding, dilation_rate=dilations)
        return _with_bias(build, x.with_tensor(y), bias)
    groups = tensor.shape[-1] // kernel.shape[2]
    y = build.layer(
        lambda name: layers.Conv2D(
            kernel.shape[3], kernel.shape[:2], strides, padding, dilation_rate=dilations, groups=groups,
            use_bias=bias is not None, name=name,
        ),
        tensor,
        part("kernel", kernel) + _bias(bias),
    )  # fmt: skip
    return x.with_tensor(y)


@ops("DepthwiseConv2dNative")
def depthwise(build: Builder, node: Operation, x: Activation, kernel: Value, bias: Stored | None = None) -> Activation:
    """x: (n, h, w, c), kernel: (h, w, c, multiplier)."""
    x, strides, dilations = _spatial(node, x)
    tensor, padding = _padded(node, x.tensor)
    if isinstance(kernel, Activation):
        y = K.depthwise_conv(tensor, kernel.in_order().tensor, strides, padding, dilation_rate=dilations)
        return _with_bias(build, x.with_tensor(y), bias)
    if strides[0] != strides[1]:
        raise Unsupported("a depthwise convolution of unequal strides")
    y = build.layer(
        lambda name: layers.DepthwiseConv2D(
            kernel.shape[:2], strides, padding, kernel.shape[3], dilation_rate=dilations, use_bias=bias is not None,
            name=name,
        ),
        tensor,
        part("kernel", kernel) + _bias(bias),
    )  # fmt: skip
    return x.with_tensor(y)


@ops("BiasAdd")
def bias_add(build: Builder, node: Operation, x: Activation, bias: Value) -> Activation:
    """Along the channels."""
    channels = x.rank - 1 if node.text("data_format") == "NHWC" else 1
    shape = [1] * x.rank
    shape[channels] = bias.shape[0]
    spread = build.value(bias).reshaped(shape)
    return x.with_tensor(added(x.tensor, build.operand(spread, x)))


@ops("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def batch_norm(
    build: Builder, node: Operation, x: Activation, gamma: Value, beta: Value, mean: Value, variance: Value
) -> Activation:
    """x: (n, ..., c). In training mode the statistics are the input's own, as in Keras' layer normalisation."""
    is_first = node.text("data_format") == "NCHW"
    channels = 1 if is_first else x.rank - 1
    if node.flag("is_training"):
        return _normalised_by_itself(build, node, x, gamma, beta, channels)
    if any(isinstance(one, Activation) for one in (gamma, beta, mean, variance)):
        raise Unsupported("batch normalisation with computed weights")
    assert isinstance(gamma, Stored) and isinstance(beta, Stored)
    assert isinstance(mean, Stored) and isinstance(variance, Stored)
    scale, center = not _is_all(gamma, 1), not _is_all(beta, 0)
    parts = [
        *(part("gamma", gamma) if scale else []),
        *(part("beta", beta) if center else []),
        *part("moving_mean", replace(mean, trains=False)),
        *part("moving_variance", replace(variance, trains=False)),
    ]
    momentum = node.training.momentum.get(mean.name, MOMENTUM)
    x = x.arranged(channels_last(x.rank)) if is_first else x.in_order()
    y = build.layer(
        lambda name: layers.BatchNormalization(
            momentum=momentum, epsilon=node.number("epsilon"), center=center, scale=scale, name=name
        ),
        x.tensor,
        parts,
    )
    return x.with_tensor(y)


def _normalised_by_itself(
    build: Builder, node: Operation, x: Activation, gamma: Value, beta: Value, channels: int
) -> Activation:
    if not (_is_all(gamma, 1) and _is_all(beta, 0)):
        raise Unsupported("batch normalisation that is always training")
    places = tuple(x.place(axis) for axis in range(x.rank) if axis != channels)
    if any(x.tensor.shape[place] is None for place in places):
        raise Unsupported("batch normalisation that is always training")
    centred = K.subtract(x.tensor, K.mean(x.tensor, places, keepdims=True))
    variance = K.mean(K.square(centred), places, keepdims=True)
    return x.with_tensor(K.multiply(centred, K.rsqrt(K.add(variance, node.number("epsilon")))))


@ops("MaxPool")
def max_pool(build: Builder, node: Operation, x: Activation) -> Activation:
    """The largest value of each window."""
    return _pooled(build, node, x, layers.MaxPooling2D)


@ops("AvgPool")
def average_pool(build: Builder, node: Operation, x: Activation) -> Activation:
    """The mean of each window; padding does not count."""
    x, _, _ = _spatial(node, x)
    if _sizes(node, "ksize") == x.tensor.shape[1:3] and node.text("padding") == "VALID":
        return x.with_tensor(layers.GlobalAveragePooling2D(keepdims=True, name=build.name())(x.tensor))
    if node.text("padding") == "SAME":
        return _averaged(build, node, x)
    return _pooled(build, node, x, layers.AveragePooling2D)


def _averaged(build: Builder, node: Operation, x: Activation) -> Activation:
    """With padding "SAME". Keras on PyTorch counts what it pads at one side only: there means over zeros are scaled."""
    sizes, strides = _sizes(node, "ksize"), _sizes(node, "strides")
    axes = list(zip(x.tensor.shape[1:3], sizes, strides, strict=True))
    around = [_same(*axis) for axis in axes]
    if all(before == after for before, after in around):
        return _pooled(build, node, x, layers.AveragePooling2D)
    layer = layers.AveragePooling2D(sizes, strides, name=build.name())
    rows, columns = (_shares(*axis) for axis in axes)
    y = layer(K.pad(x.tensor, [(0, 0), *around, (0, 0)]))
    return x.with_tensor(K.multiply(y, (rows[:, None] * columns)[None, :, :, None].astype("float32")))


def _same(length: int, size: int, stride: int) -> tuple[int, int]:
    """How far "SAME" pads an axis on either side."""
    total = max((-(-length // stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


def _shares(length: int, size: int, stride: int) -> np.ndarray:
    """Elements of each window along an axis, over those that are not padding."""
    starts = np.arange(-(-length // stride)) * stride - _same(length, size, stride)[0]
    return size / (np.minimum(starts + size, length) - np.maximum(starts, 0))


def _pooled(build: Builder, node: Operation, x: Activation, kind) -> Activation:
    x, strides, _ = _spatial(node, x)
    if node.text("padding") not in ("SAME", "VALID"):
        raise Unsupported("pooling with explicit padding")
    layer = kind(_sizes(node, "ksize"), strides, node.text("padding").lower(), name=build.name())
    return x.with_tensor(layer(x.tensor))


def _spatial(node: Operation, x: Activation) -> tuple[Activation, tuple[int, ...], tuple[int, ...]]:
    """The input with channels last, strides and dilations."""
    is_first = node.text("data_format") == "NCHW"
    x = x.arranged(channels_last(4)) if is_first else x.in_order()
    return x, _sizes(node, "strides"), _sizes(node, "dilations")


def _sizes(node: Operation, key: str) -> tuple[int, ...]:
    """Height and width of an attribute with a number for each axis."""
    numbers = node.integers(key) or [1, 1, 1, 1]
    at = 2 if node.text("data_format") == "NCHW" else 1
    return tuple(numbers[at : at + 2])


def _padded(node: Operation, tensor) -> tuple:
    """The tensor and how the layer pads it."""
    padding = node.text("padding")
    if padding != "EXPLICIT":
        return tensor, padding.lower()
    widths = np.reshape(node.integers("explicit_paddings"), (4, 2)).tolist()
    spatial = widths[2:] if node.text("data_format") == "NCHW" else widths[1:3]
    return K.pad(tensor, [(0, 0), *map(tuple, spatial), (0, 0)]), "valid"


def _bias(bias: Stored | None) -> list[Part]:
    return [] if bias is None else part("bias", bias)


def _with_bias(build: Builder, x: Activation, bias: Stored | None) -> Activation:
    if bias is None:
        return x
    return x.with_tensor(added(x.tensor, build.operand(bias, x)))


def _is_all(value: Value, number: float) -> bool:
    """Whether it is a constant of one number."""
    return isinstance(value, Stored) and not value.name and bool(np.all(value.array == number))
