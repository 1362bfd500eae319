"""Any `nn.Module` that classifies images -> an ordinary Keras functional model.

`torch.export` gives the module's graph in ATen's ops, with a batch of unknown size; each node is translated by the
function
that the op table names. Read `translate` top to bottom. What a node computes from constants alone is computed by
PyTorch here and now; what depends on the image or on a weight becomes a Keras operation, so that it trains.
"""

from __future__ import annotations

import contextlib
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from multitl.contracts import Translation
from multitl.errors import TranslationError
from multitl.translation.building import (
    BATCH,
    Activation,
    Builder,
    OpTable,
    Stored,
    Unsupported,
    UsedInTwoWays,
    Value,
    refuse_graph,
)
from multitl.translation.layouts import channels_last, in_order
from multitl_torch import fx_ops_convolution, fx_ops_elementwise, fx_ops_linear, fx_ops_pooling, fx_ops_shape
from multitl_torch.rivals import triton_kept_out

OPS = OpTable(
    "torch",
    fx_ops_convolution.ops,
    fx_ops_elementwise.ops,
    fx_ops_linear.ops,
    fx_ops_pooling.ops,
    fx_ops_shape.ops,
)
INLINED = ("wrap_with_autocast", "wrap_with_set_grad_enabled")
FILLS = (
    "new_zeros", "new_ones", "new_full", "new_empty", "zeros", "ones", "full", "empty",
    "zeros_like", "ones_like", "full_like", "empty_like",
)  # fmt: skip
TAKE_STORED = (
    "add", "sub", "rsub", "mul", "div", "maximum", "minimum", "addcmul", "addmm", "baddbmm", "where",
    "contiguous", "clone", "detach", "alias", "to", "type_as", "lift_fresh_copy", "_to_copy",
)  # fmt: skip
VIEWS = (
    "select.int",
    "view.default",
    "unbind.int",
    "split.Tensor",
    "chunk.default",
    "permute.default",
    "transpose.int",
)
TRACED_BATCH = 3  # of the example: 0, 1 and perhaps 2 are sizes that graphs treat specially

_library = torch.library.Library("multitl", "DEF")  # keeps the op below alive
_library.define("drop_path(Tensor x, float rate, bool by_image) -> Tensor")
_library.impl("drop_path", lambda x, rate, by_image: x.clone(), "CompositeExplicitAutograd")


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced module. `stored`: the tensors behind the graph's placeholders, by node."""

    graph: torch.fx.Graph
    stored: dict[torch.fx.Node, Stored]
    state_names: tuple[str, ...]
    what: str


def translate(module: torch.nn.Module, example: torch.Tensor, ops: OpTable = OPS) -> Translation:
    """Trace `module` in evaluation mode and rebuild it from stock Keras layers, weights included.

    example: a float tensor (batch, channels, height, width), or of any shape with the batch first. Height and width are
    those of the Keras model, whose input is channels-last. The module itself is left as it was.

    Training behaviour comes along: dropout, stochastic depth, and batch normalisation with its momentum.
    Raises TranslationError for a module that cannot be traced, or with the list of all ops that have no translation.
    """
    return build(trace(module, example), tuple(example.shape[1:]), ops)[0]


def trace(module: torch.nn.Module, example: torch.Tensor) -> Graph:
    """The module's graph in ATen's ops."""
    example = example.detach()[:1].expand(TRACED_BATCH, *example.shape[1:]).clone()
    what = type(module).__name__
    try:
        with evaluated(module), triton_kept_out(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            # strict=False: the default of today, but not of PyTorch 2.6, and what refuses less
            program = torch.export.export(module, (example,), dynamic_shapes=({0: Dim.AUTO},), strict=False)
    except Exception as error:  # torch.export raises all kinds: of its own, of dynamo's, and the module's
        raise TranslationError(
            f"{what} cannot be traced by torch.export.",
            expected="a module that maps one batch of images to a tensor, without control flow that depends on values",
            received=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            fix="check that module(example) works; torch.export.export(module, (example,)) shows PyTorch's own message",
        ) from error
    return _graph(program, module, what)


def build(
    traced: Graph, input_shape: Sequence[int], ops: OpTable, held: frozenset[str] = frozenset()
) -> tuple[Translation, dict[str, Activation]]:
    """The Keras model of a traced graph, and the value that each of its nodes computes, by name.

    held: weights that no layer shall take for itself. Those used in two ways are found on the way; then all begins
    anew.
    """
    missing = missing_ops(traced, ops)
    if missing:
        raise refuse_graph(traced.what, missing)
    rank = len(input_shape) + 1
    axes = channels_last(rank) if rank > 2 else in_order(rank)
    pixels = keras.Input([input_shape[axis - 1] for axis in np.argsort(axes)[1:]], name="pixels")
    walk = _Walk(Builder(pixels), ops)
    outputs = walk.run(traced, Activation(pixels, axes), held)
    if walk.used_in_two_ways:
        return build(traced, input_shape, ops, held | walk.used_in_two_ways)
    if walk.refused:
        raise refuse_graph(traced.what, walk.refused) from walk.cause
    translation = walk.build.finish(outputs, keras_name(traced.what), traced.state_names)
    return translation, walk.computed


def missing_ops(traced: Graph, ops: OpTable) -> dict[str, list[str]]:
    """Op -> names of its nodes, for ops without a translation among nodes that depend on the image or a weight."""
    images = {node for node in traced.graph.nodes if node.op == "placeholder" and node not in traced.stored}
    weights = {node for node, stored in traced.stored.items() if stored.name}
    missing: dict[str, list[str]] = {}
    _look_for_missing(traced.graph, images | weights, ops, missing)
    return missing


def _look_for_missing(graph: torch.fx.Graph, live: set[torch.fx.Node], ops: OpTable, missing: dict) -> None:
    """Adds to `missing`. live: nodes that depend on the image or a weight, so far; sizes do not, nor what is filled."""
    for node in graph.nodes:
        if node.op != "call_function" or not any(source in live for source in node.all_input_nodes):
            continue
        if op_name(node) in INLINED:
            live.add(node)
            inner, given = _inner_graph(node)
            _look_for_missing(inner, {place for place, argument in given.items() if argument in live}, ops, missing)
        elif _gives_tensors(node) and not _is_fill(node):
            live.add(node)
            if not find(ops, node):
                missing.setdefault(op_name(node), []).append(node.name)


def keras_name(what: str) -> str:
    """A model's name of letters that every exporter takes."""
    return "".join(letter if letter.isalnum() else "_" for letter in what).lower()


def op_name(node: torch.fx.Node) -> str:
    """ "conv2d.default" for torch.ops.aten.conv2d.default, with the namespace if it is not ATen."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        namespace, name = target._schema.name.split("::")
        full = f"{name}.{target._overloadname}"
        return full if namespace == "aten" else f"{namespace}.{name}"
    return str(getattr(target, "__name__", target))


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

    def run(self, traced: Graph, pixels: Activation, held: frozenset[str]) -> list[Activation]:
        for node, stored in traced.stored.items():
            self.values[node] = self.build.hold(stored) if stored.name in held else stored
        self._positions = {node: position for position, node in enumerate(traced.graph.nodes)}
        for node in traced.graph.nodes:
            if node.op == "placeholder" and node not in self.values:
                self.values[node] = pixels
        return [self.build.value(value) for value in _flat(self._nodes(traced.graph))]

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
            return _attribute(node)
        if op_name(node) in INLINED:
            return self._inlined(node)
        if not _gives_tensors(node):
            return _size(node.meta.get("val"))
        arguments = self._arguments(node)
        flat = list(_flat(arguments))
        if any(value is None for value in (self.values[source] for source in node.all_input_nodes)):
            return None  # follows a node that was refused
        if not any(isinstance(value, Activation) or (isinstance(value, Stored) and value.name) for value in flat):
            return _computed(node, arguments)
        if _is_fill(node):
            return _filled(node, arguments)
        return self._translated(node, arguments)

    def _translated(self, node: torch.fx.Node, arguments: list) -> Any:
        if node.target is operator.getitem:
            return self._taken(node, *arguments)
        function = find(self.ops, node)
        assert function is not None, "missing_ops comes first"
        self.build.path = module_path(node)
        try:
            if isinstance(arguments[0], Stored) and _base_name(node) not in TAKE_STORED:
                arguments[0] = self.build.value(arguments[0])  # a weight that is computed with
            value = function(self.build, *self._shallow_first(node, arguments))
            self._check(node, value)
            if _is_in_place(node):
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
        inner, given = _inner_graph(node)
        self.values |= {place: self._argument(argument) for place, argument in given.items()}
        return self._nodes(inner)

    def _arguments(self, node: torch.fx.Node) -> list:
        """In the schema's order, defaults filled in."""
        if not isinstance(node.target, torch._ops.OpOverload):
            return [self._argument(argument) for argument in node.args]
        given = dict(zip((argument.name for argument in node.target._schema.arguments), node.args, strict=False))
        given |= node.kwargs
        wanted = node.target._schema.arguments
        return [self._argument(given.get(one.name, one.default_value)) for one in wanted]

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, torch.fx.Node):
            return self.values[argument]
        if isinstance(argument, list | tuple):
            return [self._argument(one) for one in argument]
        return _size(argument)

    def _check(self, node: torch.fx.Node, value: Any) -> None:
        """The shape must be PyTorch's; a mismatch is a bug in an op's function."""
        expected = node.meta.get("val")
        if isinstance(value, Activation) and isinstance(expected, torch.Tensor):
            wanted = tuple(_size(size) for size in expected.shape)
            if len(wanted) != value.rank or not all(map(_is_size, value.shape, expected.shape)):
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


@contextlib.contextmanager
def evaluated(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, no fused attention, and stochastic depth kept visible; all undone afterwards."""
    training = {part: part.training for part in module.modules()}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    stubbed = [part for part in module.modules() if _drop_rate(part) is not None and "forward" not in vars(part)]
    try:
        try:
            module.eval()
        except NotImplementedError:  # of a loaded program of torch.export, which stays as it was traced
            for part in training:
                part.training = False
        torch.backends.mha.set_fastpath_enabled(False)
        for part in stubbed:
            part.forward = _drop_path_stub(part)
        yield
    finally:
        for part in stubbed:
            del part.forward
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for part, was in training.items():
            part.training = was


def _drop_rate(part: torch.nn.Module) -> float | None:
    """The rate of a stochastic-depth module, of torchvision's class or of timm's that many repositories copy."""
    attribute = {"StochasticDepth": "p", "DropPath": "drop_prob"}.get(type(part).__name__)
    return float(getattr(part, attribute) or 0.0) if attribute else None


def _drop_path_stub(part: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    rate, by_image = _drop_rate(part), getattr(part, "mode", "row") == "row"
    return lambda x: torch.ops.multitl.drop_path(x, rate, by_image)


def _graph(program: ExportedProgram, module: torch.nn.Module, what: str) -> Graph:
    signature, state = program.graph_signature, {**program.state_dict, **program.constants}
    parameters, buffers = dict(signature.inputs_to_parameters), dict(signature.inputs_to_buffers)
    names = parameters | buffers | dict(signature.inputs_to_lifted_tensor_constants)
    persistent = tuple(module.state_dict())
    stored: dict[torch.fx.Node, Stored] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            tensor, name = state[names[node.name]].detach(), names[node.name]
            is_weight = name in persistent and tensor.is_floating_point()
            stored[node] = Stored(_array(tensor.clone()), name if is_weight else "", node.name in parameters)
    if any(_is_fixed(node) for node in program.graph.nodes if node.op == "placeholder" and node not in stored):
        raise TranslationError(
            f"{what} computes with one batch size only.",
            expected="a module that takes any number of images",
            received="a graph in which the batch size is a constant",
            fix="look for sizes in its forward() that should come from x.shape[0]; len(x) is a number to PyTorch",
        )
    return Graph(program.graph, stored, persistent, what)


def _is_fixed(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and _size(value.shape[0]) % BATCH != 0


def _array(tensor: torch.Tensor) -> np.ndarray:
    wide = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
    return wide.cpu().numpy()


def _computed(node: torch.fx.Node, arguments: list) -> Any:
    """What PyTorch makes of constants. Sizes that depend on the batch become 1, to be broadcast later."""
    if node.target is operator.getitem:
        return arguments[0][arguments[1]]
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.target(*arguments)
    if _is_fill(node):
        return _filled(node, arguments)
    tensors = [_as_torch(argument) for argument in arguments]
    schema = node.target._schema.arguments
    positional = [value for value, one in zip(tensors, schema, strict=True) if not one.kwarg_only]
    named = {one.name: value for value, one in zip(tensors, schema, strict=True) if one.kwarg_only}
    with torch.no_grad():
        return _as_stored(node.target(*positional, **named))


def _filled(node: torch.fx.Node, arguments: list) -> Stored:
    value = node.meta["val"]
    shape = [1 if isinstance(size, torch.SymInt) else int(size) for size in value.shape]
    name = _base_name(node)
    number: float = {"ones": 1, "new_ones": 1, "ones_like": 1}.get(name, 0)
    if "full" in name:
        number = next(argument for argument in arguments[1:] if isinstance(argument, int | float))
    return Stored(torch.full(shape, number, dtype=value.dtype).numpy())


def _as_torch(value: Any) -> Any:
    if isinstance(value, Stored):
        return torch.from_numpy(value.array)  # shares memory, so that writes into views are seen
    if isinstance(value, list):
        return [_as_torch(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool) and value and value % BATCH == 0:
        return value // BATCH
    return value


def _as_stored(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Stored(value.detach().numpy())
    return [_as_stored(one) for one in value] if isinstance(value, list | tuple) else value


def _size(value: Any) -> Any:
    """A symbolic size as a number in which BATCH stands for the batch; anything else as it is."""
    if not isinstance(value, torch.SymInt):
        return value
    expression = value.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, BATCH)))


def _is_size(have: int, wanted: int | torch.SymInt) -> bool:
    """Whether an axis is as long as PyTorch's. How much a mask selects is unknown to PyTorch before it runs."""
    if free_unbacked_symbols(wanted):
        return True
    size = _size(wanted)
    return have == size or (have == 1 and size % BATCH == 0)


def _attribute(node: torch.fx.Node) -> Any:
    value: Any = node.graph.owning_module
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return Stored(_array(value.detach())) if isinstance(value, torch.Tensor) else value


def _inner_graph(node: torch.fx.Node) -> tuple[torch.fx.Graph, dict[torch.fx.Node, Any]]:
    """The sub-graph that a node stands for, and what its placeholders stand for."""
    attributes = [isinstance(argument, torch.fx.Node) and argument.op == "get_attr" for argument in node.args]
    at = attributes.index(True)
    inner = _attribute(node.args[at]).graph
    places = [place for place in inner.nodes if place.op == "placeholder"]
    return inner, dict(zip(places, node.args[at + 1 :], strict=True))


def _gives_tensors(node: torch.fx.Node) -> bool:
    return any(isinstance(value, torch.Tensor) for value in _flat([node.meta.get("val")]))


def _is_fill(node: torch.fx.Node) -> bool:
    """Whether only its shape depends on what it is given."""
    return _base_name(node) in FILLS


def _is_in_place(node: torch.fx.Node) -> bool:
    name = op_name(node).partition(".")[0]
    return name.endswith("_") and not name.endswith("__")


def _base_name(node: torch.fx.Node) -> str:
    """ "add" for add.Tensor and add_.Tensor."""
    return op_name(node).partition(".")[0].removesuffix("_")


def module_path(node: torch.fx.Node) -> str:
    """The innermost module that the node belongs to: "layer1.0.relu"."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    path = path.removeprefix("L['self']").replace("['", ".").replace("']", "").strip(".")
    return path.split("@")[0] or node.name


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _flat(one)
    else:
        yield value


__all__ = ["OPS", "Value", "translate"]
