"""Networks of torchvision and timm, and anybody's modules, opened to be translated: satisfies
`contracts.Translator`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from multitl.contracts import Job, Parity, Preprocess, Translation
from multitl.errors import TranslationError
from multitl.version import installed_versions
from multitl_torch import fx, timm, torchvision, verifying


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


def translate_module(module: torch.nn.Module, example: torch.Tensor) -> Translation:
    """Anybody's module, translated and compared. Raises TranslationError as `fx.translate` and `verifying.verify`
    do.
    """
    _check(module, example)
    module, example = on_cpu(module), example.cpu()
    translation = fx.translate(module, example)
    verifying.verify(module, translation, example)
    return translation


def on_cpu(module: torch.nn.Module) -> torch.nn.Module:
    """The module itself, or a copy if some of it lies on a GPU: the original shall compute in full precision."""
    tensors = [*module.parameters(), *module.buffers()]
    return module if all(tensor.device.type == "cpu" for tensor in tensors) else copy.deepcopy(module).cpu()


def _check(module: object, example: object) -> None:
    """What a user gave may be anything."""
    is_module = isinstance(module, torch.nn.Module)
    is_batch = isinstance(example, torch.Tensor) and example.ndim > 1 and example.is_floating_point() and len(example)
    if is_module and is_batch:
        return
    received = f"{type(module).__name__}, {type(example).__name__}"
    if isinstance(example, torch.Tensor):
        received += f" of {example.dtype} {tuple(example.shape)}"
    raise TranslationError(
        "from_torch takes a module and an example of its input.",
        expected="a torch.nn.Module, and a float tensor (batch, channels, height, width)",
        received=received,
        fix="multitl.from_torch(module, torch.zeros(1, 3, 224, 224))",
    )
