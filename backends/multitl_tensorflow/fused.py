"""Batch normalisation and Adam by TensorFlow's fused kernels.

Keras composes both of elementary operations. Without XLA, which Keras leaves off where operations shall be
deterministic, each of them reads and writes an image, or all weights, once more. The results are the same up to
rounding. Only where no GPU is used: there the kernels refuse some deterministic gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from multitl_tensorflow import insides


@contextlib.contextmanager
def fused_kernels() -> Iterator[None]:
    """While open, Keras' layers and optimizers run on TensorFlow's fused kernels, if there is no GPU."""
    if tf.config.list_physical_devices("GPU"):
        yield
        return
    with insides.BATCH_NORM.replaced(batch_normalization, call), insides.ADAM.replaced(update_step):
        yield


def batch_normalization(
    x: tf.Tensor, mean: Any, variance: Any, axis: int, offset: Any = None, scale: Any = None, epsilon: float = 1e-3
) -> tf.Tensor:
    """As `keras.ops.batch_normalization`, with given statistics."""
    if not _are_images(x, axis) or x.dtype != tf.float32:
        return insides.BATCH_NORMALIZATION.original(x, mean, variance, axis, offset, scale, epsilon)
    scale, offset = _scale_and_offset(x, scale, offset)
    return tf.compat.v1.nn.fused_batch_norm(x, scale, offset, mean, variance, epsilon=epsilon, is_training=False)[0]


def call(self: keras.layers.BatchNormalization, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    """`BatchNormalization.call`. In training one kernel gives the batch's statistics with the result."""
    learns = training and self.trainable and mask is None and not self.renorm and not self.synchronized
    if not learns or not _are_images(inputs, self.axis):
        return insides.BATCH_NORM_CALL.original(self, inputs, training, mask)
    images = tf.cast(inputs, "float32")
    scale, offset = _scale_and_offset(images, self.gamma, self.beta)
    images, mean, variance, *_ = tf.compat.v1.nn.fused_batch_norm(images, scale, offset, epsilon=self.epsilon)
    count = tf.cast(tf.size(images), "float32") / images.shape[-1]
    variance *= (count - 1) / count  # the kernel divides by one less than the number of pixels
    for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
        moving.assign(moving * self.momentum + new * (1 - self.momentum))
    return tf.cast(images, self.compute_dtype)


def update_step(self: keras.optimizers.Adam, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
    """`Adam.update_step`, the same formula (epsilon included) in one pass."""
    if self.amsgrad or not isinstance(gradient, tf.Tensor) or variable.dtype != tf.float32:
        insides.ADAM_STEP.original(self, gradient, variable, learning_rate)
        return
    step = tf.cast(self.iterations + 1, "float32")
    ((first, second),) = insides.adam_moments(self, [variable])
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle, m=first.value.handle, v=second.value.handle,
        beta1_power=self.beta_1**step, beta2_power=self.beta_2**step, lr=tf.cast(learning_rate, "float32"),
        beta1=self.beta_1, beta2=self.beta_2, epsilon=self.epsilon, grad=tf.cast(gradient, "float32"),
    )  # fmt: skip


def _are_images(x: Any, axis: int) -> bool:
    """What the kernel takes: (batch, height, width, channels), normalised over all but the channels."""
    return isinstance(x, tf.Tensor) and x.dtype != tf.float64 and x.shape.rank == 4 and axis in (-1, 3)


def _scale_and_offset(x: tf.Tensor, scale: Any, offset: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Those that are None do nothing."""
    channels = x.shape[-1:]
    return (
        tf.ones(channels) if scale is None else tf.convert_to_tensor(scale),
        tf.zeros(channels) if offset is None else tf.convert_to_tensor(offset),
    )
