"""A logit as a sum over the positions of the last feature map: no method to be believed, but the same sum written out.

With average pooling over h x w positions and a linear head, the logit of a class is w . mean(F) + b, which is the sum
over positions of w . F / (h w), and b (Zhou et al. 2016, arXiv:1512.04150, for networks that end so). What a head does
to its features first is linear too, once the length that it divides by is taken as the number that it is.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

_LINEAR = (layers.InputLayer, layers.Rescaling, layers.UnitNormalization, layers.Dropout, layers.Dense)
_LEAST = 1e-12  # of a squared length, as in Keras' UnitNormalization


def is_linear(head: keras.Model) -> bool:
    """Whether a head, as `models.heads` makes it, has neither a hidden layer nor a kernel."""
    dense = _layers(head, layers.Dense)
    is_alone = len(dense) == 1 and dense[0].activation is keras.activations.linear and dense[0].use_bias
    return is_alone and all(type(operation) in _LINEAR for operation in head.operations)


def bias_of(head: keras.Model) -> np.ndarray:
    """Of a linear head as it is now, (k,), float64."""
    return np.asarray(_layers(head, layers.Dense)[0].get_weights()[1], "float64")


def contributions(feature_map: keras.KerasTensor, features: keras.KerasTensor, head: keras.Model) -> keras.KerasTensor:
    """(batch, h, w, c), and its mean over positions (batch, c) -> what each position gives to each logit, float32
    (batch, h, w, k). By the layers of the linear head itself, which may go on training.
    """
    (dense,), scaling = _layers(head, layers.Dense), _layers(head, layers.Rescaling)
    x = _scaled(feature_map, scaling)
    if _layers(head, layers.UnitNormalization):
        squared = keras.ops.sum(keras.ops.square(_scaled(features, scaling)), axis=-1, keepdims=True)
        length = keras.ops.sqrt(keras.ops.maximum(squared, _LEAST))
        x = x / layers.Reshape((1, 1, 1), dtype="float32", name="length")(length)
    bias = dense(keras.ops.zeros_like(x[:, :1, :1]))
    return (dense(x) - bias) / (feature_map.shape[1] * feature_map.shape[2])


def _scaled(x: keras.KerasTensor, scaling: list[keras.layers.Layer]) -> keras.KerasTensor:
    for layer in scaling:
        x = layer(x)
    return x


def _layers(head: keras.Model, kind: type[keras.layers.Layer]) -> list[keras.layers.Layer]:
    return [layer for layer in head.layers if isinstance(layer, kind)]
