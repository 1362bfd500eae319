"""Convolutions and normalisations: the ops whose weights live in layers of their own.

Arguments come in the order of ATen's schemas, defaults filled in. Shapes in comments are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from keras import layers
from keras import ops as K  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.layouts import channels_last
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import Activation, Stored, Value, added, part

ops = OpTable("convolution")

Pads = list[tuple[int, int]]  # zeros before and after, for each spatial axis


@ops("conv1d", "conv2d", "conv3d")
def convolution(
    build: Builder,
    x: Activation,
    weight: Value,
    bias: Value | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int] | str,
    dilation: int | Sequence[int],
    groups: int,
) -> Activation:
    """x: (n, c, *space), weight: (out, c / groups, *kernel)."""
    rank = weight.rank - 2
    strides, dilations = each(stride, rank), each(dilation, rank)
    pads = _pads(padding, weight.shape[2:], dilations)
    x = x.arranged(channels_last(rank + 2))
    if isinstance(weight, Activation) or isinstance(bias, Activation):
        return _computed_kernel(build, x, weight, bias, strides, pads, dilations, groups)
    whole = [dilation * (size - 1) for dilation, size in zip(dilations, weight.shape[2:], strict=True)]
    is_same = set(strides) == {1} and pads == [(total // 2, total - total // 2) for total in whole]
    tensor = x.tensor if is_same else padded(x.tensor, pads)
    thinned = max(strides) > 1 and max(dilations) > 1  # Keras has no layer for both at once
    steps = (1,) * rank if thinned else strides
    settings = {
        "strides": steps,
        "padding": "same" if is_same else "valid",
        "dilation_rate": dilations,
        "use_bias": bias is not None,
    }
    biases = part("bias", bias) if bias is not None else []
    is_depthwise = rank == 2 and groups == x.shape[1] > 1 and len(set(steps)) == 1
    make = _depthwise if is_depthwise else _grouped
    y = make(build, tensor, weight, groups, settings, biases)
    return x.with_tensor(_thin(y, strides) if thinned else y)


def _grouped(build: Builder, tensor, weight: Stored, groups: int, settings: dict, biases: list):
    rank = weight.rank - 2
    kind = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    kernel = part("kernel", weight, (*range(2, rank + 2), 1, 0))
    return build.layer(
        lambda name: kind(weight.shape[0], weight.shape[2:], groups=groups, name=name, **settings),
        tensor,
        kernel + biases,
    )


def _depthwise(build: Builder, tensor, weight: Stored, groups: int, settings: dict, biases: list):
    multiplier = weight.shape[0] // groups
    kernel = part("kernel", weight, (2, 3, 0, 1), split=(groups, multiplier, *weight.shape[2:]))
    return build.layer(
        lambda name: layers.DepthwiseConv2D(weight.shape[2:], depth_multiplier=multiplier, name=name, **settings),
        tensor,
        kernel + biases,
    )


@ops("conv_transpose1d", "conv_transpose2d.input")
def transposed_convolution(
    build: Builder, x: Activation, weight: Value, bias: Value | None, stride, padding, output_padding, groups: int,
    dilation,
) -> Activation:  # fmt: skip
    """x: (n, c, *space), weight: (c, out / groups, *kernel).

    All is computed without padding, which here means that the result is cut. Keras' layers know neither groups nor,
    with strides, dilation; there it is the convolution that it amounts to.
    """
    rank = weight.rank - 2
    strides, pads, ends, dilations = (each(one, rank) for one in (stride, padding, output_padding, dilation))
    x = x.arranged(channels_last(rank + 2))
    if isinstance(weight, Stored) and not isinstance(bias, Activation) and groups == 1 and set(dilations) == {1}:
        x = _transposed(build, x, weight, bias, strides, ends)
    else:
        reach = [dilation * (size - 1) for dilation, size in zip(dilations, weight.shape[2:], strict=True)]
        around = [(width, width + end) for width, end in zip(reach, ends, strict=True)]
        x, kernel = x.with_tensor(_spaced(x.tensor, strides)), _turned(build.value(weight), groups)
        x = _computed_kernel(build, x, kernel, bias, (1,) * rank, around, dilations, groups)
    cut = (slice(pad, -pad) if pad else slice(None) for pad in pads)
    return x.with_tensor(x.tensor[(slice(None), *cut)]) if any(pads) else x


def _transposed(build: Builder, x: Activation, weight: Stored, bias: Stored | None, strides, ends) -> Activation:
    kind = {1: layers.Conv1DTranspose, 2: layers.Conv2DTranspose}[len(strides)]
    parts = part("kernel", weight, (*range(2, weight.rank), 1, 0)) + (part("bias", bias) if bias else [])
    settings = {"strides": strides, "output_padding": ends, "use_bias": bias is not None}
    y = build.layer(lambda name: kind(weight.shape[1], weight.shape[2:], name=name, **settings), x.tensor, parts)
    return x.with_tensor(y)


def _spaced(tensor, strides: Sequence[int]):
    """Channels-last, with stride - 1 zeros between any two elements of a spatial axis."""
    for axis, stride in enumerate(strides, 1):
        if stride > 1:
            before, size, after = tensor.shape[1:axis], tensor.shape[axis], tensor.shape[axis + 1 :]
            zeros = [(0, 0)] * (len(tensor.shape) + 1)
            zeros[axis + 1] = (0, stride - 1)
            wide = K.reshape(K.pad(K.expand_dims(tensor, axis + 1), zeros), (-1, *before, size * stride, *after))
            tensor = wide[(slice(None),) * axis + (slice(1 - stride),)]
    return tensor


def _turned(weight: Activation, groups: int) -> Activation:
    """A transposed convolution's kernel (c, out / groups, *kernel) as a convolution's, (out, c / groups, *kernel)."""
    c, out, *kernel = weight.shape
    x = weight.reshaped([groups, c // groups, out, *kernel])
    axes = (x.axes[0], x.axes[2], x.axes[1], *x.axes[3:])
    x = Activation(K.flip(x.tensor, axes[3:]), axes)
    return x.reshaped([groups * out, c // groups, *kernel])


def _computed_kernel(
    build: Builder, x: Activation, weight: Value, bias: Value | None, strides, pads: Pads, dilations, groups: int
) -> Activation:
    """A kernel that is itself computed, as by weight standardisation: no layer can hold it."""
    rank = len(strides)
    if max(strides) > 1 and max(dilations) > 1:
        raise Unsupported("a computed kernel with both stride and dilation")
    kernel = build.value(weight).arranged((rank + 1, rank, *range(rank))).tensor
    tensor, settings = padded(x.tensor, pads), {"padding": "valid", "dilation_rate": dilations}
    if groups == x.shape[1] and rank == 2 and len(set(strides)) == 1:
        kernel = K.reshape(kernel, (*kernel.shape[:2], groups, kernel.shape[-1] // groups))
        tensor = K.depthwise_conv(tensor, kernel, strides, **settings)
    elif groups == 1:
        tensor = K.conv(tensor, kernel, strides, **settings)
    else:  # K.conv refuses symbolic kernels of fewer channels than its input's
        pieces = zip(K.split(tensor, groups, -1), K.split(kernel, groups, -1), strict=True)
        tensor = K.concatenate([K.conv(*piece, strides, **settings) for piece in pieces], -1)
    y = x.with_tensor(tensor)
    return y if bias is None else y.with_tensor(K.add(y.tensor, build.value(bias).tensor))


def _pads(padding: int | Sequence[int] | str, kernel: Sequence[int], dilations: Sequence[int]) -> Pads:
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        totals = [dilation * (size - 1) for dilation, size in zip(dilations, kernel, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    assert not isinstance(padding, str)
    return [(pad, pad) for pad in each(padding, len(kernel))]


def _thin(tensor, strides: Sequence[int]):
    return tensor[(slice(None), *(slice(None, None, stride) for stride in strides), slice(None))]


def padded(tensor, pads: Pads, value: float = 0.0):
    """A channels-last tensor with `value` around its spatial axes."""
    if not any(map(any, pads)):
        return tensor
    return K.pad(tensor, [(0, 0), *pads, (0, 0)], constant_values=value)


def each(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    """ATen's shorthand for one number per axis: 3, [3] or [3, 3] -> (3, 3)."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * count if len(values) == 1 else values


@ops("batch_norm")
def batch_norm(
    build: Builder,
    x: Activation,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    variance: Value | None,
    training: bool,
    momentum: float,
    epsilon: float,
    _cudnn: bool,
) -> Activation:
    """x: (n, c, ...). Without stored statistics, as weight standardisation uses it, those of x itself are taken."""
    if mean is None or training:
        others = [axis for axis in range(x.rank) if axis != 1]
        return _scaled(build, standardised(x, others, epsilon), weight, bias)
    if any(isinstance(value, Activation) for value in (weight, bias, mean, variance)):
        raise Unsupported("batch_norm with computed weights")
    parts = []
    for variable, stored in zip(
        ("gamma", "beta", "moving_mean", "moving_variance"), (weight, bias, mean, variance), strict=True
    ):
        parts += part(variable, stored) if isinstance(stored, Stored) else []
    y = build.layer(
        lambda name: layers.BatchNormalization(
            axis=x.place(1), momentum=1 - momentum, epsilon=epsilon, scale=weight is not None, center=bias is not None,
            name=name,
        ),
        x.tensor,
        parts,
    )  # fmt: skip
    return x.with_tensor(y)


@ops("layer_norm")
def layer_norm(build: Builder, x: Activation, shape: Sequence[int], weight, bias, epsilon: float, _cudnn: bool):
    """Normalises over the last len(shape) axes, which are put last: Keras' layer on PyTorch errs on any others."""
    x = _with_last(x, len(shape))
    tail = list(range(x.rank - len(shape), x.rank))
    if _is_computed(weight, bias):
        return _scaled(build, standardised(x, tail, epsilon), weight, bias, axis=x.rank - 1)
    parts = [*(part("gamma", weight) if weight else []), *(part("beta", bias) if bias else [])]
    y = build.layer(
        lambda name: layers.LayerNormalization(
            axis=tail if len(tail) > 1 else tail[0], epsilon=epsilon, scale=bool(weight), center=bool(bias), name=name
        ),
        x.tensor,
        parts,
    )
    return x.with_tensor(y)


@ops("group_norm")
def group_norm(build: Builder, x: Activation, groups: int, weight, bias, epsilon: float, _cudnn: bool) -> Activation:
    """x: (n, c, ...); each of `groups` groups of channels is normalised over itself and space."""
    x = x.arranged(channels_last(x.rank))
    if _is_computed(weight, bias):
        raise Unsupported("group_norm with computed weights")
    parts = [*(part("gamma", weight) if weight else []), *(part("beta", bias) if bias else [])]
    y = build.layer(
        lambda name: layers.GroupNormalization(
            groups, epsilon=epsilon, scale=bool(weight), center=bool(bias), name=name
        ),
        x.tensor,
        parts,
    )
    return x.with_tensor(y)


@ops("instance_norm")
def instance_norm(
    build: Builder, x: Activation, weight, bias, mean, variance, by_image: bool, momentum: float, epsilon: float,
    _cudnn: bool,
) -> Activation:  # fmt: skip
    """x: (n, c, ...); each channel of each image by itself, or by statistics that are stored."""
    if not by_image:
        return batch_norm(build, x, weight, bias, mean, variance, False, momentum, epsilon, False)
    return group_norm(build, x, x.shape[1], weight, bias, epsilon, False)


@ops("rms_norm")
def rms_norm(build: Builder, x: Activation, shape: Sequence[int], weight: Value | None, epsilon: float | None):
    """Divides by the root mean square of the last len(shape) axes."""
    places = tuple(x.place(axis) for axis in range(x.rank - len(shape), x.rank))
    floor = float(np.finfo("float32").eps) if epsilon is None else epsilon
    square = K.mean(K.square(x.tensor), places, keepdims=True)
    y = x.with_tensor(K.multiply(x.tensor, K.rsqrt(K.add(square, floor))))
    return y if weight is None else y.with_tensor(K.multiply(y.tensor, build.operand(weight, y)))


def standardised(x: Activation, axes: Sequence[int], epsilon: float) -> Activation:
    """x minus its mean, over its standard deviation, both along `axes`."""
    places = tuple(x.place(axis) for axis in axes)
    centred = K.subtract(x.tensor, K.mean(x.tensor, places, keepdims=True))
    variance = K.mean(K.square(centred), places, keepdims=True)
    return x.with_tensor(K.multiply(centred, K.rsqrt(K.add(variance, epsilon))))


def _scaled(build: Builder, x: Activation, weight: Value | None, bias: Value | None, axis: int = 1) -> Activation:
    """x * weight + bias along one axis."""
    shape = [1] * x.rank
    for value, combine in ((weight, K.multiply), (bias, added)):
        if value is not None:
            shape[axis] = math.prod(value.shape)
            x = x.with_tensor(combine(x.tensor, build.operand(build.value(value).reshaped(shape), x)))
    return x


def _with_last(x: Activation, count: int) -> Activation:
    """The last `count` axes last, in order; the others keep the order they lie in."""
    others = sorted(range(x.rank - count), key=lambda axis: x.axes[axis])
    order = [*others, *range(x.rank - count, x.rank)]
    return x.arranged([order.index(axis) for axis in range(x.rank)])


def _is_computed(*values: Value | None) -> bool:
    return any(isinstance(value, Activation) for value in values)
