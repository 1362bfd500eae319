"""SavedModels of TensorFlow 2: which of their objects classifies images, and what its variables are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from multitl.translation.values import Stored
from multitl_tensorflow.damage import refuse
from multitl_tensorflow.signatures import Entry, Module, Spec, choose_output, leaves, preference, refuse_inputs
from multitl_tensorflow.stored_values import Checkpoint, constant

CALLABLES = ("__call__", "serve")  # of tf.Module and Keras 2, and of Keras 3


class Objects:
    """A SavedModel of TensorFlow 2: a graph of objects, some of which are functions and variables."""

    def __init__(self, meta: Any, checkpoint: Checkpoint, what: str) -> None:
        self.meta, self.checkpoint, self.what = meta, checkpoint, what
        self.objects = meta.object_graph_def.nodes
        self.functions = meta.object_graph_def.concrete_functions
        self.inputs = {one.signature.name: len(one.signature.input_arg) for one in meta.graph_def.library.function}
        self.constants = {node.name: node for node in meta.graph_def.node if node.op == "Const"}
        self.keys = dict(self._checkpoint_keys())
        self.names: dict[int, str] = {}

    def module(self) -> Module:
        """The function from images, with what it holds on to. Raises WeightsError, TranslationError."""
        name, evaluating, training = self._choose()
        self.names = self._names([one for one in (evaluating, training) if one])
        self._insist_on_values(evaluating)
        variables = {self.names[number]: self._variable(number) for number in self.names}
        entry = self._entry(evaluating, variables)
        trained = (self.meta.graph_def, self._entry(training, variables)) if training else None
        return Module(self.what, self.meta.graph_def, entry, variables, name, trained)

    def _children(self, number: int) -> dict[str, int]:
        return {child.local_name: child.node_id for child in self.objects[number].children}

    def _choose(self) -> tuple[str, str, str]:
        """Name of the callable or signature, and of its functions for evaluation and training ("" if it has none)."""
        root = self._children(0)
        tried: list[Spec] = []
        for name in (name for name in CALLABLES if name in root):
            found = list(self.objects[root[name]].function.concrete_functions)
            evaluating = [one for one in found if self._takes_images(one) and not self._trains(one)]
            if evaluating:
                training = [one for one in found if self._takes_images(one) and self._trains(one)]
                return name, min(evaluating, key=self._distance), min(training, key=self._distance, default="")
            tried += [spec for one in found for spec in self._specs(one)]
        signatures = self._children(root["signatures"]) if "signatures" in root else {}
        for name in sorted(signatures, key=preference):
            function = self.objects[signatures[name]].bare_concrete_function.concrete_function_name
            if self._takes_images(function):
                return name, function, ""
            tried += self._specs(function)
        raise refuse_inputs(self.what, tried)

    def _leaves(self, function: str) -> list[Any]:
        if function not in self.functions:
            raise refuse(self.what, f"a function that is not there: {function}")
        return list(leaves(self.functions[function].canonicalized_input_signature, ""))

    def _specs(self, function: str) -> list[Spec]:
        return [leaf for leaf in self._leaves(function) if isinstance(leaf, Spec)]

    def _takes_images(self, function: str) -> bool:
        """One batch of images, and otherwise numbers only."""
        specs = self._specs(function)
        images = [spec for spec in specs if spec.may_be_images]
        return len(images) == 1 and all(spec.shape == () for spec in specs if spec is not images[0])

    def _trains(self, function: str) -> bool:
        return any(leaf is True for leaf in self._leaves(function))

    def _distance(self, function: str) -> int:
        """Fewer arguments besides the images are better, an explicit False is best."""
        return len(self._specs(function)) - any(leaf is False for leaf in self._leaves(function))

    def _entry(self, function: str, variables: Mapping[str, Stored]) -> Entry:
        specs = self._specs(function)
        bound = self.functions[function].bound_inputs
        if self.inputs.get(function) != len(specs) + len(bound):
            raise refuse(self.what, f"a function whose inputs do not add up: {function}")
        outputs = list(leaves(self.functions[function].output_signature, ""))
        return Entry(
            function=function,
            arguments=(*specs, *(self._bound(number, variables) for number in bound)),
            images=next(spec for spec in specs if spec.may_be_images),
            output=choose_output(self.what, [leaf for leaf in outputs if isinstance(leaf, Spec)]),
        )

    def _bound(self, number: int, variables: Mapping[str, Stored]) -> np.ndarray | Stored | str:
        """What a function holds on to: a variable, a constant of the main graph, or something without a value."""
        if not 0 <= number < len(self.objects):
            raise refuse(self.what, f"an object that is not there: {number}")
        kind = self.objects[number].WhichOneof("kind")
        if kind == "variable":
            return variables[self.names[number]]
        if kind == "constant":
            node = self.constants.get(self.objects[number].constant.operation)
            if node is not None:
                return constant(node, self.what)
        return str(kind or "object")

    def _names(self, functions: Sequence[str]) -> dict[int, str]:
        """Variable object -> a name of its own: the variable's, or where that names several, its place among objects.

        Of the functions' variables and those that the module lists; exports may hold copies besides.
        """
        root = self._children(0)
        numbers = [number for one in functions for number in self.functions[one].bound_inputs]
        numbers += self._children(root["variables"]).values() if "variables" in root else []
        valid = [number for number in dict.fromkeys(numbers) if 0 <= number < len(self.objects)]
        found = {number: self.objects[number].variable for number in valid if self.objects[number].HasField("variable")}
        given = [variable.name for variable in found.values()]
        places = {number: self.keys.get(number, str(number)).partition("/.ATTRIBUTES")[0] for number in found}
        return {
            number: variable.name if variable.name and given.count(variable.name) == 1 else places[number]
            for number, variable in found.items()
        }

    def _insist_on_values(self, function: str) -> None:
        """Variables that only training or nothing reads may lack one."""
        bound = [number for number in self.functions[function].bound_inputs if number in self.names]
        missing = [self.names[number] for number in bound if self._key(number) not in self.checkpoint]
        if missing:
            raise refuse(self.what, f"{len(missing)} variables without values: {', '.join(missing[:4])}")

    def _key(self, number: int) -> str:
        """Of a variable's value in the checkpoint."""
        return self.keys.get(number, self.objects[number].variable.name)

    def _variable(self, number: int) -> Stored:
        key = self._key(number)
        if key not in self.checkpoint:
            return Stored(np.zeros((0,), "float32"), self.names[number])
        return Stored(self.checkpoint.read(key), self.names[number], self._is_trainable(number))

    def _is_trainable(self, number: int) -> bool:
        """As the module's own list says, or the variable itself."""
        root = self._children(0)
        if "trainable_variables" in root:
            return number in self._children(root["trainable_variables"]).values()
        return bool(self.objects[number].variable.trainable)

    def _checkpoint_keys(self) -> Iterator[tuple[int, str]]:
        """Variables' keys: the checkpoint has a graph of objects of its own, with the same names on the way."""
        if "_CHECKPOINTABLE_OBJECT_GRAPH" not in self.checkpoint:
            return
        saved = TrackableObjectGraph.FromString(self.checkpoint.read("_CHECKPOINTABLE_OBJECT_GRAPH"))
        waiting, seen = [(0, 0)], set()
        while waiting:
            number, place = waiting.pop(0)
            if number in seen or place >= len(saved.nodes) or number >= len(self.objects):
                continue
            seen.add(number)
            for one in saved.nodes[place].attributes:
                if one.name == "VARIABLE_VALUE":
                    yield number, one.checkpoint_key
            there = {child.local_name: child.node_id for child in saved.nodes[place].children}
            waiting += [(child, there[name]) for name, child in self._children(number).items() if name in there]
