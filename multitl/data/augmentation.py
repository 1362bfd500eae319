"""Random changes to training images, made of Keras' own layers."""

from __future__ import annotations

import keras
import numpy as np


def augmentation_layers(strength: str, seed: int) -> list[keras.layers.Layer]:
    """Layers from float32 pixels (batch, height, width, 3) in [0, 255] to the same; random only in training mode.

    strength: "none", "light" (mirror, shift by up to 10 %) or "strong" (also zoom by up to 20 %, rotation by up to 20
    degrees, brightness, contrast). Draws depend on `seed` and the backend: frameworks do not share a random generator.
    """
    layers = keras.layers
    light = [
        layers.RandomFlip("horizontal", seed=seed),
        layers.RandomTranslation(0.1, 0.1, fill_mode="reflect", seed=seed + 1),
    ]
    strong = [
        layers.RandomZoom((-0.2, 0.2), fill_mode="reflect", seed=seed + 2),
        layers.RandomRotation(20 / 360, fill_mode="reflect", seed=seed + 3),
        layers.RandomBrightness(0.2, value_range=(0, 255), seed=seed + 4),
        layers.RandomContrast(0.2, value_range=(0, 255), seed=seed + 5),
    ]
    return {"none": [], "light": light, "strong": light + strong}[strength]


def augment(pixels: np.ndarray, strength: str, seed: int) -> np.ndarray:
    """A uint8 batch (n, height, width, 3) -> one random version of it, rounded back to uint8.

    Done before the model sees the batch, not inside it: Keras does not compile a model with such layers, and under JAX
    a training step of MobileNet then took 55 times as long. The same seed gives the same batch on the same backend.
    """
    if strength == "none":
        return pixels
    x = keras.ops.cast(pixels, "float32")
    for layer in augmentation_layers(strength, seed):
        x = layer(x, training=True)
    return np.clip(np.rint(keras.ops.convert_to_numpy(x)), 0, 255).astype("uint8")
