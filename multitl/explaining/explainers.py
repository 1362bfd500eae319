"""Heatmaps of a saved classifier: what each position of its last feature map gives to the logit of a class.

"exact": the logit is the sum of its map and a bias, see contributions.py; how well that holds is measured each time.
"gradient x activation", of any other head or pooling: the gradient of the logit by the map, times the map, summed over
channels (Shrikumar et al. 2017, arXiv:1704.02685): how the logit would change, to first order, without that position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import keras
import numpy as np
from keras import layers

from multitl.adapters import load_backend
from multitl.contracts import Forward, Gradient
from multitl.explaining.anatomy import Anatomy, cut_behind_backbone, dissect
from multitl.explaining.contributions import bias_of, contributions, is_linear
from multitl.models.inference import BATCH, compile_forward, predict_padded

Kind = Literal["exact", "gradient x activation"]
EXACT: Kind = "exact"
GRADIENT: Kind = "gradient x activation"
_PREFIXES = (0, 1, 2, 5)  # tokens before those of the image: of a class, of a teacher, registers


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Of one image and class. values: (h, w), float64.  elsewhere: what tokens give that stand for no place.

    logit, bias: bias is None where the kind is not exact.  error: how far the sum of all is from logit - bias, as a
    share of the largest logit - bias of that image; None likewise.
    """

    values: np.ndarray
    elsewhere: float
    logit: float
    bias: float | None
    error: float | None


@dataclass(frozen=True, eq=False)
class Look:
    """What an explainer saw of n images: maps (n, h, w, c), or of kind exact (n, h, w, k); logits, outputs (n, k)."""

    maps: np.ndarray
    logits: np.ndarray
    outputs: np.ndarray

    def of(self, images: slice) -> Look:
        """Of some of them."""
        return Look(self.maps[images], self.logits[images], self.outputs[images])


@dataclass(frozen=True, eq=False)
class Explainer:
    """Of a model from pixels (n, height, width, channels) to what it says (n, k), with the weights that it has at each
    look. `explainer_of` makes it.

    head: where maps are exact.  size: images that pass through it at once.
    """

    anatomy: Anatomy
    head: keras.Model | None
    size: int = BATCH

    @property
    def kind(self) -> Kind:
        return GRADIENT if self.head is None else EXACT

    def look(self, pixels: np.ndarray) -> Look:
        """Pass at most `size` images, uint8, through the network once."""
        row = predict_padded(self._forward, pixels, self.size)
        size = math.prod(self._shape)
        logits, outputs = np.split(row[:, size:], 2, axis=1)
        return Look(row[:, :size].reshape(len(row), *self._shape), logits, outputs)

    def explain(self, look: Look, classes: Sequence[int]) -> list[Heatmap]:
        """For each image of a look the map of one class."""
        chosen = np.asarray(classes)
        if self.head is not None:
            bias = bias_of(self.head)
            exact = np.take_along_axis(look.maps, chosen[:, None, None, None], axis=3)[..., 0]
            return [self._exact(bias, *one) for one in zip(exact, look.logits, chosen, strict=True)]
        weights = np.eye(look.logits.shape[1], dtype="float32")[chosen]
        padding = [(0, self.size - len(chosen))]
        padded = np.pad(look.maps, [*padding, *[(0, 0)] * (look.maps.ndim - 1)], mode="edge")
        gradients = keras.ops.convert_to_numpy(self._gradient(padded, np.pad(weights, [*padding, (0, 0)])))
        values = (gradients[: len(chosen)].astype("float64") * look.maps).sum(axis=-1)
        return [
            self._placed(one, float(logits[place]), None, None)
            for one, logits, place in zip(values, look.logits, chosen, strict=True)
        ]

    def _exact(self, bias: np.ndarray, values: np.ndarray, logits: np.ndarray, place: int) -> Heatmap:
        wanted = logits.astype("float64") - bias
        values = values.astype("float64")
        error = abs(values.sum() - wanted[place]) / max(np.abs(wanted).max(), np.finfo("float32").tiny)
        return self._placed(values, float(logits[place]), float(bias[place]), float(error))

    def _placed(self, values: np.ndarray, logit: float, bias: float | None, error: float | None) -> Heatmap:
        height, width = self.anatomy.pixels.shape[1:3]
        grid = as_grid(values, height / width)
        return Heatmap(grid, float(values.sum() - grid.sum()) if grid.size < values.size else 0.0, logit, bias, error)

    @property
    def contributions(self) -> keras.KerasTensor:
        """Where maps are exact: symbolic, (batch, h, w, k), of the model's own input."""
        pool = self.anatomy.tail[0]
        return contributions(self.anatomy.feature_map, pool(self.anatomy.feature_map), self.head)

    @property
    def _shape(self) -> tuple[int, ...]:
        shape = self.anatomy.feature_map.shape[1:]
        return shape if self.head is None else (*shape[:-1], self.head.output_shape[-1])

    @cached_property
    def _forward(self) -> Forward:
        """Pixels -> maps, logits and outputs of an image in one row."""
        one, flat = self.anatomy, layers.Flatten(dtype="float32")
        maps = one.feature_map if self.head is None else self.contributions
        logits = one.logits_of(one.feature_map)
        parts = [flat(maps), logits, one.last(logits)]
        return compile_forward(keras.Model(one.pixels, layers.Concatenate(dtype="float32")(parts)))

    @cached_property
    def _gradient(self) -> Gradient:
        feature_map = keras.Input(self.anatomy.feature_map.shape[1:], dtype="float32", name="feature_map")
        return load_backend().make_gradient(keras.Model(feature_map, self.anatomy.logits_of(feature_map)))


def explainer_of(model: keras.Model, size: int = BATCH) -> Explainer | None:
    """Of a saved classifier; None for a network without a map in it. size: images that pass through it at once.

    model: uint8 pixels (batch, height, width, channels) -> what is said (batch, k), as `models.heads` makes it, or a
    network with its own classifier.
    """
    anatomy = dissect(model)
    return None if anatomy is None else Explainer(anatomy, _linear_head(anatomy), size)


def exact_explainer_of(model: keras.Model, size: int) -> Explainer | None:
    """The same where its maps are exact, which costs nothing to find out; else None."""
    anatomy = cut_behind_backbone(model)
    head = anatomy and _linear_head(anatomy)
    return Explainer(anatomy, head, size) if anatomy and head else None


def contributions_of(model: keras.Model) -> keras.KerasTensor:
    """Of a model whose maps are exact: symbolic, (batch, h, w, k), of its own input. Raises ValueError for others."""
    explainer = exact_explainer_of(model, BATCH)
    if explainer is None:
        raise ValueError(f"{model.name} has no maps that sum to its logits")
    return explainer.contributions


def as_grid(values: np.ndarray, ratio: float) -> np.ndarray:
    """Tokens (n,) or (1, n) as the map (h, w) that they are of; a map as it is. ratio: of height to width.

    Tokens that come first and stand for no place are left out. What fits no grid stays one row.
    """
    if values.ndim == 2 and values.shape[0] > 1:
        return values
    tokens = values.reshape(-1)
    for prefix in _PREFIXES:
        count = len(tokens) - prefix
        height = round(math.sqrt(max(count, 0) * ratio))
        if height > 1 and count % height == 0 and abs(count / height - height / ratio) < 1:
            return tokens[prefix:].reshape(height, -1)
    return tokens.reshape(1, -1)


def _linear_head(anatomy: Anatomy) -> keras.Model | None:
    if len(anatomy.tail) != 2 or len(anatomy.feature_map.shape) != 4:
        return None
    pool, head = anatomy.tail
    is_plain = isinstance(pool, layers.GlobalAveragePooling2D) and isinstance(head, keras.Model)
    return head if is_plain and is_linear(head) else None
