"""The gate: a translated module is run beside its original, and the first operation that goes its own way is named."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multitl.contracts import Parity, Preprocess, Translation
from multitl.translation.op_tables import OpTable
from multitl.translation.parity import (
    MAX_REL,
    NOWHERE,
    PROBES,
    batches,
    compare,
    deviation,
    every_value,
    insist,
    is_close,
    probe_images,
    run,
)
from multitl_tensorflow.graphdef import OPS, Translatable, build
from multitl_tensorflow.running import run_graph


@dataclass(frozen=True)
class Divergence:
    """The first node whose value is not the original's."""

    node: str
    op: str
    max_rel: float

    def __str__(self) -> str:
        return f"first seen at {self.node} (op {self.op}), error {self.max_rel:.1e}"


def verify(
    prepared: Translatable, translation: Translation, preprocess: Preprocess, ops: OpTable = OPS, count: int = PROBES
) -> Parity:
    """Compare a module in evaluation with its translation on `count` images.

    preprocess: what the module takes for an image.  ops: the table that it was translated with. Raises TranslationError
    that names the first operation that diverges.
    """
    images = probes(prepared, preprocess, count)
    parity = compare(outputs(prepared, images), run(translation.model, images))
    if is_close(parity):
        return parity
    found = first_divergence(prepared, images[:2], ops)
    return insist(parity, prepared.graph.what, str(found or NOWHERE))


def probes(prepared: Translatable, preprocess: Preprocess, count: int = PROBES) -> np.ndarray:
    """Images as the module takes them: with the mean and deviation of photos, in [0, 1] or [0, 255]."""
    images = probe_images(prepared.image_shape, count)
    return (images * 48 + 128) * np.float32(preprocess.scale[0])


def outputs(prepared: Translatable, images: np.ndarray) -> np.ndarray:
    """The original's, (n, ...)."""
    output = prepared.graph.output
    fetch = f"{output.node}:{output.output}" if output.output else output.node
    return np.concatenate([run_graph(prepared.graph, batch, [fetch])[0] for batch in batches(images)])


def first_divergence(prepared: Translatable, images: np.ndarray, ops: OpTable = OPS) -> Divergence | None:
    """Translate again and compare node by node, in the order of computation."""
    translation, values = build(prepared, ops)
    values = {name: value for name, value in values.items() if name in prepared.graph.nodes}
    tensors = {name: value.in_order().tensor for name, value in values.items()}
    translated = every_value(translation.model, tensors, images)
    for name, value in zip(values, run_graph(prepared.graph, images, list(values)), strict=True):
        error = deviation(value, translated[name])
        if error > MAX_REL:
            return Divergence(name, prepared.graph.nodes[name].op, error)
    return None
