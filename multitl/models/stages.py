"""Stages: the layers of a backbone in groups from input to output, to be frozen or trained together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import keras

from multitl.contracts import Stage
from multitl.models.insides import nodes_of

_FEWEST = 4  # stages that a network by its module tree shall have, if the tree allows

_STRIDED = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
)


def stages_by_stride(model: keras.Model) -> tuple[Stage, ...]:
    """Group layers by how much smaller than the image their output is.

    "stage3" holds every leaf layer with weights whose output has a stride of 2**3 against the image: C1 to C5 of
    feature pyramids, conv1 to conv5 of a ResNet. Strides are followed along the graph, so a side branch (shortcut,
    squeeze and excite) belongs to the stage it works in. Each layer with weights occurs exactly once; a stage without
    any is left out.

    model: functional or Sequential, nested Sequential models allowed; a layer that is called twice counts where it is
    first. TypeError for a nested functional model: Keras does not say publicly where its inputs come from.
    """
    layers: dict[int, list[str]] = defaultdict(list)
    for layer, stride in _strides(model, 1)[0]:
        if layer.weights:
            layers[round(math.log2(stride))].append(layer.name)
    return tuple(Stage(f"stage{depth}", tuple(layers[depth])) for depth in sorted(layers))


Strides = list[tuple[keras.layers.Layer, int]]


def _strides(model: keras.Model, stride: int) -> tuple[Strides, int]:
    """Every leaf layer with the stride of its output, and the stride of the model's output.

    stride: of the model's input.
    """
    if isinstance(model, keras.Sequential):
        return _strides_along(model.layers, stride)
    if any(isinstance(part, keras.Model) and not isinstance(part, keras.Sequential) for part in model.layers):
        raise TypeError(f"{model.name} contains a functional model; stages need its layers in one graph")
    found: Strides = []
    reached: dict[int, int] = {}  # by id of the symbolic tensor
    for operation in model.operations:
        arriving = max(
            (reached.get(id(tensor), stride) for tensor in keras.tree.flatten(operation.input)), default=stride
        )
        leaves, leaving = _strides_of(operation, arriving)
        found += leaves
        for node in nodes_of(operation):  # `output` has only the first call of a layer that is used twice
            reached |= {id(tensor): leaving for tensor in node.outputs}
    return found, max(reached[id(tensor)] for tensor in model.outputs)


def _strides_along(layers: Iterable[keras.layers.Layer], stride: int) -> tuple[Strides, int]:
    found: Strides = []
    for layer in layers:
        leaves, stride = _strides_of(layer, stride)
        found += leaves
    return found, stride


def _strides_of(operation: object, stride: int) -> tuple[Strides, int]:
    if isinstance(operation, keras.Model):
        return _strides(operation, stride)
    if isinstance(operation, _STRIDED):
        stride *= max(operation.strides)
    return ([(operation, stride)] if isinstance(operation, keras.layers.Layer) else []), stride


def stages_by_path(paths: Mapping[str, str], attached: Collection[str]) -> tuple[Stage, ...]:
    """Group layers by the original's module tree: layer1 ... layer4, features.0 ..., blocks.0 ...

    paths: layer -> path of its module ("layer1.0.conv1"), in the order in which they are called.  attached: layers that
    open no stage of their own where they stand directly in the tree, such as normalisations: they join the one before.
    The tree is opened at its largest branch until there are four stages.
    """
    opened: set[str] = set()
    while True:
        groups = _grouped(paths, attached, opened)
        branches = [
            key for key, layers in groups.items() if any(paths[layer].startswith(f"{key}.") for layer in layers)
        ]
        if len(groups) >= _FEWEST or not branches:
            return tuple(Stage(key, tuple(layers)) for key, layers in groups.items())
        opened.add(max(branches, key=lambda key: len(groups[key])))


def _grouped(paths: Mapping[str, str], attached: Collection[str], opened: Collection[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    last = ""
    for layer, path in paths.items():
        key = _branch(path, opened)
        if not (layer in attached and key == path and last):
            last = key
        groups.setdefault(last, []).append(layer)
    return groups


def _branch(path: str, opened: Collection[str]) -> str:
    """The shortest beginning of a path that has not been opened: its stage."""
    parts = path.split(".")
    return next((key for key in (".".join(parts[:n]) for n in range(1, len(parts))) if key not in opened), path)
