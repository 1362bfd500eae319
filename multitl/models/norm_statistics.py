"""Batch normalisation moved to images of another domain, forward only.

Re-estimated statistics (Nado et al. 2020, arXiv:2006.10726; Li et al. 2016, arXiv:1603.04779) give every channel of the
other domain's images mean 0 and variance 1. That is right for a network whose own training images had them. Those of a
pretrained one that a head was put on did not: its statistics are ImageNet's. So what is kept here is not 0 and 1, but
what the *training images* had after each normalisation: with their moments m, v at its input, the other domain's m', v'
and the layer's own statistics M, V, these become

    V' + e = (V + e) (v' + e) / (v + e),        M' = m' - (m - M) sqrt((v' + e) / (v + e)),

which is nothing but the re-estimated m' and v' where m = M and v = V. The head stays as it is. On drawings of emoji,
plain re-estimation costs 20 points of accuracy; see benchmarks/adaptation.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from multitl.contracts import Preprocess
from multitl.models.heads import pixel_input
from multitl.models.inference import compile_forward
from multitl.models.initialisers import numpy_initialisers
from multitl.models.insides import nodes_of
from multitl.models.preprocessing import normalise_in_model


@dataclass(frozen=True, eq=False)
class Moments:
    """Of what goes into a normalisation, over images and positions. mean, variance: (channels,)."""

    mean: np.ndarray
    variance: np.ndarray

    def mixed(self, other: Moments, share: float) -> Moments:
        """share: how much of each figure is the other's."""
        mean = (1 - share) * self.mean + share * other.mean
        return Moments(mean, (1 - share) * self.variance + share * other.variance)


def movable_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """The batch normalisations of channels that are called once; not those in models nested in this one."""
    return [layer for layer in model.layers if _is_movable(layer)]


def measure_moments(
    model: keras.Model,
    preprocess: Preprocess,
    batches: Iterable[np.ndarray],
    like: Mapping[str, Moments] | None = None,
    share: float = 1.0,
) -> dict[str, Moments]:
    """What goes into each of `movable_norms`, by name, in one pass over uint8 pixels (n, height, width, 3).

    As the network is; or, given what it was `like` for the training images, as it is once the normalisations before are
    moved: the inputs of each are brought to those moments, batch by batch.  share: of a batch's own moments in what
    that goes by, the rest are `like`'s.
    """
    forward = compile_forward(_measuring(model, preprocess, like, share))
    count, sums = 0, np.zeros((2, 1))
    for pixels in batches:
        mean, variance = ops.convert_to_numpy(forward(pixels)).astype("float64")
        count, sums = count + len(pixels), sums + len(pixels) * np.stack([mean, variance + mean**2])
    mean, square = sums / count
    moments, start = {}, 0
    for norm in movable_norms(model):
        part = slice(start, start + norm.moving_mean.shape[0])
        moments[norm.name] = Moments(mean[part], np.maximum(square[part] - mean[part] ** 2, 0.0))
        start = part.stop
    return moments


def move_statistics(model: keras.Model, source: Mapping[str, Moments], target: Mapping[str, Moments]) -> None:
    """Give each normalisation the statistics with which images of the target come out of it as those of the source."""
    for norm in movable_norms(model):
        one, other, tiny = source[norm.name], target[norm.name], norm.epsilon
        own_mean, own_variance = (ops.convert_to_numpy(it.value) for it in (norm.moving_mean, norm.moving_variance))
        ratio = (other.variance + tiny) / (one.variance + tiny)
        norm.moving_mean.assign((other.mean - (one.mean - own_mean) * np.sqrt(ratio)).astype("float32"))
        norm.moving_variance.assign(np.maximum((own_variance + tiny) * ratio - tiny, 0.0).astype("float32"))


def _is_movable(layer: keras.layers.Layer) -> bool:
    if not isinstance(layer, keras.layers.BatchNormalization) or len(nodes_of(layer)) > 1:
        return False
    return layer.axis in (-1, len(layer.input.shape) - 1)


def _bring(
    values: keras.KerasTensor, mean: keras.KerasTensor, variance: keras.KerasTensor, like: Moments, share: float,
    tiny: float,
) -> keras.KerasTensor:  # fmt: skip
    """Values (..., channels) of a batch with these moments, brought to those they shall be like."""
    mean = share * mean + (1 - share) * like.mean.astype("float32")
    variance = share * variance + (1 - share) * like.variance.astype("float32")
    ratio = ops.divide(like.variance.astype("float32") + np.float32(tiny), variance + tiny)
    return (values - mean) * ops.sqrt(ratio) + like.mean.astype("float32")


def _measuring(
    model: keras.Model, preprocess: Preprocess, like: Mapping[str, Moments] | None, share: float
) -> keras.Model:
    """Pixels -> means and variances (2, channels of all normalisations), in the order of `movable_norms`."""
    names = [norm.name for norm in movable_norms(model)]
    seen: dict[str, keras.KerasTensor] = {}

    def call(layer: keras.Operation, *arguments: Any, **options: Any) -> Any:
        if layer.name in names:
            values = ops.cast(arguments[0], "float32")
            moments = ops.moments(values, axes=tuple(range(len(values.shape) - 1)))
            seen[layer.name] = ops.stack(moments)
            if like:
                brought = _bring(values, moments[0], moments[1], like[layer.name], share, layer.epsilon)
                arguments = (ops.cast(brought, arguments[0].dtype),)
        return layer(*arguments, **options)

    with numpy_initialisers(seed=None):
        clone = keras.models.clone_model(model, call_function=call)
    for layer in (one for one in clone.layers if one.weights):
        layer.set_weights(model.get_layer(layer.name).get_weights())
    body = keras.Model(clone.input, ops.concatenate([seen[name] for name in names], axis=-1))
    pixels = pixel_input(preprocess)
    return keras.Model(pixels, body(normalise_in_model(pixels, preprocess)), name="moments")
