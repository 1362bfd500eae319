"""The frozen pass: from pixels to pooled features, by the fastest way there is on this device.

On a CPU, where JAX and PyTorch are slow, that is onnxruntime, if it is installed (`pip install 'multitl[onnx]'`): the
network is written as ONNX, and the first batch is computed by the backend as well. Unless both give the same, the
backend does all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from typing import Any

import keras
import numpy as np

from multitl.adapters import is_present
from multitl.contracts import Backend, Forward, Pretrained
from multitl.models.folding import fold_batch_norm
from multitl.models.heads import build_extractor
from multitl.models.inference import compile_forward
from multitl.recipes import Recipe
from multitl.system.messages import say

PACKAGES = ("onnx", "onnxruntime")
FLOAT32 = ("auto", "float32", "tf32")  # values of the option precision, on a CPU
TOLERANCE = 1e-4  # of the largest feature
MOST_PARAMETERS = 400_000_000  # of a graph without files beside it: 2 GB


def runtime_of(backend: Backend, recipe: Recipe) -> str:
    """What computes features: "onnxruntime 1.22.0", or the backend's name."""
    if (
        not backend.is_slow_on_cpu
        or backend.devices() != ["CPU"]
        or recipe.precision not in FLOAT32
        or not all(map(is_present, PACKAGES))
    ):
        return backend.name
    return f"onnxruntime {metadata.version('onnxruntime')}"


def make_extractor(pretrained: Pretrained, pooling: str, runtime: str) -> Forward:
    """uint8 pixels (n, height, width, 3) -> pooled features (n, channels). runtime: as `runtime_of` says."""
    model = fast_extractor(pretrained, pooling)
    own = compile_forward(model)
    if not runtime.startswith("onnxruntime") or model.count_params() > MOST_PARAMETERS:
        return own
    try:
        return Proved(own, open_session(model))
    except Exception as error:  # an operation that is not written; a release of onnxruntime that takes no such graph
        _say_why_not(error)
        return own


def fast_extractor(pretrained: Pretrained, pooling: str) -> keras.Model:
    """As `heads.build_extractor`, for inference alone: weights are copied, batch normalisation is folded."""
    return build_extractor(replace(pretrained, backbone=fold_batch_norm(pretrained.backbone)), pooling)


def open_session(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """A model as onnxruntime computes it on all cores. Raises TranslationError for what cannot be written as ONNX."""
    from multitl.onnx_graphs.running import run_onnx
    from multitl.onnx_graphs.writing import onnx_model

    # without spinning threads: images are decoded meanwhile
    return run_onnx(onnx_model(model, ["features"]).SerializeToString(), spins=False)


class Proved:
    """A faster way, if it gives on the first batch what the backend gives."""

    def __init__(self, own: Forward, other: Callable[[np.ndarray], np.ndarray]) -> None:
        self._ways: tuple[Forward, ...] = (own, other)
        self._chosen = own

    def __call__(self, pixels: np.ndarray) -> Any:
        if not self._ways:
            return self._chosen(pixels)
        (own, other), self._ways = self._ways, ()  # the one that is not chosen goes, with its memory
        expected = keras.ops.convert_to_numpy(own(pixels))
        try:
            given = other(pixels)
        except Exception as error:
            _say_why_not(error)
            return expected
        difference = float(np.abs(given - expected).max())
        if difference <= TOLERANCE * float(np.abs(expected).max()):  # not where one is no number
            self._chosen = other
            return given  # as in all other batches: which one is the first depends on what is stored already
        _say_why_not(f"onnxruntime's differ by {difference:.2g}")
        return expected


def _say_why_not(reason: object) -> None:
    line = str(getattr(reason, "problem", reason)).partition("\n")[0]
    say(f"features are computed by Keras: {line}")
