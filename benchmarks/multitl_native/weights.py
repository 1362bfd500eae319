"""What all native loops share: one weights file, one new head, one normalisation; NumPy only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels / 255: how torchvision's networks want them
NETWORKS = {  # torchvision's name -> channels of what the classifier gets
    "resnet18": 512,
    "resnet50": 2048,
    "mobilenet_v2": 1280,
    "efficientnet_b0": 1280,
    "vit_b_32": 768,
}
MOMENTUM = 0.9
BETAS, EPSILON = (0.9, 0.999), 1e-7  # Adam's, as in Keras
STATISTICS = ("running_mean", "running_var")


def network_name(backbone: str) -> str:
    """ "torchvision/resnet50" -> "resnet50". Raises LookupError for a network that has no native loop."""
    source, _, name = backbone.partition("/")
    if source != "torchvision" or name.partition(":")[0] not in NETWORKS:
        raise LookupError(f"native loops know {', '.join(NETWORKS)} of torchvision only")
    return name.partition(":")[0]


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """A .safetensors file as it is: PyTorch's names and layouts."""
    return load_file(path)


def channels_last(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Kernels (out, in, height, width) -> (height, width, in, out), and matrices (out, in) -> (in, out)."""
    axes = {2: (1, 0), 4: (2, 3, 1, 0)}
    return {
        name: np.ascontiguousarray(array.transpose(axes[array.ndim])) if array.ndim in axes else array
        for name, array in tensors.items()
    }


def new_head(channels: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A dense layer's kernel (channels, classes), Glorot uniform as multitl draws it, and its bias of zeros."""
    limit = np.sqrt(6 / (channels + classes))
    kernel = np.random.default_rng(seed).uniform(-limit, limit, (channels, classes))
    return kernel.astype("float32"), np.zeros(classes, "float32")
