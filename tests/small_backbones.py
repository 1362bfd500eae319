"""A backbone that compiles in a second, in a file of its own."""

from __future__ import annotations

from pathlib import Path

import keras

layers = keras.layers


def save_backbone(path: Path, side: int = 32) -> Path:
    """Three convolutions with batch normalisation on values (side, side, 3) in [0, 1], and a classifier to cut off."""
    image = keras.Input((side, side, 3))
    x = image
    for number, width in enumerate((8, 12, 16), start=1):
        x = layers.Conv2D(
            width, 3, 2, "same", use_bias=False, name=f"conv{number}",
            kernel_initializer=keras.initializers.HeNormal(seed=number),
        )(x)  # fmt: skip
        x = layers.ReLU()(layers.BatchNormalization(name=f"conv{number}_bn")(x))
    keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)), name="small").save(path)
    return path
