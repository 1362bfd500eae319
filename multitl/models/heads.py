"""The part that is new: pooling, and a small network from pooled features to class logits."""

from __future__ import annotations

import keras
import numpy as np

from multitl.contracts import Goal, Preprocess, Pretrained, Takes
from multitl.models.feature_maps import FeatureMap, scaled
from multitl.models.goals import GOALS
from multitl.models.preprocessing import normalise_in_model
from multitl.recipes import Recipe


def pool(feature_map: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    """(batch, h, w, channels) -> (batch, channels), by "avg" or "max" over the positions; float32."""
    layer = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}[pooling]
    return layer(dtype="float32", name="pool")(feature_map)


def build_head(features: np.ndarray, classes: int, recipe: Recipe, fixed: FeatureMap | None = None) -> keras.Model:
    """A model (batch, channels) float32 -> (batch, classes) logits: [dropout, hidden layer,] dropout, dense layer.

    features: (n, channels), the training features.  fixed: comes first; if None, they are divided by their root mean
    square.

    First weights are drawn by numpy (Glorot uniform), so that every backend starts from the same bits. Every new
    parameter carries the penalty `recipe.l2 * ||theta||^2`.
    """
    random = np.random.default_rng(recipe.seed)
    inputs = keras.Input((features.shape[1],), name="features")
    x = (fixed or scaled(features)).layers(inputs)
    if recipe.hidden:
        x = _dropout(x, recipe, "dropout_hidden")
        x = _dense(x, recipe.hidden, "relu", "hidden", recipe, random)
    x = _dropout(x, recipe, "dropout")
    return keras.Model(inputs, _dense(x, classes, None, "logits", recipe, random), name="head")


def build_classifier(pretrained: Pretrained, head: keras.Model, pooling: str, goal: Goal = GOALS["one"]) -> keras.Model:
    """The model that is saved: uint8 pixels (batch, *preprocess.shape) -> probabilities (batch, classes) float32."""
    pixels = pixel_input(pretrained.preprocess)
    logits = head(pool(pretrained.backbone(normalise_in_model(pixels, pretrained.preprocess)), pooling))
    return keras.Model(pixels, goal.last_layer()(logits), name="classifier")


def build_extractor(pretrained: Pretrained, pooling: str) -> keras.Model:
    """uint8 pixels (batch, height, width, channels) -> pooled features (batch, channels) float32."""
    pixels = pixel_input(pretrained.preprocess)
    return keras.Model(pixels, pool(pretrained.backbone(normalise_in_model(pixels, pretrained.preprocess)), pooling))


def with_entrance(model: keras.Model, backbone: keras.Model, preprocess: Preprocess, takes: Takes) -> keras.Model:
    """A saved model with another entrance: 8-bit pixels, "unit" in [0, 1], "normalised" as the backbone wants them.

    model: pixels -> normalise -> backbone -> anything, one layer after the other, as `build_classifier` makes it. The
    new one shares its layers.  backbone: to take the place of the model's own.
    """
    images = pixel_input(preprocess)
    if takes != "pixels":
        images = keras.Input(preprocess.shape, dtype="float32", name="images")
    x = keras.layers.Rescaling(255.0, dtype="float32", name="as_pixels")(images) if takes == "unit" else images
    x = backbone(x if takes == "normalised" else normalise_in_model(x, preprocess))
    for layer in model.layers[model.layers.index(backbone_of(model)) + 1 :]:
        x = layer(x)
    return keras.Model(images, x, name=model.name)


def backbone_of(model: keras.Model) -> keras.Model:
    """The pretrained part of a saved model: the first model nested in it."""
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def pixel_input(preprocess: Preprocess) -> keras.KerasTensor:
    """The symbolic uint8 input of every model that sees pixels."""
    return keras.Input(preprocess.shape, dtype="uint8", name="pixels")


def _dropout(x: keras.KerasTensor, recipe: Recipe, name: str) -> keras.KerasTensor:
    return keras.layers.Dropout(recipe.dropout, seed=recipe.seed, name=name)(x) if recipe.dropout else x


def _dense(x, units: int, activation: str | None, name: str, recipe: Recipe, random: np.random.Generator):
    penalty = keras.regularizers.L2(recipe.l2) if recipe.l2 else None
    layer = keras.layers.Dense(
        units, activation, kernel_regularizer=penalty, bias_regularizer=penalty, dtype="float32", name=name
    )
    y = layer(x)
    limit = np.sqrt(6 / (x.shape[-1] + units))
    layer.set_weights([random.uniform(-limit, limit, layer.kernel.shape).astype("float32"), np.zeros(units, "float32")])
    return y
