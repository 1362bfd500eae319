"""The value part of `Preprocess` (channel order, scale, offset): once in numpy, once as layers inside a saved model.

The geometric part (resize, crop) is done on the host by images.py.
"""

from __future__ import annotations

import keras
import numpy as np

from multitl.contracts import Preprocess


def normalise(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """(..., 3) RGB in [0, 255] -> float32 (..., 3) as the backbone wants it."""
    ordered = pixels[..., ::-1] if preprocess.channel_order == "bgr" else pixels
    return ordered.astype("float32") * np.array(preprocess.scale, "float32") + np.array(preprocess.offset, "float32")


def normalise_in_model(pixels: keras.KerasTensor, preprocess: Preprocess) -> keras.KerasTensor:
    """The same on a symbolic (batch, height, width, 3) tensor of any dtype, with stock layers only.

    Stock layers, so that a saved model loads with plain Keras under every backend. float32 always: under a 16-bit
    policy a pixel of 255 with an offset would lose its last bits.
    """
    if preprocess.channel_order == "bgr":
        pixels = keras.ops.flip(pixels, axis=-1)
    return keras.layers.Rescaling(
        scale=list(preprocess.scale), offset=list(preprocess.offset), dtype="float32", name="normalise"
    )(pixels)
