"""The weights of a saved model, from its own file or another of the same model: every one of them, or an error.

A `.h5` file names layers, and holds a nested model's weights in one list, what could be trained first. A `.keras` file
counts layers by class: the second Conv2D of a model lies in layers/conv2d_1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from multitl.errors import BELOW, WeightsError, shorten
from multitl.files.hdf5_files import StoredLayer, StoredWeight, group_name, open_weight_file, sides
from multitl.sources.saved_graphs import SavedGraph, SavedLayer
from multitl.sources.saved_networks import Network, Place

_ATTENTION = ("query_dense", "key_dense", "value_dense", "output_dense")  # the parts of MultiHeadAttention, in order
_SHOWN = 8


@dataclass(frozen=True)
class _Pair:
    """A variable and what the file holds for it, None for nothing."""

    layer: str
    variable: keras.Variable
    stored: StoredWeight | None

    @property
    def fits(self) -> bool:
        return self.stored is not None and self.stored.shape == tuple(self.variable.shape)

    def __str__(self) -> str:
        found = "nothing" if self.stored is None else sides(self.stored.shape)
        return f"{self.layer}/{self.variable.name}: {found} in the file, {sides(self.variable.shape)} in the model"


def fill(network: Network, graph: SavedGraph, path: Path) -> None:
    """Give a network the weights in a file. Raises WeightsError if one is missing, damaged or of another shape."""
    with open_weight_file(path) as file:
        found = _legacy(graph, network, file.layers) if file.is_legacy else _by_class(graph, network, file.layers)
        pairs = [pair for place, layer in network.layers.items() for pair in _pairs(place, layer, found.get(place, ()))]
        misfits = [pair for pair in pairs if not pair.fits]
        if misfits:
            raise _does_not_fit(path, misfits, len(pairs))
        for pair in pairs:
            if pair.stored is not None:
                pair.variable.assign(file.read(pair.stored))
    for layer in network.layers.values():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with copies of its weights


Found = Mapping[Place, Sequence[StoredWeight]]


def _pairs(place: Place, layer: keras.layers.Layer, stored: Sequence[StoredWeight]) -> list[_Pair]:
    variables = _variables(layer)
    stored = stored if len(stored) <= len(variables) else ()  # more than the layer has: it is another layer
    padded = [*stored, *[None] * len(variables)]
    return [_Pair("/".join(place), variable, one) for variable, one in zip(variables, padded, strict=False)]


def _variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """In the order of every format: what can be trained first."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _legacy(graph: SavedGraph, network: Network, stored: Sequence[StoredLayer]) -> Found:
    by_name = {one.name: one.weights for one in stored}
    found: dict[Place, Sequence[StoredWeight]] = {}
    for layer in graph.layers:
        weights = by_name.get(layer.name, ())
        if layer.graph:
            found |= _opened(dict(_weighted(layer.graph, (layer.name,), network)), weights)
        else:
            found[(layer.name,)] = weights
    return found


def _opened(layers: Mapping[Place, keras.layers.Layer], weights: Sequence[StoredWeight]) -> Found:
    """A nested model's list taken apart: by the layers' names in the weights' names, else by the order of the list."""
    by_layer: dict[str, list[StoredWeight]] = defaultdict(list)
    for weight in weights:
        by_layer[_owner(weight, {place[-1] for place in layers})].append(weight)
    if len({place[-1] for place in layers}) == len(layers) and "" not in by_layer:
        return {place: by_layer[place[-1]] for place in layers}
    return _in_order(layers, weights)


def _owner(weight: StoredWeight, names: set[str]) -> str:
    """The layer that a weight's name names: "block/conv1/kernel:0" -> "conv1"; "" for none."""
    parts = weight.name.split("/")[:-1]
    paths = ["/".join(parts[first:last]) for last in range(len(parts), 0, -1) for first in range(last)]
    return next((path for path in paths if path in names), "")


def _in_order(layers: Mapping[Place, keras.layers.Layer], weights: Sequence[StoredWeight]) -> Found:
    """As Keras lists a nested model's weights: layer after layer, or all that train and then all statistics.

    Shapes do not tell which, names of variables do ("gamma:0").
    """
    trained = [(place, one) for place, layer in layers.items() for one in layer.trainable_weights]
    statistics = [(place, one) for place, layer in layers.items() for one in layer.non_trainable_weights]
    frozen = [(place, one) for place, layer in layers.items() for one in _variables(layer)]
    for order in (trained + statistics, frozen):
        named = [(variable.name, tuple(variable.shape)) for _, variable in order]
        if len(named) == len(weights) and all(
            weight.name.rpartition("/")[2].partition(":")[0].endswith(name) and weight.shape == shape
            for weight, (name, shape) in zip(weights, named, strict=True)
        ):
            found: dict[Place, list[StoredWeight]] = defaultdict(list)
            for weight, (place, _) in zip(weights, order, strict=True):
                found[place].append(weight)
            return found
    return {}


def _weighted(graph: SavedGraph, place: Place, network: Network) -> Iterator[tuple[Place, keras.layers.Layer]]:
    """The layers with weights in a model, nested ones included, in order."""
    for layer in graph.layers:
        here = (*place, layer.name)
        if layer.graph:
            yield from _weighted(layer.graph, here, network)
        elif here in network.layers and network.layers[here].weights:
            yield here, network.layers[here]


def _by_class(graph: SavedGraph, network: Network, stored: Sequence[StoredLayer]) -> Found:
    paths = {one.path: one.weights for one in stored}
    return dict(_below(graph, (), "layers/", network, paths))


def _below(
    graph: SavedGraph, place: Place, root: str, network: Network, paths: Mapping[str, Sequence[StoredWeight]]
) -> Iterator[tuple[Place, Sequence[StoredWeight]]]:
    """The n-th layer of a class that has weights belongs to the n-th group of that class that holds any."""
    waiting = {kind: iter(groups) for kind, groups in _groups(root, paths).items()}
    for layer in graph.layers:
        here = (*place, layer.name)
        weighted = any(_weighted(layer.graph, here, network)) if layer.graph else _has_weights(here, network)
        group = next(waiting.get(_group_kind(layer), iter(())), "") if weighted else ""
        if layer.graph:
            yield from _below(layer.graph, here, f"{group}/layers/", network, paths)
        elif group:
            yield here, _within(group, paths)


def _has_weights(place: Place, network: Network) -> bool:
    return place in network.layers and bool(network.layers[place].weights)


def _groups(root: str, paths: Mapping[str, Sequence[StoredWeight]]) -> dict[str, list[str]]:
    """Class in snake case -> its groups below `root`, in the order in which they are counted."""
    members = {path.removeprefix(root).partition("/")[0] for path in paths if path.startswith(root)}
    groups: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for member in members:
        kind, _, number = member.rpartition("_")
        counted = (kind, int(number)) if kind and number.isdecimal() else (member, 0)
        groups[counted[0]].append((counted[1], root + member))
    return {kind: [group for _, group in sorted(numbered)] for kind, numbered in groups.items()}


def _within(group: str, paths: Mapping[str, Sequence[StoredWeight]]) -> Sequence[StoredWeight]:
    """The arrays of one layer; those of attention lie in its parts."""
    if group in paths:
        return paths[group]
    parts = [paths.get(f"{group}/{part}") or paths.get(f"{group}/_{part}") or () for part in _ATTENTION]
    return [weight for part in parts for weight in part]


def _group_kind(layer: SavedLayer) -> str:
    return group_name("Functional" if layer.graph and layer.kind != "Sequential" else layer.kind)


def _does_not_fit(path: Path, misfits: Sequence[_Pair], count: int) -> WeightsError:
    return WeightsError(
        f"The weights in {path} do not fit the network: {len(misfits)} of {count} arrays differ.",
        expected="an array of the right shape for every weight",
        received=shorten(map(str, misfits), _SHOWN, between=BELOW),
        fix="choose a file of weights of this very model, or leave --weights out for the file's own",
    )
