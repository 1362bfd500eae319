"""What Keras does not promise, and this backend uses all the same: here and nowhere else, each with its reason."""

from __future__ import annotations

from multitl.system.swapping import FastPath, Inside

DEPTHWISE_CONV = Inside(
    "keras.src.backend.jax.nn:depthwise_conv",
    "inputs kernel strides padding data_format dilation_rate",
    "Keras' layers call this one, whatever is registered publicly",
)
DEPTHWISE = FastPath("depthwise convolution on CPU", DEPTHWISE_CONV)
