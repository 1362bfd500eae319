"""torchvision's networks, once for JAX and once for TensorFlow: a `Pass` brings the framework's operations.

Images are (batch, height, width, 3). Parts are called by their names in torchvision's state_dict, which holds the
weights. Every function returns what the network's classifier gets: (batch, channels).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Tensor = Any


class Pass(Protocol):
    """One run through a network: the operations, on weights that are known by PyTorch's names."""

    def has(self, name: str) -> bool: ...
    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor: ...
    def depthwise(self, x: Tensor, name: str, stride: int = 1) -> Tensor: ...
    def norm(self, x: Tensor, name: str) -> Tensor: ...
    def layer_norm(self, x: Tensor, name: str) -> Tensor: ...
    def dense(self, x: Tensor, name: str) -> Tensor: ...
    def relu(self, x: Tensor) -> Tensor: ...
    def relu6(self, x: Tensor) -> Tensor: ...
    def silu(self, x: Tensor) -> Tensor: ...
    def sigmoid(self, x: Tensor) -> Tensor: ...
    def gelu(self, x: Tensor) -> Tensor: ...
    def max_pool(self, x: Tensor) -> Tensor: ...
    def mean(self, x: Tensor, *, keep: bool = False) -> Tensor: ...
    def patches(self, x: Tensor, name: str) -> Tensor: ...
    def attention(self, x: Tensor, name: str, heads: int) -> Tensor: ...


def resnet(p: Pass, x: Tensor) -> Tensor:
    """ResNet-18 to -152 in torchvision's version 1.5, whose stride sits on the 3 x 3 convolution."""
    x = p.max_pool(p.relu(p.norm(p.conv(x, "conv1", 2), "bn1")))
    for stage in (1, 2, 3, 4):
        block = 0
        while p.has(f"layer{stage}.{block}.conv1.weight"):
            x = _residual(p, x, f"layer{stage}.{block}", stride=2 if stage > 1 and block == 0 else 1)
            block += 1
    return p.mean(x)


def _residual(p: Pass, x: Tensor, name: str, stride: int) -> Tensor:
    is_bottleneck = p.has(f"{name}.conv3.weight")
    strides = (1, stride, 1) if is_bottleneck else (stride, 1)
    y = x
    for i, step in enumerate(strides, start=1):
        y = p.norm(p.conv(y, f"{name}.conv{i}", step), f"{name}.bn{i}")
        y = p.relu(y) if i < len(strides) else y
    if p.has(f"{name}.downsample.0.weight"):
        x = p.norm(p.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
    return p.relu(x + y)


def mobilenet_v2(p: Pass, x: Tensor) -> Tensor:
    """Blocks by (repeats, stride of the first)."""
    x = p.relu6(p.norm(p.conv(x, "features.0.0", 2), "features.0.1"))
    number = 1
    for repeats, first in ((1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)):
        for i in range(repeats):
            x = _inverted(p, x, f"features.{number}.conv", first if i == 0 else 1)
            number += 1
    return p.mean(p.relu6(p.norm(p.conv(x, "features.18.0"), "features.18.1")))


def _inverted(p: Pass, x: Tensor, name: str, stride: int) -> Tensor:
    part, y = 0, x
    if p.has(f"{name}.3.weight"):
        y, part = p.relu6(p.norm(p.conv(y, f"{name}.0.0"), f"{name}.0.1")), 1
    y = p.relu6(p.norm(p.depthwise(y, f"{name}.{part}.0", stride), f"{name}.{part}.1"))
    y = p.norm(p.conv(y, f"{name}.{part + 1}"), f"{name}.{part + 2}")
    return x + y if stride == 1 and x.shape[-1] == y.shape[-1] else y


def efficientnet_b0(p: Pass, x: Tensor) -> Tensor:
    """Stages by (repeats, stride of the first); stochastic depth is off."""
    x = p.silu(p.norm(p.conv(x, "features.0.0", 2), "features.0.1"))
    for stage, (repeats, first) in enumerate(((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)), start=1):
        for i in range(repeats):
            x = _squeezed(p, x, f"features.{stage}.{i}.block", first if i == 0 else 1)
    return p.mean(p.silu(p.norm(p.conv(x, "features.8.0"), "features.8.1")))


def _squeezed(p: Pass, x: Tensor, name: str, stride: int) -> Tensor:
    part, y = 0, x
    if p.has(f"{name}.3.0.weight"):
        y, part = p.silu(p.norm(p.conv(y, f"{name}.0.0"), f"{name}.0.1")), 1
    y = p.silu(p.norm(p.depthwise(y, f"{name}.{part}.0", stride), f"{name}.{part}.1"))
    gate = p.silu(p.conv(p.mean(y, keep=True), f"{name}.{part + 1}.fc1"))
    y = y * p.sigmoid(p.conv(gate, f"{name}.{part + 1}.fc2"))
    y = p.norm(p.conv(y, f"{name}.{part + 2}.0"), f"{name}.{part + 2}.1")
    return x + y if stride == 1 and x.shape[-1] == y.shape[-1] else y


def vit_b_32(p: Pass, x: Tensor) -> Tensor:
    """Twelve layers of twelve heads on patches of 32 x 32 pixels; the class token goes to the classifier."""
    x = p.patches(x, "conv_proj")
    for i in range(12):
        name = f"encoder.layers.encoder_layer_{i}"
        x = x + p.attention(p.layer_norm(x, f"{name}.ln_1"), f"{name}.self_attention", heads=12)
        y = p.gelu(p.dense(p.layer_norm(x, f"{name}.ln_2"), f"{name}.mlp.0"))
        x = x + p.dense(y, f"{name}.mlp.3")
    return p.layer_norm(x, "encoder.ln")[:, 0]


ARCHITECTURES: dict[str, Callable[[Pass, Tensor], Tensor]] = {
    "resnet18": resnet,
    "resnet50": resnet,
    "mobilenet_v2": mobilenet_v2,
    "efficientnet_b0": efficientnet_b0,
    "vit_b_32": vit_b_32,
}
