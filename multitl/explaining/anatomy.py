"""A saved classifier cut in two at its last map of features: what makes the map, and what makes logits of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from multitl.models.heads import backbone_of
from multitl.models.insides import calls_in

_SEEN = 1e-6  # of the largest output: what changes it by less does not look at what was changed


@dataclass(frozen=True, eq=False)
class Anatomy:
    """pixels (batch, height, width, channels) -> feature_map (batch, h, w, c), or tokens (batch, n, c).

    tail: operations, one after the other, from the map to logits.  last: what makes the classifier's outputs of these.
    """

    pixels: keras.KerasTensor
    feature_map: keras.KerasTensor
    tail: tuple[keras.Operation, ...]
    last: keras.Operation

    def logits_of(self, feature_map: keras.KerasTensor) -> keras.KerasTensor:
        """What the tail gives: (batch, k)."""
        for operation in self.tail:
            feature_map = operation(feature_map)
        return feature_map


def dissect(model: keras.Model) -> Anatomy | None:
    """At the last map that more than one position of is looked at afterwards; None for a network without one.

    model: pixels -> normalise -> backbone, or a network with its classifier -> anything, one layer after the other ->
    softmax, sigmoids or a scale. Of a backbone that ends with a vector, such as a ViT's class token, the map lies
    inside.
    """
    if at_the_end := cut_behind_backbone(model):
        return at_the_end
    backbone, call, after, last = _parts(model)
    for tensor in _bottlenecks(backbone):
        rest = keras.Model(tensor, backbone.output, name="rest")
        if _looks_around(rest):
            trunk = keras.Model(backbone.input, tensor, name="trunk")
            return Anatomy(model.input, trunk(call.input_tensors[0]), (rest, *after), last)
    return None


def cut_behind_backbone(model: keras.Model) -> Anatomy | None:
    """Where the backbone ends with a map: nothing is computed to find that out."""
    _, call, after, last = _parts(model)
    return Anatomy(model.input, call.outputs[0], after, last) if _is_map(call.outputs[0]) else None


def _parts(model: keras.Model) -> tuple[keras.Model, Any, tuple[keras.Operation, ...], keras.Operation]:
    """The backbone, the call of it, what comes after it but for the last operation, and that."""
    backbone, calls = backbone_of(model), calls_in(model)
    place = next(index for index, call in enumerate(calls) if call.operation is backbone)
    *after, last = (call.operation for call in calls[place + 1 :])
    return backbone, calls[place], tuple(after), last


def _bottlenecks(network: keras.Model) -> Iterator[keras.KerasTensor]:
    """Maps and tokens through which all goes that comes after them, the last one first."""
    calls = calls_in(network)
    uses = {id(one): place for place, call in enumerate(calls) for one in call.input_tensors}
    found, latest = list[keras.KerasTensor](), uses.get(id(network.inputs[0]), 0)
    for place, call in enumerate(calls):
        if latest <= place and len(call.outputs) == 1 and _is_map(call.outputs[0]):
            found.append(call.outputs[0])
        latest = max(latest, *(uses.get(id(one), len(calls)) for one in call.outputs))
    return reversed(found)


def _is_map(tensor: keras.KerasTensor) -> bool:
    shape = tensor.shape
    return len(shape) in (3, 4) and None not in shape[1:] and math.prod(shape[1:-1]) > 1


def _looks_around(rest: keras.Model) -> bool:
    """Whether more of a map counts than its first positions, where the token lies that stands for the image."""
    random = np.random.default_rng(0)
    first = random.normal(size=(1, *rest.input_shape[1:])).astype("float32")
    other = first.copy()
    other[:, first.shape[1] // 2 :] = random.normal(size=other[:, first.shape[1] // 2 :].shape)
    one, two = (keras.ops.convert_to_numpy(rest(x, training=False)).astype("float64") for x in (first, other))
    return bool(np.abs(one - two).max() > _SEEN * np.abs(one).max())
