"""Depthwise convolution as a sum of shifted products: what XLA on a CPU runs several times faster.

XLA's CPU compiler turns a grouped convolution into a plain single-threaded loop, but fuses element-wise arithmetic and
runs it in parallel. EfficientNet-Lite0 computes features about 5 times faster this way (benchmarks/depthwise.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import product

import jax
import jax.numpy as jnp

from multitl_jax.insides import DEPTHWISE, DEPTHWISE_CONV


@contextlib.contextmanager
def fast_depthwise() -> Iterator[None]:
    """While open, Keras' depthwise convolutions are traced as shifted products. Does nothing on GPU and TPU."""
    with DEPTHWISE.replaced(depthwise_conv) if jax.default_backend() == "cpu" else contextlib.nullcontext():
        yield


def depthwise_conv(inputs, kernel, strides=1, padding="valid", data_format=None, dilation_rate=1):
    """As `keras.ops.depthwise_conv`. inputs: (n, h, w, c).  kernel: (kh, kw, c, multiplier) -> (n, h', w', c * m).

    Whatever is not two-dimensional and channels-last goes to Keras' own.
    """
    if jnp.ndim(inputs) != 4 or data_format == "channels_first" or padding not in ("valid", "same"):
        return DEPTHWISE_CONV.original(inputs, kernel, strides, padding, data_format, dilation_rate)
    inputs, kernel = jnp.asarray(inputs), jnp.asarray(kernel)
    size = kernel.shape[:2]
    stride, dilation = _pair(strides), _pair(dilation_rate)
    if padding == "same":
        inputs = _pad_same(inputs, size, stride, dilation)
    reach = [dilation[i] * (size[i] - 1) + 1 for i in (0, 1)]
    out = [(inputs.shape[1 + i] - reach[i]) // stride[i] + 1 for i in (0, 1)]
    total = jnp.zeros((inputs.shape[0], *out, *kernel.shape[2:]), inputs.dtype)
    for row, column in product(range(size[0]), range(size[1])):
        top, left = row * dilation[0], column * dilation[1]
        bottom, right = top + (out[0] - 1) * stride[0] + 1, left + (out[1] - 1) * stride[1] + 1
        window = inputs[:, top : bottom : stride[0], left : right : stride[1], :]
        total = total + window[..., None] * kernel[row, column]
    return total.reshape(*total.shape[:3], -1)


def _pad_same(inputs: jax.Array, size: tuple, stride: tuple[int, int], dilation: tuple[int, int]) -> jax.Array:
    """TensorFlow's SAME: as many zeros as the last window lacks, the odd one at the end."""
    widths = [(0, 0)]
    for axis in (0, 1):
        length, reach = inputs.shape[1 + axis], dilation[axis] * (size[axis] - 1) + 1
        missing = max((-(-length // stride[axis]) - 1) * stride[axis] + reach - length, 0)
        widths.append((missing // 2, missing - missing // 2))
    return jnp.pad(inputs, [*widths, (0, 0)])


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
