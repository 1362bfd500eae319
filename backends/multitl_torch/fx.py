"""Any `nn.Module` that classifies images -> an ordinary Keras functional model.

`torch.export` gives the module's graph in ATen's ops, with a batch of unknown size (fx_graphs.py); each node is
translated by the function that the op table names. Read `translate` top to bottom. What a node computes from constants
alone is computed by PyTorch here and now (fx_constants.py); what depends on the image or on a weight becomes a Keras
operation, so that it trains. Of weights alone PyTorch also computes what has no translation, as weight normalisation's
products: a kernel folded in this way trains as a whole.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import torch

from multitl.contracts import Translation
from multitl.errors import TranslationError
from multitl.translation.building import Builder, UsedInTwoWays
from multitl.translation.layouts import channels_last, in_order
from multitl.translation.op_tables import OpTable, Unsupported, refuse_graph
from multitl.translation.values import Activation, Stored
from multitl_torch import (
    fx_ops_comparing,
    fx_ops_convolution,
    fx_ops_cutting,
    fx_ops_elementwise,
    fx_ops_linear,
    fx_ops_pooling,
    fx_ops_recurrent,
    fx_ops_reductions,
    fx_ops_sampling,
    fx_ops_shape,
)
from multitl_torch.fx_constants import computed, filled, folded
from multitl_torch.fx_graphs import Example, Graph, trace
from multitl_torch.fx_nodes import (
    OP,
    base_name,
    gives_tensors,
    held_by_module,
    inner_graph,
    is_fill,
    is_in_place,
    is_size,
    leaves,
    module_path,
    op_name,
    plain_size,
)  # fmt: skip
from multitl_torch.insides import arguments_of

OPS = OpTable(
    "torch",
    fx_ops_comparing.ops,
    fx_ops_convolution.ops,
    fx_ops_cutting.ops,
    fx_ops_elementwise.ops,
    fx_ops_linear.ops,
    fx_ops_pooling.ops,
    fx_ops_recurrent.ops,
    fx_ops_reductions.ops,
    fx_ops_sampling.ops,
    fx_ops_shape.ops,
)
INLINED = ("wrap_with_autocast", "wrap_with_set_grad_enabled")
TAKE_STORED = (
    "add", "sub", "rsub", "mul", "div", "maximum", "minimum", "addcmul", "addmm", "baddbmm", "where",
    "contiguous", "clone", "detach", "alias", "to", "type_as", "lift_fresh_copy", "_to_copy", "embedding",
)  # fmt: skip
READ_NUMBERS = ("embedding", "to", "_to_copy", "_assert_tensor_metadata")
VIEWS = (
    "select.int",
    "view.default",
    "unbind.int",
    "split.Tensor",
    "chunk.default",
    "permute.default",
    "transpose.int",
)


def translate(module: torch.nn.Module, example: Example, ops: OpTable = OPS) -> Translation:
    """Trace `module` in evaluation mode and rebuild it from stock Keras layers, weights included.

    example: a float tensor (batch, channels, height, width), or of any shape with the batch first; several for a module
    of several inputs, of which those of whole numbers may be read by embeddings alone. Height and width are those of
    the Keras model, whose inputs are channels-last. The module itself is left as it was.

    Training behaviour comes along: dropout, stochastic depth, and batch normalisation with its momentum.
    Raises TranslationError for a module that cannot be traced, or with the list of all ops that have no translation.
    """
    return build(trace(module, example), ops)[0]


def build(traced: Graph, ops: OpTable, held: frozenset[str] = frozenset()) -> tuple[Translation, dict[str, Activation]]:
    """The Keras model of a traced graph, and the value that each of its nodes computes, by name.

    held: weights that no layer shall take for itself. Those used in two ways are found on the way; then all begins
    anew.
    """
    missing = missing_ops(traced, ops)
    if missing:
        raise refuse_graph(traced.what, missing)
    inputs = {node: _input(node, "pixels" if len(traced.inputs) == 1 else node.name) for node in traced.inputs}
    walk = _Walk(Builder(*(value.tensor for value in inputs.values())), ops)
    outputs = walk.run(traced, inputs, held)
    if walk.used_in_two_ways:
        return build(traced, ops, held | walk.used_in_two_ways)
    if walk.refused:
        raise refuse_graph(traced.what, walk.refused) from walk.cause
    translation = walk.build.finish(outputs, keras_name(traced.what), traced.state_names)
    return translation, walk.computed


def _input(node: torch.fx.Node, name: str) -> Activation:
    """An input of the Keras model, channels-last. Raises TranslationError for whole numbers that are computed with."""
    example = node.meta["val"]
    rank = example.ndim
    if example.is_floating_point():
        axes = channels_last(rank) if rank > 2 else in_order(rank)
        return Activation(keras.Input([int(example.shape[axis]) for axis in np.argsort(axes)[1:]], name=name), axes)
    readers = [op_name(user) for user in node.users if base_name(user) not in READ_NUMBERS]
    if readers:
        raise TranslationError(
            f"The input {node.name} of whole numbers is computed with.",
            expected="numbers that nothing but an nn.Embedding reads",
            received=", ".join(readers),
            fix="give an example of floats for this input: multitl.from_torch(module, (images, numbers.float()))",
        )
    return Activation(keras.Input([int(size) for size in example.shape[1:]], dtype="int32", name=name), in_order(rank))


def missing_ops(traced: Graph, ops: OpTable) -> dict[str, list[str]]:
    """Op -> names of its nodes, for ops without a translation among nodes that depend on the image.

    What depends on weights alone PyTorch can compute: in inference it is a constant.
    """
    images = set(traced.inputs)
    missing: dict[str, list[str]] = {}
    _look_for_missing(traced.graph, images, ops, missing)
    return missing


def _look_for_missing(graph: torch.fx.Graph, live: set[torch.fx.Node], ops: OpTable, missing: dict) -> None:
    """Adds to `missing`. live: nodes that depend on the image, so far; sizes do not, nor what is filled."""
    for node in graph.nodes:
        if node.op != "call_function" or not any(source in live for source in node.all_input_nodes):
            continue
        if op_name(node) in INLINED:
            live.add(node)
            inner, given = inner_graph(node)
            _look_for_missing(inner, {place for place, argument in given.items() if argument in live}, ops, missing)
        elif gives_tensors(node) and not is_fill(node):
            live.add(node)
            if not find(ops, node):
                missing.setdefault(op_name(node), []).append(node.name)


def to_fold(traced: Graph, ops: OpTable) -> set[torch.fx.Node]:
    """Nodes that depend on no image and have no translation, with all that leads to them."""
    live = set(traced.inputs)
    for node in traced.graph.nodes:
        if any(source in live for source in node.all_input_nodes):
            live.add(node)
    folded: set[torch.fx.Node] = set()
    for node in reversed(traced.graph.nodes):
        is_known = node.op != "call_function" or find(ops, node) is not None
        if node not in live and (not is_known or any(user in folded for user in node.users)):
            folded.add(node)
    return folded


def keras_name(what: str) -> str:
    """A model's name of letters that every exporter takes."""
    return "".join(letter if letter.isalnum() else "_" for letter in what).lower()


def find(ops: OpTable, node: torch.fx.Node) -> Callable[..., Any] | None:
    """The function for a node: by name and overload, else by name alone; an op in place is looked up without its
    "_".
    """
    if node.target is operator.getitem:
        return operator.getitem
    name = op_name(node)
    base, _, overload = name.partition(".")
    plain = base.removesuffix("_")
    keys = (name, base, f"{plain}.{overload}", plain)
    return next((ops[key] for key in keys if key in ops), None)


class _Walk:
    """Translates node after node. What has no translation is noted in `refused`, so that one error can list it all."""

    def __init__(self, builder: Builder, ops: OpTable) -> None:
        self.build, self.ops = builder, ops
        self.values: dict[torch.fx.Node, Any] = {}
        self.computed: dict[
            str, Activation
        ] = {}  # by node, as first computed: `values` change where nodes write in place
        self.refused: dict[str, list[str]] = {}
        self.cause: Exception | None = None  # of the first refusal that no op's function foresaw
        self.used_in_two_ways: frozenset[str] = frozenset()

    def run(self, traced: Graph, inputs: Mapping[torch.fx.Node, Activation], held: frozenset[str]) -> list[Activation]:
        self.values |= inputs
        for node, stored in traced.stored.items():
            self.values[node] = self.build.hold(stored) if stored.name in held else stored
        self._folded = to_fold(traced, self.ops)
        self._positions = {node: position for position, node in enumerate(traced.graph.nodes)}
        return [self.build.value(value) for value in leaves(self._nodes(traced.graph))]

    def _nodes(self, graph: torch.fx.Graph) -> Any:
        for node in graph.nodes:
            if node.op == "output":
                return self._argument(node.args[0])
            if node not in self.values:
                self.values[node] = value = self._node(node)
                if isinstance(value, Activation):
                    self.computed[node.name] = value
        raise AssertionError("a graph without output")

    def _node(self, node: torch.fx.Node) -> Any:
        if node.op == "get_attr":
            return held_by_module(node)
        if op_name(node) in INLINED:
            return self._inlined(node)
        if not gives_tensors(node):
            return plain_size(node.meta.get("val"))
        arguments = self._arguments(node)
        flat = list(leaves(arguments))
        if any(value is None for value in (self.values[source] for source in node.all_input_nodes)):
            return None  # follows a node that was refused
        weights = [value for value in flat if isinstance(value, Stored) and (value.name or value.trains)]
        depends = any(isinstance(value, Activation) for value in flat)
        if not depends and not weights:
            return computed(node, arguments)
        if is_fill(node):
            return filled(node, arguments)
        if not depends and (node in self._folded or any(not weight.name for weight in weights)):
            return folded(node, arguments)
        return self._translated(node, arguments)

    def _translated(self, node: torch.fx.Node, arguments: list) -> Any:
        if node.target is operator.getitem:
            return self._taken(node, *arguments)
        function = find(self.ops, node)
        self.build.path = module_path(node)
        try:
            if function is None:  # missing_ops comes first, so it is of weights
                raise Unsupported("of weights that are used in two ways")
            if isinstance(arguments[0], Stored) and base_name(node) not in TAKE_STORED:
                arguments[0] = self.build.value(arguments[0])  # a weight that is computed with
            value = function(self.build, *self._shallow_first(node, arguments))
            self._check(node, value)
            if is_in_place(node):
                self._write_in_place(node, value)
            return value
        except UsedInTwoWays as found:
            self.used_in_two_ways |= {*found.names}
        except Unsupported as refusal:
            self._refuse(node, str(refusal))
        except Exception as error:  # Keras, or an op's function that met what it was not made for
            self.cause = self.cause or error
            self._refuse(node, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        return None

    def _refuse(self, node: torch.fx.Node, reason: str) -> None:
        self.refused.setdefault(f"{op_name(node)} ({reason})", []).append(node.name)

    def _taken(self, node: torch.fx.Node, values: list, index: int) -> Any:
        """One of an op's outputs. Those behind the last that is translated (where a maximum lies) must not be read."""
        if index < len(values):
            return values[index]
        if node.users:
            self.refused.setdefault(f"output {index} of {op_name(node.args[0])}", []).append(node.name)
        return None

    def _shallow_first(self, node: torch.fx.Node, arguments: list) -> list:
        """Of a sum, the operand that was computed earlier comes first.

        Keras walks a model's graph recursively, first operands first, one Python frame a node. Residual networks of
        more than 1000 operations (efficientnet_v2_l) would exceed Python's limit; along the shortcuts the way is short.
        """
        a, b = (*node.args, None, None)[:2]
        is_sum = op_name(node) in ("add.Tensor", "add_.Tensor") and arguments[2] == 1
        both = isinstance(a, torch.fx.Node) and isinstance(b, torch.fx.Node)
        if is_sum and both and self._positions.get(b, 0) < self._positions.get(a, 0):
            return [arguments[1], arguments[0], *arguments[2:]]
        return arguments

    def _inlined(self, node: torch.fx.Node) -> Any:
        """A sub-graph under autocast or no_grad: its nodes count as the graph's own."""
        inner, given = inner_graph(node)
        self.values |= {place: self._argument(argument) for place, argument in given.items()}
        return self._nodes(inner)

    def _arguments(self, node: torch.fx.Node) -> list:
        """In the schema's order, defaults filled in."""
        if not isinstance(node.target, OP):
            return [self._argument(argument) for argument in node.args]
        wanted = arguments_of(node.target)
        given = dict(zip((argument.name for argument in wanted), node.args, strict=False)) | node.kwargs
        return [self._argument(given.get(one.name, one.default_value)) for one in wanted]

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, torch.fx.Node):
            return self.values[argument]
        if isinstance(argument, list | tuple):
            return [self._argument(one) for one in argument]
        return plain_size(argument)

    def _check(self, node: torch.fx.Node, value: Any) -> None:
        """The shape must be PyTorch's; a mismatch is a bug in an op's function."""
        expected = node.meta.get("val")
        if isinstance(value, Activation) and isinstance(expected, torch.Tensor):
            wanted = tuple(plain_size(size) for size in expected.shape)
            if len(wanted) != value.rank or not all(map(is_size, value.shape, expected.shape)):
                raise Unsupported(f"its shape became {value.shape} instead of {wanted}")

    def _write_in_place(self, node: torch.fx.Node, value: Any) -> None:
        """The node that was written to has a new value, and so has what it is a slice of."""
        target = node.args[0]
        while isinstance(target, torch.fx.Node):
            self.values[target] = value
            name = op_name(target)
            if name in VIEWS:
                raise Unsupported(f"a write into {name}")
            if name != "slice.Tensor":
                return
            base, axis, start, end, step = self._arguments(target)
            if step != 1:
                raise Unsupported("a write into a slice with steps")
            value = self._with_slice(self.build.value(base), axis, start or 0, end, value)
            target = target.args[0]

    def _with_slice(self, base: Activation, axis: int, start: int, end: int | None, value: Activation) -> Activation:
        cut, join = self.ops["slice.Tensor"], self.ops["cat"]
        end = min(base.shape[axis], base.shape[axis] if end is None else end)
        if (start, end) == (0, base.shape[axis]):
            return value
        pieces = [cut(self.build, base, axis, 0, start, 1), value, cut(self.build, base, axis, end, None, 1)]
        return join(self.build, [piece for piece in pieces if piece.shape[axis]], axis)
