"""Convolution, pooling and batch normalisation on channels-last images without Keras' copies.

Keras' PyTorch backend copies the images of every convolution and pooling to channels first, and a convolution's back
again; batch normalisation it composes of six passes. PyTorch's own kernels take channels-last memory as it is: a
permuted view is enough, and one kernel normalises. A convolution's weight takes the order in memory that the kernel
wants, once, instead of a copy in each step; its shape stays as Keras has it. The results are the same up to rounding.
ResNet-50 on two cores, beside torchvision's own, channels last: an inference of 16 images of 224 px had 0.47 of its
speed and a training step's two passes 0.65 (medians of 5 and 3, interleaved in one process); with all of this, folded
batch normalisation and a kept heap, inference of 8 has 1.0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import torch

from multitl_torch import insides


@contextlib.contextmanager
def fast_channels_last() -> Iterator[None]:
    """While open, Keras' layers run on PyTorch's channels-last kernels."""
    with insides.CHANNELS_LAST.replaced(to_channels_first, transpose_kernel, batch_normalization, call, convolve):
        yield


def to_channels_first(inputs: torch.Tensor) -> torch.Tensor:
    """(n, h, w, c) -> (n, c, h, w), the same memory. Whatever is no batch of images goes to Keras' own."""
    return inputs.permute(0, 3, 1, 2) if inputs.ndim == 4 else insides.TO_CHANNELS_FIRST.original(inputs)


def transpose_kernel(kernel: torch.Tensor) -> torch.Tensor:
    """(h, w, in, out) -> (out, in, h, w), the same memory, which for a weight has the order (out, h, w, in) from then
    on. Gradients follow their weight's order.
    """
    view = insides.TRANSPOSE_KERNEL.original(kernel)
    is_weight = isinstance(kernel, torch.nn.Parameter) and kernel.ndim == 4 and kernel.device.type != "meta"
    if not is_weight or view.is_contiguous(memory_format=torch.channels_last):
        return view
    kernel.data = view.detach().contiguous(memory_format=torch.channels_last).permute(2, 3, 1, 0)
    return insides.TRANSPOSE_KERNEL.original(kernel)


def batch_normalization(
    x: torch.Tensor, mean: Any, variance: Any, axis: int, offset: Any = None, scale: Any = None, epsilon: float = 1e-3
) -> torch.Tensor:
    """As `keras.ops.batch_normalization`. PyTorch's kernel takes the statistics for constants; where they are functions
    of x, or not those of images' last axis, Keras' own does it.
    """
    given = [keras.ops.convert_to_tensor(one) for one in (x, mean, variance)]
    x, mean, variance = given
    if not _are_images(x, axis) or (torch.is_grad_enabled() and (mean.requires_grad or variance.requires_grad)):
        return insides.BATCH_NORMALIZATION.original(x, mean, variance, axis, offset, scale, epsilon)
    offset, scale = (None if one is None else keras.ops.convert_to_tensor(one) for one in (offset, scale))
    images = torch.nn.functional.batch_norm(x.permute(0, 3, 1, 2), mean, variance, scale, offset, False, 0.0, epsilon)
    return images.permute(0, 2, 3, 1)


def call(self: keras.layers.BatchNormalization, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    """`BatchNormalization.call`. In training PyTorch's kernel gives the batch's statistics with the result."""
    learns = training and self.trainable and mask is None and not self.renorm
    if not learns or not isinstance(inputs, torch.Tensor) or not _are_images(inputs, self.axis):
        return insides.BATCH_NORM_CALL.original(self, inputs, training, mask)
    scale, offset = (None if one is None else one.value.float() for one in (self.gamma, self.beta))
    images, mean, deviation = torch.native_batch_norm(
        inputs.permute(0, 3, 1, 2).float(), scale, offset, None, None, True, 0.0, self.epsilon
    )
    with torch.no_grad():
        variance = deviation.pow(-2) - self.epsilon
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving.value * self.momentum + new * (1 - self.momentum))
    return images.permute(0, 2, 3, 1).to(_dtype(self.compute_dtype))


def convolve(self: keras.layers.Conv2D, inputs: Any) -> Any:
    """`Conv2D.call`. In inference the bias is added in place: nobody else has seen the result yet."""
    is_inference = isinstance(inputs, torch.Tensor) and not torch.is_grad_enabled()
    if not (is_inference and self.use_bias and self.data_format == "channels_last"):
        return insides.CONVOLUTION_CALL.original(self, inputs)
    outputs = self.convolution_op(inputs, self.kernel).add_(self.bias.value)
    return outputs if self.activation is None else self.activation(outputs)


def _are_images(x: torch.Tensor, axis: int) -> bool:
    """Real ones: shapes alone are computed on the device "meta", where no kernel runs."""
    return x.ndim == 4 and axis in (-1, 3) and x.device.type != "meta"


def _dtype(name: str) -> torch.dtype:
    return getattr(torch, name)
