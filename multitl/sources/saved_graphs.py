"""The graph that a saved Keras model describes: layers and their calls, in one form for all versions of Keras.

Keras 2, tf_keras and Keras 3 write down differently which layer is called on what, and a Sequential model does not
write it down at all. Here every model is a `SavedGraph`, a nested model a layer with a graph of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from multitl.files.keras_files import check_array

_CONSTANT = "_CONSTANT_VALUE"  # how tf_keras writes a first argument that is no tensor
_GRAPHS = ("Functional", "Model")  # Keras before 2.3 wrote "Model"
MODELS = (*_GRAPHS, "Sequential")
_DEEPEST = 32  # models in models


class Malformed(ValueError):  # noqa: N818  (it becomes the error that a user meets)
    """A description that no Keras wrote."""


@dataclass(frozen=True)
class Reference:
    """The output number `tensor` of the call number `call` of a layer."""

    layer: str
    call: int
    tensor: int


@dataclass(frozen=True)
class SavedCall:
    """The arguments of one call, `Reference` standing for tensors."""

    arguments: tuple[Any, ...]
    options: Mapping[str, Any]

    def references(self) -> Iterator[Reference]:
        yield from _references([*self.arguments, *self.options.values()])


@dataclass(frozen=True)
class SavedLayer:
    """kind: its class ("Conv2D").  module: where Keras 3 and newer tf_keras say it lies.  graph: of a nested model."""

    name: str
    kind: str
    module: str
    config: Mapping[str, Any]
    calls: tuple[SavedCall, ...] = ()
    graph: SavedGraph | None = None


@dataclass(frozen=True)
class SavedGraph:
    """A model. Its layers include its inputs, of kind InputLayer."""

    name: str
    layers: tuple[SavedLayer, ...]
    inputs: tuple[Reference, ...]
    outputs: tuple[Reference, ...]

    def everything(self) -> Iterator[SavedLayer]:
        """Every layer, and what lies in those that are models."""
        for layer in self.layers:
            yield layer
            yield from layer.graph.everything() if layer.graph else ()


def read_graph(config: Mapping[str, Any], depth: int = 0) -> SavedGraph:
    """config: {"class_name": "Functional", "config": {...}}. Raises Malformed."""
    if depth > _DEEPEST:
        raise Malformed(f"models nested more than {_DEEPEST} deep")
    try:
        inner = config["config"]
        if config["class_name"] == "Sequential":
            return _sequential(inner, depth)
        return _functional(inner, depth)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise error if isinstance(error, Malformed) else Malformed(f"{type(error).__name__}: {error}") from error


def _sequential(config: Mapping[str, Any] | list, depth: int) -> SavedGraph:
    """Keras before 2.2.3 wrote the bare list of layers."""
    settings = {"layers": config} if isinstance(config, list) else config
    layers = [_layer(entry, depth) for entry in settings["layers"]]
    if not layers:
        raise Malformed("a Sequential model without layers")
    if layers[0].kind != "InputLayer":
        shape = layers[0].config.get("batch_input_shape") or settings.get("build_input_shape")
        name = f"{layers[0].name}_input"
        layers.insert(0, SavedLayer(name, "InputLayer", "", {"name": name, "batch_input_shape": shape}))
    chain = [layers[0]]
    for layer in layers[1:]:
        chain.append(replace(layer, calls=(SavedCall((Reference(chain[-1].name, 0, 0),), {}),)))
    first, last = Reference(chain[0].name, 0, 0), Reference(chain[-1].name, 0, 0)
    return SavedGraph(str(settings.get("name", "sequential")), tuple(chain), (first,), (last,))


def _functional(config: Mapping[str, Any], depth: int) -> SavedGraph:
    layers = []
    for entry in config["layers"]:
        layer = _layer(entry, depth)
        layers.append(replace(layer, calls=tuple(_call(node) for node in entry.get("inbound_nodes", ()))))
    inputs, outputs = (_places(config[key]) for key in ("input_layers", "output_layers"))
    graph = SavedGraph(str(config.get("name", "model")), tuple(layers), inputs, outputs)
    return _with_calls_from_zero(graph)


def _layer(entry: Mapping[str, Any], depth: int) -> SavedLayer:
    config, kind = entry["config"], entry["class_name"]
    if not isinstance(kind, str):
        raise Malformed(f"a class called {kind!r}"[:80])
    plain = config if isinstance(config, dict) else {}
    name = str(entry.get("name") or plain.get("name") or kind.lower())
    graph = read_graph(entry, depth + 1) if kind in MODELS else None
    own = ">" in str(entry.get("registered_name") or "")  # "Package>Name": a class that its author registered
    module = str(entry.get("registered_name") if own else entry.get("module") or "")
    return SavedLayer(name, kind, module, plain, graph=graph)


def _with_calls_from_zero(graph: SavedGraph) -> SavedGraph:
    """Nested models count their calls from one: the call that made them comes first, and is not written down."""
    used = [reference for layer in graph.layers for call in layer.calls for reference in call.references()]
    counts = {layer.name: max(1, len(layer.calls)) for layer in graph.layers}
    extra: dict[str, int] = {}
    for reference in [*used, *graph.inputs, *graph.outputs]:
        if reference.layer not in counts:
            raise Malformed(f"a call on {reference.layer!r}, which is not there")
        beyond = reference.call + 1 - counts[reference.layer]
        extra[reference.layer] = max(extra.get(reference.layer, 0), beyond)

    def moved(value: Any) -> Any:
        if isinstance(value, Reference):
            return replace(value, call=value.call - extra[value.layer])
        return _mapped(value, moved)

    layers = tuple(
        replace(layer, calls=tuple(SavedCall(moved(call.arguments), moved(call.options)) for call in layer.calls))
        for layer in graph.layers
    )
    return replace(graph, layers=layers, inputs=moved(graph.inputs), outputs=moved(graph.outputs))


def _places(value: Any) -> tuple[Reference, ...]:
    """input_layers or output_layers: [["a", 0, 0], ...], or just ["a", 0, 0] in newer files."""
    if isinstance(value, dict):
        raise Malformed("inputs or outputs by name")
    return (Reference(*value),) if value and isinstance(value[0], str) else tuple(Reference(*one) for one in value)


def _call(node: Any) -> SavedCall:
    if isinstance(node, dict):  # Keras 3
        return SavedCall(tuple(_value(one) for one in node["args"]), _value(node["kwargs"]))
    if isinstance(node[0], str):  # an operation of TensorFlow on one tensor
        return SavedCall((_first(node),), _options(node))
    arguments = [_first(entry) for entry in node]
    return SavedCall((arguments if len(arguments) > 1 else arguments[0],), _options(node[0]))


def _first(entry: list) -> Any:
    """["conv1", 0, 0, {...}] -> the tensor that it names."""
    if not isinstance(entry[0], str):
        raise Malformed("inputs in inputs")
    return _value(entry[2]) if entry[0] == _CONSTANT else Reference(*entry[:3])


def _options(entry: list) -> Mapping[str, Any]:
    return _value(entry[3]) if len(entry) > 3 else {}


def _value(value: Any) -> Any:
    """One argument, plain or a tensor; Keras 2 writes a tensor as ["conv1", 0, 0]."""
    if isinstance(value, list):
        if len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int):
            return Reference(*value)
        return [_value(one) for one in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("class_name")
    if kind == "__keras_tensor__":
        return Reference(*value["config"]["keras_history"])
    if kind == "__ellipsis__":
        return Ellipsis
    if kind == "__slice__" or (kind is None and value.keys() == {"start", "stop", "step"}):
        parts = value if kind is None else value["config"]
        return slice(parts["start"], parts["stop"], parts["step"])
    return {key: _value(one) for key, one in value.items()} if kind is None else plain_value(value)


def plain_value(value: Any) -> Any:
    """A value of a configuration. Raises Malformed for objects other than tuples and arrays of numbers."""
    if isinstance(value, list):
        return [plain_value(one) for one in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "__tuple__":
        return tuple(plain_value(one) for one in value["items"])
    if value.get("class_name") in ("__numpy__", "__tensor__"):
        try:
            check_array(value.get("config"))
            return np.array(value["config"]["value"], value["config"]["dtype"]).tolist()
        except (ValueError, TypeError, OverflowError) as error:
            raise Malformed(str(error)) from error
    raise Malformed(f"an object of class {value.get('class_name')!r} among the arguments")


def _references(value: Any) -> Iterator[Reference]:
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _references(one)


def _mapped(value: Any, function: Any) -> Any:
    if isinstance(value, dict):
        return {key: function(one) for key, one in value.items()}
    return type(value)(function(one) for one in value) if isinstance(value, list | tuple) else value


def with_tensors(value: Any, tensors: Mapping[Reference, Any]) -> Any:
    """An argument with its tensors in place of their references."""
    if isinstance(value, Reference):
        return tensors[value]
    return _mapped(value, lambda one: with_tensors(one, tensors))
