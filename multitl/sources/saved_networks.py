"""A saved graph as one flat functional model of Keras 3, nested models opened, and its weights from the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import keras

from multitl.errors import BELOW, TranslationError
from multitl.models.initialisers import bounded_weights
from multitl.models.insides import nodes_of, producer_of
from multitl.models.model_files import check_sizes
from multitl.sources.saved_graphs import Malformed, Reference, SavedGraph, SavedLayer, with_tensors
from multitl.sources.saved_layers import Chain, build_layer, call_options, problem
from multitl.translation.building import layer_name

_MOST_NUMBERS = 16  # a byte of the file, should the arrays in it be compressed
Place = tuple[str, ...]  # names of the models around a layer, and its own


@dataclass(frozen=True, eq=False)
class Network:
    """`layers`: by place in the file, each layer of Keras that holds what the file's layer holds."""

    model: keras.Model
    layers: Mapping[Place, keras.layers.Layer]


def refuse_unknown(graph: SavedGraph, path: str) -> None:
    """Raises TranslationError with everything in a graph that cannot be taken."""
    found = [(problem(layer), layer.name) for layer in graph.everything()]
    missing = {what: [name for one, name in found if one == what] for what, _ in found if what}
    if not missing:
        return
    listed = [f"{what}: {', '.join(names[:3])}{', ...' * (len(names) > 3)}" for what, names in missing.items()]
    raise TranslationError(
        f"{path} holds {len(missing)} kinds of layers that are not taken from a file.",
        expected="stock layers of Keras, and the usual functions of TensorFlow between them",
        received=BELOW.join(listed),
        fix=_advice(missing),
        missing=tuple(missing),
    )


def _advice(missing: Mapping[str, Sequence[str]]) -> str:
    if "Lambda" in missing:
        return (
            "a Lambda layer is code, and no code is run from a file: where the file is your own, build the same model "
            "with stock layers (Rescaling, Reshape, ...) in place of the Lambda, new.set_weights(old.get_weights()), "
            "and save that; or export a SavedModel, which tfhub/PATH reads"
        )
    return (
        "build the same model with stock layers in their place, new.set_weights(old.get_weights()), and save that; "
        "or export a SavedModel, which tfhub/PATH reads"
    )


def build_network(graph: SavedGraph, height: int, width: int, is_keras3: bool, file_size: int) -> Network:
    """(batch, height, width, 3) float32 -> what the saved model gives. Its weights are still to come.

    file_size: in bytes; a network that claims many more weights than that is not built. Raises Malformed for such a
    claim, for outputs that would fill the memory, for arguments that Keras does not take, and for shapes that do not
    fit each other.
    """
    pixels = keras.Input((height, width, 3), name="image")
    construction = _Construction(graph, is_keras3)
    try:
        with bounded_weights(_MOST_NUMBERS * file_size):
            (output,) = construction.outputs(graph, [pixels], ())
        _rename_operations(output)
        model = keras.Model(pixels, output, name=layer_name(graph.name) or "network")
        check_sizes(model)
    except Malformed:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError) as error:
        raise Malformed(str(error).partition("\n")[0]) from error
    return Network(model, construction.layers)


@dataclass(eq=False)
class _Construction:
    """The layers made so far: each once, however often it is called."""

    graph: SavedGraph
    is_keras3: bool
    layers: dict[Place, keras.layers.Layer] = field(default_factory=dict)
    chains: dict[Place, Chain] = field(default_factory=dict)
    taken: set[str] = field(default_factory=lambda: {"image"})

    def __post_init__(self) -> None:
        self.counts = Counter(layer.name for layer in self.graph.everything() if not layer.graph)

    def outputs(self, graph: SavedGraph, inputs: Sequence[keras.KerasTensor], place: Place) -> list[keras.KerasTensor]:
        """Call a model: every call whose arguments are there, until all are done."""
        known = dict(zip(graph.inputs, inputs, strict=True))
        waiting = [(layer, number) for layer in graph.layers for number in range(len(layer.calls))]
        while waiting:
            later = []
            for layer, number in waiting:
                if all(reference in known for reference in layer.calls[number].references()):
                    made = self._call(layer, number, known, place)
                    known |= {Reference(layer.name, number, index): tensor for index, tensor in enumerate(made)}
                else:
                    later.append((layer, number))
            if len(later) == len(waiting):
                raise Malformed(f"calls that wait for each other: {later[0][0].name}")
            waiting = later
        return [known[reference] for reference in graph.outputs]

    def _call(
        self, layer: SavedLayer, number: int, known: Mapping[Reference, keras.KerasTensor], place: Place
    ) -> list[keras.KerasTensor]:
        call, here = layer.calls[number], (*place, layer.name)
        arguments = with_tensors(call.arguments, known)
        if layer.graph:
            given = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
            return self.outputs(layer.graph, given, here)
        options = call_options(layer, with_tensors(call.options, known))
        first, *rest = self._chain(layer, here)
        result = first(*arguments, **options)
        for step in rest:
            result = step(result)
        return list(result) if isinstance(result, list | tuple) else [result]

    def _chain(self, layer: SavedLayer, place: Place) -> Chain:
        if place not in self.chains:
            name = layer_name(layer.name if self.counts[layer.name] == 1 else "-".join(place))
            while name in self.taken:
                name += "-"
            chain = self.chains[place] = build_layer(layer, name, self.is_keras3)
            self.taken |= {step.name for step in chain if isinstance(step, keras.layers.Layer)}
            if isinstance(chain[0], keras.layers.Layer):
                self.layers[place] = chain[0]
        return self.chains[place]


def _rename_operations(output: keras.KerasTensor) -> None:
    """Name operations "add-1", going back from the output. Keras calls them "add_1", as files call their layers, and
    counts on from what this process built before.
    """
    waiting: list[keras.KerasTensor] = [output]
    seen: set[int] = set()
    count: Counter[str] = Counter()
    while waiting:
        operation = producer_of(waiting.pop())
        if id(operation) in seen:
            continue
        seen.add(id(operation))
        waiting += [tensor for node in nodes_of(operation) for tensor in node.input_tensors]
        if not isinstance(operation, keras.layers.Layer):
            kind = type(operation).__name__.lower()
            count[kind] += 1
            operation.name = f"{kind}-{count[kind]}"
