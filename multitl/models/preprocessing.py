"""The value part of `Preprocess` (channel order, scale, offset): once in numpy, once as layers inside a saved model.

The geometric part (resize, crop) is done on the host by images.py.
"""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np

from multitl.contracts import RGB, Preprocess
from multitl.errors import BackboneError

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels / 255, red green blue
CAFFE_OFFSET = (-103.939, -116.779, -123.68)  # blue green red


def with_values(preprocess: Preprocess, values: str) -> Preprocess:
    """The same geometry with other pixel values; "auto" leaves them.

    values: "caffe", "tf" and "torch" are the modes of keras.applications.imagenet_utils.preprocess_input: BGR less its
    mean, [-1, 1], and [0, 1] less ImageNet's mean over its deviation. "unit": [0, 1]. "bytes": [0, 255], as they come.
    """
    if values == "auto":
        return preprocess
    if values == "bytes":
        return preprocess.geometry
    if preprocess.channels != RGB:
        raise BackboneError(
            f"The backbone takes {preprocess.channels} channels, whose values it scales itself.",
            expected="preprocess = auto or bytes",
            received=f"preprocess = {values}",
            fix="leave --preprocess out",
        )
    if values == "caffe":
        return replace(preprocess, channel_order="bgr", scale=(1.0, 1.0, 1.0), offset=CAFFE_OFFSET)
    mean, deviation = {
        "torch": (IMAGENET_MEAN, IMAGENET_DEVIATION),
        "tf": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    }[values]
    return preprocess.standardise(mean, deviation)


def normalise(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """(..., channels) in [0, 255], RGB of three -> float32 (..., channels) as the backbone wants it."""
    ordered = pixels[..., ::-1] if preprocess.channel_order == "bgr" else pixels
    return ordered.astype("float32") * np.array(preprocess.scale, "float32") + np.array(preprocess.offset, "float32")


def normalise_in_model(pixels: keras.KerasTensor, preprocess: Preprocess) -> keras.KerasTensor:
    """The same on a symbolic (batch, height, width, channels) tensor of any dtype, with stock layers only.

    Stock layers, so that a saved model loads with plain Keras under every backend. float32 always: under a 16-bit
    policy a pixel of 255 with an offset would lose its last bits.
    """
    if preprocess.channel_order == "bgr":
        pixels = keras.ops.flip(pixels, axis=-1)
    return keras.layers.Rescaling(
        scale=list(preprocess.scale), offset=list(preprocess.offset), dtype="float32", name="normalise"
    )(pixels)
