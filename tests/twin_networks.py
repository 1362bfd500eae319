"""A small network in PyTorch and in Keras, and its state_dict in any wrapping: for tests of weight files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors.torch
import torch
from torch import nn

from multitl.contracts import TranslatedWeight
from multitl.files.state_dict_files import StateDict, read_state_dict
from multitl.translation.state_dicts import fit

CLASSES = 6
CLASSIFIER = ("head.1.weight", "head.1.bias")
UNUSED = ("norm.num_batches_tracked", "aux.weight")
VECTOR = {"split": (6,), "axes": (0,)}
WEIGHTS = (
    TranslatedWeight("conv.weight", (6, 3, 3, 3), "conv", "kernel", (6, 3, 3, 3), (2, 3, 1, 0)),
    TranslatedWeight("norm.weight", (6,), "norm", "gamma", **VECTOR),
    TranslatedWeight("norm.bias", (6,), "norm", "beta", **VECTOR),
    TranslatedWeight("norm.running_mean", (6,), "norm", "moving_mean", **VECTOR),
    TranslatedWeight("norm.running_var", (6,), "norm", "moving_variance", **VECTOR),
    TranslatedWeight("model.depth.weight", (12, 1, 3, 3), "depth", "kernel", (6, 2, 3, 3), (2, 3, 0, 1)),
    TranslatedWeight("head.1.weight", (6, 12), "head", "kernel", (6, 12), (1, 0)),
    TranslatedWeight("head.1.bias", (6,), "head", "bias", **VECTOR),
)
BODY = tuple(weight for weight in WEIGHTS if weight.name not in CLASSIFIER)


class Network(nn.Module):
    """Names that make prefixes difficult: a part is called "model"; and an auxiliary head that is not used."""

    def __init__(self, seed: int = 0, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6, eps=1e-3)
        self.model = nn.Sequential()
        self.model.depth = nn.Conv2d(6, 12, 3, groups=6, bias=False)
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(12, classes))
        self.aux = nn.Linear(6, 2, bias=False)
        random = torch.Generator().manual_seed(seed)
        for tensor in self.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.1)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.model(self.norm(self.conv(x)).relu()).mean((2, 3)))


def twin() -> keras.Model:
    """`Network` in Keras, zeros for weights, its body a nested model."""
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    stem = layers.BatchNormalization(epsilon=1e-3, name="norm")
    body = keras.Sequential([layers.Conv2D(6, 3, use_bias=False, name="conv"), stem, layers.ReLU()], name="body")
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, name="depth")(body(image))
    model = keras.Model(image, layers.Dense(CLASSES, name="head")(layers.GlobalAveragePooling2D()(x)), name="twin")
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    return model


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def prefixed(prefix: str, module: nn.Module) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def write(path: Path, value: Any) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(value, path)
    else:
        torch.save(value, path)
    return path


def read_fitting(path: Path, **names: Any) -> StateDict:
    return fit(read_state_dict(path), WEIGHTS, unused=UNUSED, **names)


def made(**tensors: np.ndarray) -> StateDict:
    """The network's own tensors with changes; None takes one away. Keywords have "__" for a dot."""
    changed = {**arrays(Network()), **{name.replace("__", "."): array for name, array in tensors.items()}}
    return StateDict({name: array for name, array in changed.items() if array is not None}, Path("made.pth"))


def assert_equal(found: Mapping[str, np.ndarray], module: nn.Module, names: set[str] | None = None) -> None:
    expected = arrays(module)
    assert set(found) == ({weight.name for weight in WEIGHTS} if names is None else names)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], strict=True)
