"""Pooling, resizing and windows. Whatever Keras' layers cannot express becomes a product with a constant matrix,
which is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from keras import layers
from keras import ops as K  # noqa: N812
from torch.nn import functional as F  # noqa: N812

from multitl.translation.building import Builder
from multitl.translation.layouts import channels_last, inverse
from multitl.translation.op_tables import OpTable, Unsupported
from multitl.translation.values import Activation
from multitl_torch.fx_ops_convolution import each, padded
from multitl_torch.fx_ops_cutting import window_indices, windows
from multitl_torch.fx_ops_shape import permute, squeeze, unsqueeze

ops = OpTable("pooling")

LOWEST = -3e38  # what maximum pooling pads with; -inf does not survive JSON


@ops("max_pool2d")
def max_pool2d(build: Builder, x: Activation, kernel, stride, padding, dilation, ceil_mode: bool) -> Activation:
    """x: (n, c, h, w)."""
    if set(each(dilation, 2)) != {1}:
        raise Unsupported("max_pool2d with dilation")
    x = x.arranged(channels_last(4))
    kernel, stride, pads = _window(x, kernel, stride, padding, ceil_mode)
    if _is_same(kernel, stride, pads):
        return x.with_tensor(layers.MaxPooling2D(kernel, stride, "same", name=build.name())(x.tensor))
    return x.with_tensor(layers.MaxPooling2D(kernel, stride, name=build.name())(padded(x.tensor, pads, LOWEST)))


@ops("max_pool2d_with_indices")
def max_pool2d_with_indices(build: Builder, *arguments) -> list[Activation]:
    """Only the maxima; nothing in an image classifier reads the indices."""
    return [max_pool2d(build, *arguments)]


@ops("avg_pool2d")
def avg_pool2d(
    build: Builder, x: Activation, kernel, stride, padding, ceil_mode: bool, count_include_pad: bool, divisor
) -> Activation:
    """x: (n, c, h, w). Where padding is not counted, the means over zeros are scaled up position by position."""
    x = x.arranged(channels_last(4))
    space = x.shape[2:]
    given = (each(kernel, 2), each(stride, 2) if stride else each(kernel, 2), each(padding, 2))
    kernel, stride, pads = _window(x, kernel, stride, padding, ceil_mode)
    if _is_same(kernel, stride, pads) and not count_include_pad and not divisor:
        return x.with_tensor(layers.AveragePooling2D(kernel, stride, "same", name=build.name())(x.tensor))
    y = layers.AveragePooling2D(kernel, stride, name=build.name())(padded(x.tensor, pads))
    ones = torch.ones(1, 1, *space)
    wanted = F.avg_pool2d(ones, *given, ceil_mode, count_include_pad, divisor)
    found = F.avg_pool2d(F.pad(ones, (*pads[1], *pads[0])), kernel, stride)
    factors = (wanted / found)[0, 0, :, :, None].numpy()
    return x.with_tensor(y if np.all(factors == 1) else K.multiply(y, factors[None]))


@ops("adaptive_avg_pool2d")
def adaptive_avg_pool2d(build: Builder, x: Activation, size: Sequence[int]) -> Activation:
    """x: (n, c, h, w) -> (n, c, *size)."""
    x = x.arranged(channels_last(4))
    space = x.shape[2:]
    size = tuple(wanted or have for wanted, have in zip(each(size, 2), space, strict=True))
    if size == (1, 1):
        return x.with_tensor(layers.GlobalAveragePooling2D(keepdims=True, name=build.name())(x.tensor))
    if size == space:
        return x
    if not any(have % wanted for have, wanted in zip(space, size, strict=True)):
        window = tuple(have // wanted for have, wanted in zip(space, size, strict=True))
        return x.with_tensor(layers.AveragePooling2D(window, name=build.name())(x.tensor))
    return _mixed(x, [_adaptive_means(have, wanted) for have, wanted in zip(space, size, strict=True)])


@ops("adaptive_max_pool2d")
def adaptive_max_pool2d(build: Builder, x: Activation, size: Sequence[int]) -> list[Activation]:
    """x: (n, c, h, w) -> [(n, c, *size)]."""
    x = x.arranged(channels_last(4))
    space, size = x.shape[2:], each(size, 2)
    if any(have % wanted for have, wanted in zip(space, size, strict=True)):
        raise Unsupported("adaptive_max_pool2d to a size that does not divide the input's")
    window = tuple(have // wanted for have, wanted in zip(space, size, strict=True))
    return [x.with_tensor(layers.MaxPooling2D(window, name=build.name())(x.tensor))]


@ops("max_pool1d")
def max_pool1d(build: Builder, x: Activation, kernel, stride, padding, dilation, ceil_mode: bool) -> Activation:
    """x: (n, c, length)."""
    window = (1, *kernel), (1, *(stride or kernel)), (0, *padding), (1, *dilation)
    return _along_one(build, x, max_pool2d, *window, ceil_mode)


@ops("avg_pool1d")
def avg_pool1d(
    build: Builder, x: Activation, kernel, stride, padding, ceil_mode: bool, count_include_pad: bool
) -> Activation:
    """x: (n, c, length)."""
    window = (1, *kernel), (1, *(stride or kernel)), (0, *padding)
    return _along_one(build, x, avg_pool2d, *window, ceil_mode, count_include_pad, None)


@ops("avg_pool3d")
def avg_pool3d(
    build: Builder, x: Activation, kernel, stride, padding, ceil_mode: bool, count_include_pad: bool, divisor
) -> Activation:
    """x: (n, c, d, h, w); without padding, as local response normalisation uses it."""
    if any(each(padding, 3)) or ceil_mode or divisor:
        raise Unsupported("avg_pool3d with padding, ceil mode or a divisor")
    x, size = x.arranged(channels_last(5)), each(kernel, 3)
    steps = each(stride, 3) if stride else size
    return x.with_tensor(layers.AveragePooling3D(size, steps, name=build.name())(x.tensor))


@ops("max_pool3d")
def max_pool3d(build: Builder, x: Activation, kernel, stride, padding, dilation, ceil_mode: bool) -> Activation:
    """x: (n, c, d, h, w)."""
    if set(each(dilation, 3)) != {1} or ceil_mode:
        raise Unsupported("max_pool3d with dilation or ceil mode")
    x, size = x.arranged(channels_last(5)), each(kernel, 3)
    steps = each(stride, 3) if stride else size
    tensor = padded(x.tensor, [(pad, pad) for pad in each(padding, 3)], LOWEST)
    return x.with_tensor(layers.MaxPooling3D(size, steps, name=build.name())(tensor))


def _along_one(build: Builder, x: Activation, function: Callable[..., Activation], *arguments) -> Activation:
    """`function` of (n, c, length) as a map of one row."""
    y = function(build, unsqueeze(build, x, 2), *arguments)
    return squeeze(build, y, 2)


@ops("adaptive_avg_pool1d")
def adaptive_avg_pool1d(build: Builder, x: Activation, size: Sequence[int]) -> Activation:
    """x: (n, c, length) -> (n, c, *size)."""
    if each(size, 1) == (1,):
        return x.with_tensor(K.mean(x.tensor, x.place(2), keepdims=True))
    return _along_one(build, x, adaptive_avg_pool2d, (1, *each(size, 1)))


@ops("upsample_nearest2d", "upsample_nearest2d.vec")
def upsample_nearest2d(build: Builder, x: Activation, size, *scales) -> Activation:
    """x: (n, c, h, w) -> (n, c, *size)."""
    return _resized(build, x, size, scales, "nearest", None)


@ops("upsample_bilinear2d.vec", "upsample_bilinear2d")
def upsample_bilinear2d(build: Builder, x: Activation, size, align_corners: bool, *scales) -> Activation:
    """As `upsample_nearest2d`."""
    return _resized(build, x, size, scales, "bilinear", align_corners)


@ops("upsample_bicubic2d.vec", "upsample_bicubic2d")
def upsample_bicubic2d(build: Builder, x: Activation, size, align_corners: bool, *scales) -> Activation:
    """As `upsample_nearest2d`."""
    return _resized(build, x, size, scales, "bicubic", align_corners)


@ops("_upsample_bilinear2d_aa.vec", "_upsample_bilinear2d_aa")
def upsample_bilinear2d_smooth(build: Builder, x: Activation, size, align_corners: bool, *scales) -> Activation:
    """As `upsample_nearest2d`, with antialiasing."""
    return _resized(build, x, size, scales, "bilinear", align_corners, antialias=True)


@ops("_upsample_bicubic2d_aa.vec", "_upsample_bicubic2d_aa")
def upsample_bicubic2d_smooth(build: Builder, x: Activation, size, align_corners: bool, *scales) -> Activation:
    """As `upsample_nearest2d`, with antialiasing."""
    return _resized(build, x, size, scales, "bicubic", align_corners, antialias=True)


@ops("upsample_linear1d.vec", "upsample_linear1d")
def upsample_linear1d(build: Builder, x: Activation, size, align_corners: bool, scale) -> Activation:
    """x: (n, c, length) -> (n, c, *size)."""
    scales = (1.0, *scale) if isinstance(scale, list) else (1.0, scale)
    return _along_one(build, x, _resized, size and (1, *size), scales, "bilinear", align_corners)


def _resized(
    build: Builder, x: Activation, size, scales, mode: str, align_corners: bool | None, antialias: bool = False
) -> Activation:
    """scales: one for each axis, or one list of them; where given, PyTorch goes by them and not by the sizes' ratio."""
    x = x.arranged(channels_last(4))
    space = x.shape[2:]
    scales = (scales[0] if len(scales) == 1 else scales) or (None, None)
    if not size:
        size = [int(have * scale) for have, scale in zip(space, scales, strict=True)]
    axes = list(zip(space, size, scales, strict=True))
    if mode == "nearest" and all(
        wanted % have == 0 and scale in (None, wanted // have) for have, wanted, scale in axes
    ):
        factors = tuple(wanted // have for have, wanted, _ in axes)
        return x.with_tensor(layers.UpSampling2D(factors, name=build.name())(x.tensor))
    return _mixed(x, [_resampling(*axis, mode, align_corners, antialias) for axis in axes])


def _resampling(
    length: int, wanted: int, scale: float | None, mode: str, align_corners: bool | None, antialias: bool
) -> np.ndarray:
    """PyTorch's own resampling along one axis as a matrix (wanted, length): what it makes of unit vectors.

    They stand twice, side by side: images of one column come out wrong of PyTorch 2.13's antialiasing.
    """
    columns = torch.eye(length)[None, :, :, None].repeat(1, 1, 1, 2)
    size, factors = ((wanted, 2), None) if scale is None else (None, (scale, 1.0))
    return F.interpolate(columns, size, factors, mode, align_corners, antialias=antialias)[0, :, :, 0].T.numpy()


def _adaptive_means(length: int, wanted: int) -> np.ndarray:
    """Adaptive average pooling along one axis as a matrix (wanted, length)."""
    return F.adaptive_avg_pool1d(torch.eye(length)[None], wanted)[0].T.numpy()


def _mixed(x: Activation, matrices: Sequence[np.ndarray]) -> Activation:
    """Rows and columns of (n, h, w, c), each mixed by a constant matrix (out, in)."""
    return x.with_tensor(K.einsum("bhwc,oh,pw->bopc", x.tensor, *matrices))


@ops("im2col")
def im2col(build: Builder, x: Activation, kernel, dilation, padding, stride) -> Activation:
    """x: (n, c, h, w) -> (n, c * kernel, windows): the windows of a convolution."""
    x = x.arranged(channels_last(4))
    x = x.with_tensor(padded(x.tensor, [(pad, pad) for pad in padding]))
    for axis, sizes in zip((2, 4), zip(kernel, stride, dilation, strict=True), strict=True):
        x = windows(build, x, axis, *sizes)
    n, c, rows, height, columns, width = x.shape
    x = permute(build, x, (0, 1, 3, 5, 2, 4))
    return x.reshaped([n, c * height * width, rows * columns])


@ops("col2im")
def col2im(build: Builder, x: Activation, size, kernel, dilation, padding, stride) -> Activation:
    """x: (n, c * kernel, windows) -> (n, c, *size): windows are put back, and added up where they overlap."""
    matrices = [_placing(*one) for one in zip(size, kernel, dilation, padding, stride, strict=True)]
    counts = [matrix.shape[0] for matrix in matrices]
    n, c = x.shape[0], x.shape[1] // math.prod(kernel)
    x = x.reshaped([n, c, *kernel, *counts])
    names = "".join("bcijop"[axis] for axis in inverse(x.axes))
    return Activation(K.einsum(f"{names},oih,pjw->bhwc", x.tensor, *matrices), channels_last(4), x.batch)


def _placing(length: int, size: int, dilation: int, pad: int, step: int) -> np.ndarray:
    """1 where an element of a window lies on an axis: (windows, size, length)."""
    places = window_indices(length + 2 * pad, size, step, dilation) - pad
    return (places[:, :, None] == np.arange(length)).astype("float32")


def _window(x: Activation, kernel, stride, padding, ceil_mode: bool):
    """Kernel, stride and the zeros to put around, ceil mode's extra ones included."""
    kernel = each(kernel, 2)
    stride = each(stride, 2) if stride else kernel
    pads = []
    for length, size, step, pad in zip(x.shape[2:], kernel, stride, each(padding, 2), strict=True):
        pads.append((pad, pad + (_ceil_extra(length, size, step, pad) if ceil_mode else 0)))
    return kernel, stride, pads


def _ceil_extra(length: int, size: int, step: int, pad: int) -> int:
    """Zeros that the last window of ceil mode needs; PyTorch drops a window that would start beyond the padded
    input.
    """
    if pad <= size - step:
        return step - 1  # enough for any length, so that the graph does not depend on it
    windows = -(-(length + 2 * pad - size) // step) + 1
    if (windows - 1) * step >= length + pad:
        windows -= 1
    return max(0, (windows - 1) * step + size - (length + 2 * pad))


def _is_same(kernel: Sequence[int], stride: Sequence[int], pads: Sequence[tuple[int, int]]) -> bool:
    """Whether Keras' "same" pads alike; its averages do not count the padding."""
    return set(stride) == {1} and all(
        pads[i] == ((size - 1) // 2, (size - 1) // 2) and size % 2 for i, size in enumerate(kernel)
    )
