"""An `nn.Module` in evaluation mode -> its graph in ATen's ops, with a batch of unknown size, and its tensors."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.export import Dim, ExportedProgram

from multitl.errors import TranslationError
from multitl.translation.values import BATCH, Stored
from multitl_torch.fx_nodes import as_array, plain_size
from multitl_torch.rivals import triton_kept_out

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
    return isinstance(value, torch.Tensor) and plain_size(value.shape[0]) % BATCH != 0
