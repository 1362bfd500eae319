"""A SavedModel's function as one flat graph: calls inlined, variables found, branches on known conditions taken.

Only what the output depends on remains. Nothing is executed; a node's name is the original's, with the calls that lead
to it in front, as TensorFlow itself names inlined nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from multitl.translation.values import Stored
from multitl_tensorflow.damage import refuse
from multitl_tensorflow.operations import attribute, op_definition
from multitl_tensorflow.signatures import Entry, Module, Spec
from multitl_tensorflow.stored_values import constant

PIXELS, STORED, OTHER = "multitl.Pixels", "multitl.Stored", "multitl.Other"  # leaves, besides the original's ops
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
BRANCHES = ("If", "StatelessIf")
SWITCHES, MERGES = ("Switch", "RefSwitch"), ("Merge", "RefMerge")
HANDLES = ("VarHandleOp", "VariableV2", "Variable")
READS = ("ReadVariableOp", "Identity", "RefIdentity")
MOST_NODES = 200_000  # small files can call functions that call functions, and so on
MOST_CALLS = 64  # inside each other
MOST_BYTES = 2**32  # of constants


class Ref(NamedTuple):
    """One output of a node."""

    node: str
    output: int = 0


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. proto: the original's NodeDef, for its attributes."""

    name: str
    op: str
    inputs: tuple[Ref, ...] = ()
    proto: Any = None


@dataclass(frozen=True, eq=False)
class Graph:
    """`nodes` in the order of computation, leaves included; `stored`: the values of those leaves that have one."""

    what: str
    nodes: Mapping[str, Node]
    stored: Mapping[str, Stored]
    output: Ref
    images: Spec
    refused: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def pixels(self) -> str:
        return next((name for name, node in self.nodes.items() if node.op == PIXELS), "")


def flatten(module: Module) -> Graph:
    """The module's function in evaluation. Raises WeightsError for a graph that is endless or damaged."""
    flattener = _Flattener(module, module.graph)
    output = flattener.run(module.entry)
    return flattener.graph(output, module.entry)


def flatten_training(module: Module) -> tuple[Mapping[str, Node], Mapping[str, Stored]]:
    """Every node of the function as it trains, side effects included, and its values; empty if the file has none."""
    if module.training is None:
        return {}, {}
    graph, entry = module.training
    flattener = _Flattener(module, graph, everything=True)
    flattener.run(entry)
    return flattener.nodes, flattener.stored


class _Flattener:
    def __init__(self, module: Module, graph: Any, everything: bool = False) -> None:
        """everything: follow side effects too."""
        self.module, self.main, self.everything = module, graph, everything
        self.library = {one.signature.name: one for one in graph.library.function}
        self.nodes: dict[str, Node] = {}
        self.stored: dict[str, Stored] = {}
        self.refused: dict[str, list[str]] = {}
        self.depth = self.calls = self.bytes = 0

    def run(self, entry: Entry) -> Ref | None:
        if entry.function:
            arguments = [self._argument(one, entry) for one in entry.arguments]
            return self.call(entry.function, arguments, "")[entry.output]
        body = _Body(self, {node.name: node for node in self.main.node}, "")
        body.values[entry.feed.partition(":")[0]] = [self.leaf(PIXELS, "pixels")]
        return body.run([entry.fetch])[0]

    def graph(self, output: Ref | None, entry: Entry) -> Graph:
        assert entry.images is not None
        if output is None:
            raise refuse(self.module.what, "an output that no branch computes")
        nodes = {name: self.nodes[name] for name in _needed(self.nodes, output)}
        refused = {op: kept for op, names in self.refused.items() if (kept := [n for n in names if n in nodes])}
        stored = {name: value for name, value in self.stored.items() if name in nodes}
        return Graph(self.module.what, nodes, stored, output, entry.images, refused)

    def leaf(self, op: str, name: str, value: Stored | None = None) -> Ref:
        """A node without inputs; a name that is taken means the same leaf."""
        if name not in self.nodes:
            self.add(Node(name, op))
            if value is not None:
                self.stored[name] = value
                self.bytes += value.array.nbytes
        if self.bytes > MOST_BYTES:
            raise refuse(self.module.what, f"constants and variables of more than {MOST_BYTES} bytes")
        return Ref(name)

    def variable(self, stored: Stored) -> Ref:
        return self.leaf(STORED, f"variables/{stored.name}", stored)

    def add(self, node: Node) -> None:
        if len(self.nodes) >= MOST_NODES:
            raise refuse(self.module.what, f"a graph of more than {MOST_NODES} operations")
        self.nodes[node.name] = node

    def refuse(self, op: str, name: str) -> Ref:
        """A leaf in place of what cannot be followed; noted if the output turns out to depend on it."""
        self.refused.setdefault(op, []).append(name)
        return self.leaf(OTHER, name)

    def call(self, function: str, arguments: Sequence[Ref | None], prefix: str) -> list[Ref | None]:
        """The outputs of a library function."""
        definition = self.library.get(function)
        if definition is None:
            raise refuse(self.module.what, f"a call of a function that is not there: {function}")
        if self.depth >= MOST_CALLS:
            raise refuse(self.module.what, f"functions that call each other more than {MOST_CALLS} deep: {function}")
        if len(arguments) != len(definition.signature.input_arg):
            raise refuse(self.module.what, f"a call with {len(arguments)} arguments: {function}")
        self.depth, self.calls = self.depth + 1, self.calls + 1
        if self.calls > MOST_NODES:
            raise refuse(self.module.what, f"more than {MOST_NODES} calls of functions")
        body = _Body(self, {node.name: node for node in definition.node_def}, prefix)
        for one, value in zip(definition.signature.input_arg, arguments, strict=True):
            body.values[one.name] = [value]
        outputs = body.run([definition.ret[one.name] for one in definition.signature.output_arg])
        self.depth -= 1
        return outputs

    def _argument(self, value: Spec | np.ndarray | Stored | str, entry: Entry) -> Ref:
        number = len(self.nodes)
        if value is entry.images:
            return self.leaf(PIXELS, "pixels")
        if isinstance(value, Spec):
            return self.leaf(STORED, f"arguments/{value.name}", Stored(_neutral(value.dtype)))
        if isinstance(value, np.ndarray):
            return self.leaf(STORED, f"constants/{number}", Stored(value))
        if isinstance(value, Stored):
            return self.variable(value)
        return self.refuse(f"an object that is no variable: {value}", f"objects/{number}")


class _Body:
    """One graph or function body. A value is what each output of a node became; None in a branch that is not taken."""

    def __init__(self, flattener: _Flattener, nodes: Mapping[str, Any], prefix: str) -> None:
        self.all, self.nodes, self.prefix = flattener, nodes, prefix
        self.values: dict[str, list[Ref | None]] = {}

    def run(self, fetches: Iterable[str]) -> list[Ref | None]:
        fetches = list(fetches)
        roots = [fetch.partition(":")[0] for fetch in fetches] + (list(self.nodes) if self.all.everything else [])
        for name in _order(self.nodes, roots, self.values, self.all.module.what):
            self.values[name] = self._node(self.nodes[name])
        return [self.value(fetch) for fetch in fetches]

    def value(self, reference: str) -> Ref | None:
        """ "name", "name:1", or "name:output:1" as function bodies have it."""
        name, *rest = reference.split(":")
        place = int(rest[-1]) if rest else 0
        if len(rest) == 2:
            place += self._offset(self.nodes[name], rest[0])
        values = self.values[name]
        if len(values) == 1 and place:  # an operation's further outputs
            first = values[0]
            return first and Ref(first.node, place)
        return values[place]

    def _offset(self, node: Any, output: str) -> int:
        """How many tensors come before an op's output of that name."""
        definition = op_definition(node.op)
        place = 0
        for one in definition.output_arg if definition else []:
            if one.name == output:
                break
            listed = len(attribute(node, one.type_list_attr).list.type) if one.type_list_attr else 1
            place += attribute(node, one.number_attr).i if one.number_attr else listed
        return place

    def _node(self, node: Any) -> list[Ref | None]:
        name = self.prefix + node.name
        inputs = [self.value(one) for one in node.input if not one.startswith("^")]
        if node.op in MERGES:
            return [next((value for value in inputs if value is not None), None)]
        if any(value is None for value in inputs):
            return [None]
        taken = [value for value in inputs if value is not None]
        if node.op in CALLS or node.op in self.all.library:
            function = attribute(node, "f").func.name if node.op in CALLS else node.op
            return self.all.call(function, taken, f"{name}/")
        if node.op in BRANCHES:
            return self._branch(node, name, taken)
        if node.op in SWITCHES:
            return self._switch(node, name, taken)
        return [self._plain(node, name, taken)]

    def _plain(self, node: Any, name: str, inputs: list[Ref]) -> Ref:
        """A node that is one in the flat graph, or stands for another."""
        if node.op == "Const":
            return self.all.leaf(STORED, name, Stored(constant(node, self.all.module.what)))
        if node.op in HANDLES:
            place = self.all.module.places.get(node.name)
            if place is None:
                return self.all.refuse("a variable without a value", name)
            return self.all.variable(self.all.module.variables[place])
        if node.op in READS and inputs[0].node in self.all.stored:
            return inputs[0]
        if node.op == "PlaceholderWithDefault":
            return inputs[0]
        if node.op == "Placeholder":
            dtype = tf.as_dtype(attribute(node, "dtype").type)
            if dtype != tf.bool and not (dtype.is_floating and not attribute(node, "shape").shape.dim):
                return self.all.refuse(f"Placeholder of {dtype.name}", name)
            return self.all.leaf(STORED, name, Stored(_neutral(dtype)))
        self.all.add(Node(name, node.op, tuple(inputs), node))
        return Ref(name)

    def _branch(self, node: Any, name: str, inputs: list[Ref]) -> list[Ref | None]:
        condition = self._known(inputs[0])
        if condition is None:
            return [self.all.refuse(f"{node.op} on a condition that depends on the image", name)]
        taken = attribute(node, "then_branch" if condition else "else_branch").func.name
        return self.all.call(taken, inputs[1:], f"{name}/")

    def _switch(self, node: Any, name: str, inputs: list[Ref]) -> list[Ref | None]:
        condition = self._known(inputs[1])
        if condition is None:
            return [self.all.refuse(f"{node.op} on a condition that depends on the image", name)]
        return [None, inputs[0]] if condition else [inputs[0], None]

    def _known(self, value: Ref) -> bool | None:
        """A condition's value, if it follows from constants."""
        stored, node = self.all.stored.get(value.node), self.all.nodes[value.node]
        if stored is not None:
            return bool(stored.array) if stored.array.size == 1 and not stored.name else None
        conditions = [self._known(one) for one in node.inputs] if node.op in _LOGIC else [None]
        if None in conditions:
            return None
        return _LOGIC[node.op](conditions)


_LOGIC = {
    "Identity": lambda values: values[0],
    "LogicalNot": lambda values: not values[0],
    "LogicalAnd": lambda values: values[0] and values[1],
    "LogicalOr": lambda values: values[0] or values[1],
}


def _neutral(dtype: tf.DType) -> np.ndarray:
    """What an argument besides the images gets in evaluation: no training; numbers there only act in training."""
    return np.array(False) if dtype == tf.bool else np.array(0, dtype.as_numpy_dtype)


def _order(nodes: Mapping[str, Any], roots: Sequence[str], known: Mapping[str, Any], what: str) -> Iterator[str]:
    """Names of all nodes that `roots` depend on, each after its inputs. Raises WeightsError for a circle."""
    done: set[str] = set(known)
    for root in roots:
        path: dict[str, Iterator[str]] = {}
        if root not in done:
            path[root] = _inputs(nodes, root, what)
        while path:
            name = next(reversed(path))
            following = next((one for one in path[name] if one not in done), None)
            if following is None:
                del path[name]
                done.add(name)
                yield name
            elif following in path:
                raise refuse(what, f"a loop in the graph at {following}")
            else:
                path[following] = _inputs(nodes, following, what)


def _inputs(nodes: Mapping[str, Any], name: str, what: str) -> Iterator[str]:
    if name not in nodes:
        raise refuse(what, f"a graph that refers to a node it does not have: {name}")
    return iter([one.partition(":")[0] for one in nodes[name].input if not one.startswith("^")])


def _needed(nodes: Mapping[str, Node], output: Ref) -> list[str]:
    """Names of what an output depends on, in the order of `nodes`."""
    waiting, found = [output.node], set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [one.node for one in nodes[name].inputs]
    return [name for name in nodes if name in found]
