"""Networks of torchvision and timm, and anybody's modules, opened to be translated: satisfies
`contracts.Translator`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import torch

from multitl.contracts import Job, Parity, Preprocess, Translation
from multitl.errors import TranslationError
from multitl.models.insides import nodes_of, producer_of
from multitl.version import installed_versions
from multitl_torch import fx, positions, timm, torchvision, verifying
from multitl_torch.fx_graphs import Example, each_input
from multitl_torch.plain_modules import plain


@dataclass(frozen=True)
class TorchOriginal:
    """A module that classifies images: satisfies `contracts.Original`."""

    module: torch.nn.Module
    preprocess: Preprocess
    class_names: tuple[str, ...]
    licence: str
    url: str
    missing_classifier: tuple[str, ...] = ()

    @property
    def image_size(self) -> int:
        return self.preprocess.height

    @functools.cached_property
    def example(self) -> torch.Tensor:
        return torch.zeros(1, 3, self.preprocess.height, self.preprocess.width)

    def translate(self) -> Translation:
        """See `fx.translate`."""
        return fx.translate(self.module, self.example)

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Weights by the names of the module's state_dict."""
        self.module.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()}, strict=False)

    def resampled(self, name: str, array: np.ndarray) -> np.ndarray | None:
        """See `positions.resampled`."""
        return positions.resampled(self.module, name, array)

    def verify(self, translation: Translation) -> Parity:
        """See `verifying.verify`."""
        return verifying.verify(self.module, translation, self.example)


def open_original(job: Job, classes: int) -> TorchOriginal:
    """See `contracts.Translator`."""
    opened = {"torchvision": torchvision, "timm": timm}[job.source].open_network(job, classes)
    return TorchOriginal(*opened)


def open_class(job: Job, classes: int) -> tuple[torch.nn.Module, str, dict[str, Any]]:
    """The network that a job's state_dict loads into with strict=True, of that many classes; the name and the options
    that its package makes it by. Raises BackboneError for a name that the package does not have.
    """
    return {"torchvision": torchvision, "timm": timm}[job.source].open_class(job, classes)


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    return installed_versions(("torch", "torchvision", "timm"))


def translate_module(module: torch.nn.Module, example: Example) -> Translation:
    """Anybody's module, translated and compared; its feature maps come out channels last. Raises TranslationError as
    `fx.translate` and `verifying.verify` do.
    """
    _check(module, example)
    module = plain(module)
    examples = [one.cpu().float() if one.is_floating_point() else one.cpu() for one in each_input(example)]
    translation = fx.translate(module, examples)
    verifying.verify(module, translation, examples)
    return replace(translation, model=with_maps_last(translation.model))


def with_maps_last(model: keras.Model) -> keras.Model:
    """The model without the transposes at its end that bring feature maps to PyTorch's order of axes.

    Only what Keras computes channels last has one; what the module itself has arranged stays as it is.
    """
    outputs = [_before_transpose(tensor) for tensor in model.outputs]
    return keras.Model(model.input, outputs[0] if len(outputs) == 1 else outputs, name=model.name)


def _before_transpose(tensor: keras.KerasTensor) -> keras.KerasTensor:
    operation = producer_of(tensor)
    to_second = [0, len(tensor.shape) - 1, *range(1, len(tensor.shape) - 1)]
    if type(operation).__name__ == "Transpose" and list(operation.axes or ()) == to_second:
        (call,) = nodes_of(operation)
        return call.input_tensors[0]
    return tensor


def _check(module: object, example: object) -> None:
    """What a user gave may be anything."""
    examples = example if isinstance(example, tuple | list) else [example]
    if isinstance(module, torch.nn.Module) and examples and all(map(_is_input, examples)):
        return
    received = [type(module).__name__, *(_described(one) for one in examples)]
    raise TranslationError(
        "from_torch takes a module and an example of its input.",
        expected="a torch.nn.Module, and a float tensor (batch, channels, height, width), or a tuple of an example for "
        "each input, where tensors of int64 may be what an nn.Embedding reads",
        received=", ".join(received),
        fix="multitl.from_torch(module, torch.zeros(1, 3, 224, 224))",
    )


def _is_input(example: object) -> bool:
    if not isinstance(example, torch.Tensor) or not example.ndim or not len(example):
        return False
    return example.ndim > 1 if example.is_floating_point() else example.dtype in (torch.int32, torch.int64)


def _described(example: object) -> str:
    kind = type(example).__name__
    return f"{kind} of {example.dtype} {tuple(example.shape)}" if isinstance(example, torch.Tensor) else kind
