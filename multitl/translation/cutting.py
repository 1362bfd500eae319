"""Where a classifier ends: the backbone of a whole network, found by what its graph shows.

The classifier is the last thing with weights: going back from the output, the first dense layers or convolutions met.
What lies before them is the backbone, its own hidden layers and final normalisation included, so that with a new last
layer the original's state_dict can be filled completely.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import keras
from keras import layers

from multitl.contracts import Translation
from multitl.errors import TranslationError
from multitl.models.insides import nodes_of

Operation: TypeAlias = keras.Operation


@dataclass(frozen=True, eq=False)
class Cut:
    """`backbone`: preprocessed pixels -> feature map (batch, h, w, channels); (1, 1) where pooling lies inside it.

    `classifier`: names of the layers that were cut off. `feature_map`: the operation of the backbone whose output is
    the last feature map before global pooling; "" if the network has none, like a ViT, which reads a class token.
    """

    backbone: keras.Model
    classifier: tuple[str, ...]
    feature_map: str


def cut_classifier(model: keras.Model) -> Cut:
    """Cut a network (batch, height, width, channels) -> logits before its last weights.

    Where nothing but averaging over space lies between a feature map and the last layer, the backbone ends with the
    map, and a new head pools it. Otherwise it ends with the vector that the last layer got, as a map of 1 x 1. Raises
    TranslationError for a model without a last dense layer or convolution.
    """
    graph = _Graph(model)
    last = list(graph.last_kernels(model.outputs))
    if not last:
        raise TranslationError(
            f"No classifier can be seen in {model.name}.",
            expected="a dense layer or a convolution between the image and the output",
            received=f"{len(model.operations)} operations, none of which is one",
            fix="keep the whole network: --head keep",
        )
    return _cut(model, graph, [graph.before_dropout(operation.input) for operation in last])


def features_as_backbone(model: keras.Model) -> Cut:
    """A network (batch, height, width, channels) -> feature vector as a backbone: nothing with weights is cut off.

    Where the vector is the mean of a feature map over space, the backbone ends with the map, and a new head pools it.
    """
    graph = _Graph(model)
    return _cut(model, graph, [graph.before_dropout(model.outputs[0])])


def classifier_logits(model: keras.Model) -> keras.Model | None:
    """The network up to its logits, without a softmax; None if it does not end with a classifier.

    A classifier is a dense layer or a convolution with nothing but a bias, a reshape or a softmax behind it.
    """
    graph = _Graph(model)
    tensor = logits = model.outputs[0]
    while True:
        operation = graph.producer[id(tensor)]
        if _has_kernel(operation):
            is_linear = getattr(operation, "activation", None) in (None, keras.activations.linear)
            return keras.Model(model.input, logits, name=model.name) if is_linear else None
        kind, inputs = type(operation).__name__, _inputs(operation)
        if kind not in _AFTER_LOGITS:
            return None
        tensor = max(inputs, key=lambda x: x.shape[0] is None)  # a bias that a layer holds is there once
        logits = tensor if kind == "Softmax" else logits


def _cut(model: keras.Model, graph: _Graph, features: list[keras.KerasTensor]) -> Cut:
    """The backbone that ends with the features, or with the map whose mean they are."""
    pooled = graph.pooled_map(features[0]) if len(features) == 1 else None
    output = _as_map(features) if pooled is None else pooled
    source = graph.last_map(features[0]) if pooled is None else pooled
    backbone = keras.Model(model.input, output, name=model.name)
    kept = {layer.name for layer in backbone.layers}
    return Cut(
        backbone=backbone,
        classifier=tuple(layer.name for layer in model.layers if layer.weights and layer.name not in kept),
        feature_map="" if source is None else graph.producer[id(source)].name,
    )


def classifier_weights(translation: Translation) -> Collection[str]:
    """Names of the original's tensors whose place a new head takes."""
    layers = set(cut_classifier(translation.model).classifier)
    return {weight.name for weight in translation.weights if weight.layer in layers}


def _as_map(features: list[keras.KerasTensor]) -> keras.KerasTensor:
    """Vectors (batch, c) or tokens (batch, n, c) as one map (batch, 1, n, c); two classifiers' inputs side by side.

    A class token and the tokens that it was made from (VOLO has a classifier for each) become two vectors.
    """
    if len({tuple(feature.shape[1:-1]) for feature in features}) > 1:
        features = [_mean(feature) for feature in features]
    tensor = features[0] if len(features) == 1 else layers.Concatenate(name="features_of_heads")(features)
    if len(tensor.shape) == 4:
        return tensor
    positions = tensor.shape[1] if len(tensor.shape) == 3 else 1
    return layers.Reshape((1, positions, tensor.shape[-1]), name="features_as_map")(tensor)


def _mean(feature: keras.KerasTensor) -> keras.KerasTensor:
    """Over all positions: (batch, ..., c) -> (batch, c)."""
    positions = tuple(range(1, len(feature.shape) - 1))
    return keras.ops.mean(feature, axis=positions) if positions else feature


class _Graph:
    """A functional model's operations, to be followed from outputs to inputs."""

    def __init__(self, model: keras.Model) -> None:
        self.producer: dict[int, Operation] = {}
        for operation in model.operations:
            for node in nodes_of(operation):  # `output` has only the first call of a layer that is used twice
                self.producer |= {id(tensor): operation for tensor in node.outputs}

    def last_kernels(self, tensors: list[keras.KerasTensor]) -> Iterator[Operation]:
        """The first operations with a kernel met from `tensors` backwards, each once."""
        waiting, seen = list(tensors), set()
        while waiting:
            operation = self.producer[id(waiting.pop())]
            if operation.name in seen:
                continue
            seen.add(operation.name)
            if _has_kernel(operation):
                yield operation
            else:
                waiting += _inputs(operation)

    def before_dropout(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        """What dropout layers were given: a new head brings its own."""
        while isinstance(self.producer[id(tensor)], layers.Dropout):
            (tensor,) = _inputs(self.producer[id(tensor)])
        return tensor

    def pooled_map(self, tensor: keras.KerasTensor) -> keras.KerasTensor | None:
        """The feature map whose mean over space `tensor` is, reshaped at most; itself if it is a map; None
        otherwise.
        """
        if len(tensor.shape) == 4:
            return tensor if 1 not in tensor.shape[1:3] else self.pooled_map_of(tensor)
        return self.pooled_map_of(tensor)

    def pooled_map_of(self, tensor: keras.KerasTensor) -> keras.KerasTensor | None:
        channels = tensor.shape[-1]
        while True:
            operation = self.producer[id(tensor)]
            if pools_globally(operation):
                (source,) = _inputs(operation)
                return source if source.shape[-1] == channels else None
            if not isinstance(operation, layers.Dropout) and type(operation).__name__ not in _RESHAPES:
                return None
            (tensor,) = _inputs(operation)

    def last_map(self, tensor: keras.KerasTensor) -> keras.KerasTensor | None:
        """What the last global pooling or flattening before `tensor` was given, None if there is none on the way.

        Squeeze-and-excitation pools too, but its result multiplies the map that it came from.
        """
        while len(inputs := _inputs(self.producer[id(tensor)])) == 1:
            source, operation = inputs[0], self.producer[id(tensor)]
            if pools_globally(operation):
                return source
            if len(tensor.shape) < len(source.shape) == 4 and tuple(source.shape[1:3]) != (1, 1):
                before = self.producer[id(source)]
                return _inputs(before)[0] if type(before).__name__ == "Transpose" else source
            tensor = source
        return None


_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Transpose", "ExpandDims")
_AFTER_LOGITS = ("Softmax", "Add", "Identity", *_RESHAPES)


def pools_globally(operation: Operation) -> bool:
    """Whether an operation takes the mean over all positions of a channels-last map."""
    if isinstance(operation, layers.GlobalAveragePooling2D):
        return True
    inputs = _inputs(operation)
    if type(operation).__name__ != "Mean" or len(inputs[0].shape) != 4:
        return False
    axes = {axis % 4 for axis in operation.axis} if isinstance(operation.axis, tuple | list) else set()
    return axes == {1, 2}


def _inputs(operation: Operation) -> list[keras.KerasTensor]:
    return [tensor for node in nodes_of(operation)[:1] for tensor in node.input_tensors]


def _has_kernel(operation: Operation) -> bool:
    """Whether it is a dense layer or convolution that sees the image; a parameter held by a layer does not."""
    kernels = isinstance(operation, layers.Dense | layers.EinsumDense | layers.Conv1D | layers.Conv2D)
    return kernels and not (isinstance(operation, layers.EinsumDense) and operation.equation.startswith("ab,b"))
