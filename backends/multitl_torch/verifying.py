"""The gate: a translated network is run beside its original, and the first layer that goes its own way is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch

from multitl.contracts import Parity, Translation
from multitl.translation.layouts import channels_last
from multitl.translation.op_tables import OpTable
from multitl.translation.parity import (
    MAX_REL,
    NOWHERE,
    PROBES,
    Images,
    compare,
    deviation,
    every_value,
    insist,
    is_close,
    probe_images,
    run,
    side_by_side,
)
from multitl.translation.values import BATCH
from multitl_torch.fx import OPS, build
from multitl_torch.fx_graphs import Example, Graph, each_input, evaluated, trace
from multitl_torch.fx_nodes import is_batch, module_path, op_name
from multitl_torch.plain_modules import copied

ROUNDING = 4  # two ways of summing in float32 may differ by this factor in how far they are off
MOST_ROUNDING = 1e-3  # of the largest output; beyond it float32 means nothing for this network


@dataclass(frozen=True)
class Divergence:
    """The first node whose value is not the original's. `module` is the path of the module it belongs to."""

    node: str
    op: str
    module: str
    max_rel: float

    def __str__(self) -> str:
        return f"first seen at {self.module} (op {self.op}, node {self.node}), error {self.max_rel:.1e}"


def verify(
    module: torch.nn.Module, translation: Translation, example: Example, ops: OpTable = OPS, count: int = PROBES
) -> Parity:
    """Compare `module`, which is on the CPU, in evaluation mode with its translation on `count` images of its size.

    Very deep networks amplify float32's rounding beyond the tolerance. There the original in float64 is the judge: the
    translation may be as far from it as the original itself, times ROUNDING.

    ops: the table that it was translated with. Raises TranslationError that names the first layer that diverges.
    """
    images = probes_of(translation.model, example, count)
    original = outputs(module, images)
    with torch.no_grad():  # else Keras' layers keep what a gradient would need
        translated = run(translation.model, images)
    parity = compare(original, translated)
    if is_close(parity) or _is_rounding(module, images, original, translated):
        return parity
    found = first_divergence(module, example, ops)
    return insist(parity, type(module).__name__, str(found or NOWHERE))


def _is_rounding(module: torch.nn.Module, images: Images, original: np.ndarray, translated: np.ndarray) -> bool:
    """Whether the translation is no farther from the exact result than float32 takes the original itself."""
    exact = outputs(copied(module).double(), keras.tree.map_structure(_wide, images))
    own, found = (compare(exact, values).max_rel for values in (original, translated))
    return found <= ROUNDING * own <= ROUNDING * MOST_ROUNDING


def _wide(images: np.ndarray) -> np.ndarray:
    return images.astype("float64") if images.dtype.kind == "f" else images


def probes_of(model: keras.Model, example: Example, count: int) -> Images:
    """What a module's translation is given, and the module itself, where its inputs are like the example's.

    Whole numbers are rows of embeddings.
    """
    rows = min((layer.input_dim for layer in model.layers if isinstance(layer, keras.layers.Embedding)), default=1)
    random = np.random.default_rng(0)
    found = [
        probe_images(_channels_last(one.shape[1:]), count, seed)
        if one.is_floating_point()
        else random.integers(0, rows, (count, *one.shape[1:]), "int32")
        for seed, one in enumerate(each_input(example))
    ]
    return found if len(found) > 1 else found[0]


def probes(shape: Sequence[int], count: int = PROBES) -> np.ndarray:
    """Images (count, height, width, channels) for a network whose inputs are `shape` = (channels, height, width)."""
    return probe_images(_channels_last(shape), count)


def _channels_last(shape: Sequence[int]) -> Sequence[int]:
    return [*shape[1:], shape[0]]


def outputs(module: torch.nn.Module, images: Images) -> np.ndarray:
    """The original's outputs in evaluation mode for channels-last images, (n, ...); see `parity.run`."""
    with torch.no_grad(), evaluated(module):
        values = keras.tree.flatten(module(*_every_input(images)))
    return side_by_side([value.numpy() for value in values])


def _every_input(images: Images) -> list[torch.Tensor]:
    return [as_torch(one) for one in (images if isinstance(images, list) else [images])]


def as_torch(images: np.ndarray) -> torch.Tensor:
    """Channels-last images as PyTorch has them; in its memory too, where views of its own reach only so far. Whole
    numbers as they are.
    """
    if images.dtype.kind != "f":
        return torch.from_numpy(images)
    return torch.from_numpy(images).permute(channels_last(images.ndim)).contiguous()


def first_divergence(module: torch.nn.Module, example: Example, ops: OpTable = OPS) -> Divergence | None:
    """Translate again and compare node by node, in the order of computation, on two images."""
    traced = trace(module, example)
    translation, values = build(traced, ops)
    images = probes_of(translation.model, example, count=2)
    tensors = {name: value.in_order().tensor for name, value in values.items()}
    comparison = _Comparison(traced, every_value(translation.model, tensors, images))
    with torch.no_grad():
        comparison.run(*comparison.inputs(_every_input(images)))
    return comparison.found


class _Comparison(torch.fx.Interpreter):
    """Runs the original's graph and looks at each value while it is fresh: later nodes may write into it."""

    def __init__(self, traced: Graph, translated: Mapping[str, np.ndarray]) -> None:
        """translated: Keras' value of each node, by name."""
        super().__init__(traced.graph.owning_module)
        self.stored, self.translated = traced.stored, translated
        self.found: Divergence | None = None
        self.count = 0

    def inputs(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What the graph's placeholders stand for, in order."""
        self.count, given = len(images[0]), iter(images)
        places = [node for node in self.module.graph.nodes if node.op == "placeholder"]
        return [torch.from_numpy(self.stored[node].array) if node in self.stored else next(given) for node in places]

    def fetch_args_kwargs_from_env(self, node: torch.fx.Node) -> tuple[tuple, dict]:
        """A node's arguments; sizes that are multiples of BATCH (fx_batches.py) become those of these images."""
        arguments, options = super().fetch_args_kwargs_from_env(node)
        return _sized(arguments, self.count), _sized(options, self.count)

    def run_node(self, node: torch.fx.Node) -> Any:
        """The node's value; the first that differs is kept in `found`."""
        value = super().run_node(node)
        if self.found is None and node.name in self.translated:
            self.found = self._compared(node, value)
        return value

    def _compared(self, node: torch.fx.Node, value: torch.Tensor) -> Divergence | None:
        error = deviation(value.detach().numpy(), self.translated[node.name])
        return Divergence(node.name, op_name(node), module_path(node), error) if error > MAX_REL else None


def _sized(value: Any, count: int) -> Any:
    """A value, and what it holds, with `count` for the batch."""
    if isinstance(value, list | tuple):
        return type(value)(_sized(one, count) for one in value)
    if isinstance(value, dict):
        return {key: _sized(one, count) for key, one in value.items()}
    return value // BATCH * count if type(value) is int and is_batch(value) else value
