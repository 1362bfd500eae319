"""An `nn.Module` in evaluation mode -> its graph in ATen's ops, with a batch of unknown size, and its tensors."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.export import Dim, ExportedProgram

from multitl.errors import TranslationError
from multitl.translation.values import Stored
from multitl_torch.fx_batches import SIZES, Varies, insist_on_the_batch, name_the_batch
from multitl_torch.fx_nodes import as_array, is_batch
from multitl_torch.rivals import triton_kept_out

_library = torch.library.Library("multitl", "DEF")  # keeps the op below alive
_library.define("drop_path(Tensor x, float rate, bool by_image) -> Tensor")
_library.impl("drop_path", lambda x, rate, by_image: x.clone(), "CompositeExplicitAutograd")


Example: TypeAlias = torch.Tensor | Sequence[torch.Tensor]  # a sequence where a module has several inputs


@dataclass(frozen=True, eq=False)
class Graph:
    """A traced module. `stored`: the tensors behind the graph's placeholders, by node.  `inputs`: the other
    placeholders.
    """

    graph: torch.fx.Graph
    inputs: tuple[torch.fx.Node, ...]
    stored: dict[torch.fx.Node, Stored]
    state_names: tuple[str, ...]
    what: str


def trace(module: torch.nn.Module, example: Example) -> Graph:
    """The module's graph in ATen's ops. Where it has the batch size as a number, that is read off two traces."""
    what, examples = type(module).__name__, each_input(example)
    program = _exported(module, examples, SIZES[0], Dim.AUTO)
    if not any(_is_fixed(node) for node in _inputs(program)):
        return _graph(program, module, what)
    try:
        program, other = (_exported(module, examples, size) for size in SIZES)
        name_the_batch(program.graph, other.graph)
        insist_on_the_batch(program.graph)
    except (Varies, TranslationError) as error:
        reason = error.received if isinstance(error, TranslationError) else str(error)
        raise TranslationError(
            f"{what} computes with one batch size only.",
            expected="a module that takes any number of images",
            received=f"a graph in which the batch size is a constant: {reason}",
            fix="look for sizes in its forward() that should come from x.shape[0]",
        ) from error
    return _graph(program, module, what)


def each_input(example: Example) -> tuple[torch.Tensor, ...]:
    """An example as one tensor for each input."""
    return (example,) if isinstance(example, torch.Tensor) else tuple(example)


def _exported(
    module: torch.nn.Module, examples: Sequence[torch.Tensor], size: int, batch: Any = Dim.STATIC
) -> ExportedProgram:
    """What torch.export makes of a batch of `size` images like the example's first. Raises TranslationError."""
    given = tuple(example.detach()[:1].expand(size, *example.shape[1:]).clone() for example in examples)
    try:
        with evaluated(module), triton_kept_out(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            # strict=False: the default of today, but not of PyTorch 2.6, and what refuses less
            return torch.export.export(module, given, dynamic_shapes=_for_each(module, given, {0: batch}), strict=False)
    except Exception as error:  # torch.export raises all kinds: of its own, of dynamo's, and the module's
        raise TranslationError(
            f"{type(module).__name__} cannot be traced by torch.export.",
            expected="a module that maps a batch of images to tensors, without control flow that depends on values",
            received=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}",
            fix="check that module(example) works; torch.export.export(module, (example,)) shows PyTorch's own message",
        ) from error


def _for_each(module: torch.nn.Module, examples: Sequence[torch.Tensor], sizes: dict[int, Any]) -> tuple:
    """`sizes` once for each input; what goes into `*inputs` of a forward() is a tuple of its own to torch.export."""
    bound = inspect.signature(module.forward).bind(*examples).arguments.values()
    return tuple(tuple(sizes for _ in one) if isinstance(one, tuple) else sizes for one in bound)


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
            stored[node] = Stored(as_array(tensor.clone()), name if is_weight else "", node.name in parameters)
    return Graph(program.graph, tuple(_inputs(program)), stored, persistent, what)


def _inputs(program: ExportedProgram) -> list[torch.fx.Node]:
    """The placeholders that stand for what the module is called with."""
    names = program.graph_signature.user_inputs
    return [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]


def _is_fixed(node: torch.fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and not is_batch(value.shape[0])
