"""A backbone for images of another number of channels than three: the first layer is made for so many.

As timm does it (adapt_input_conv in timm/models/_manipulate.py): channel c reads what the kernel has for red, green and
blue in turn, times 3 / channels, so that what comes out is of the size that the next layer knows. A single channel
reads the sum of the three, which is what a grey picture in RGB gives. Pixel values are scaled likewise in turn; of a
single channel by the mean of the three, which are often equal.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers

from multitl.contracts import RGB, Decoding, Preprocess, Pretrained
from multitl.errors import BackboneError
from multitl.models.initialisers import numpy_initialisers
from multitl.models.insides import calls_in

# what may lie between the image and the first kernel: channels stay what they are
PASSING = (layers.ZeroPadding2D, layers.Cropping2D, layers.Rescaling, layers.Normalization, layers.Identity)
PASSING_OPERATIONS = ("Pad", "Cast", "Identity")


def with_channels(pretrained: Pretrained, decoding: Decoding) -> Pretrained:
    """The backbone for images that are decoded so; it is another one where they have another number of channels.

    Raises BackboneError where it was made for others than RGB, or anything but one convolution reads the image.
    """
    count, own = decoding.count, pretrained.preprocess.channels
    if count == own:
        return replace(pretrained, preprocess=replace(pretrained.preprocess, decoding=decoding))
    if own != RGB:
        raise BackboneError(
            f"{pretrained.name} takes images of {own} channels.",
            expected=f"{own} channels, as it was trained on",
            received=f"{count} channels",
            fix="--channels " + ",".join(map(str, range(1, own + 1))) + ", or a backbone that is made for RGB",
        )
    places = np.arange(RGB)[:: -1 if pretrained.preprocess.channel_order == "bgr" else 1]
    model, adapted = _rebuilt(pretrained, count, places)
    preprocess = _preprocess(pretrained.preprocess, count, places, decoding)
    return replace(pretrained, backbone=model, preprocess=preprocess, adapted=adapted)


def warn_of_mean(pretrained: Pretrained, trained: Collection[str]) -> list[str]:
    """What is to be known of a first layer that was made for other channels. trained: names of layers that train."""
    if not pretrained.adapted:
        return []
    count = pretrained.preprocess.channels
    what = "one channel here its kernel is the sum" if count == 1 else f"{count} channels here its kernel is a mean"
    line = (
        f"{pretrained.adapted}, the first layer of {pretrained.name}, read red, green and blue; for the {what} of these"
    )
    is_trained = pretrained.adapted in trained
    return [line + (", which is trained." if is_trained else ", and stays so: --unfreeze all trains it.")]


def in_turn(values: np.ndarray, count: int) -> np.ndarray:
    """Values of red, green and blue (..., 3) for so many channels (..., count); for a single one their mean."""
    return values.mean(axis=-1, keepdims=True) if count == 1 else values[..., np.arange(count) % RGB]


def kernel_for(kernel: np.ndarray, count: int) -> np.ndarray:
    """A kernel (height, width, 3, filters) that reads red, green and blue as one (height, width, count, filters)."""
    return np.moveaxis(in_turn(np.moveaxis(kernel, 2, -1), count), -1, 2) * np.float32(RGB / count)


def _preprocess(preprocess: Preprocess, count: int, places: np.ndarray, decoding: Decoding) -> Preprocess:
    scale, offset = (in_turn(np.array(one)[places], count) for one in (preprocess.scale, preprocess.offset))
    fill = np.rint(in_turn(np.array(preprocess.fill, float), count)).astype(int)
    return replace(
        preprocess, channel_order="rgb", scale=tuple(scale.tolist()), offset=tuple(offset.tolist()),
        fill=tuple(fill.tolist()), decoding=decoding,
    )  # fmt: skip


def _rebuilt(pretrained: Pretrained, count: int, places: np.ndarray) -> tuple[keras.Model, str]:
    """The network with another input, all other weights as they are, and the name of the layer that reads it.

    places: of red, green and blue among the channels that the network takes.
    """
    model = pretrained.backbone
    first, between = _way_in(pretrained)
    changed = {layer.name for layer in between}

    def clone(layer: keras.Operation) -> keras.Operation:
        config = layer.get_config()
        if layer.name in changed and isinstance(layer, layers.Rescaling):
            config |= {name: _value_for(getattr(layer, name), count, places) for name in ("scale", "offset")}
        return type(layer).from_config(config)

    image = keras.Input((*model.input_shape[1:3], count), dtype=model.inputs[0].dtype, name=model.inputs[0].name)
    given = image if isinstance(model.input, keras.KerasTensor) else [image]
    with numpy_initialisers(seed=None):
        made = keras.models.clone_model(model, input_tensors=given, clone_function=clone)
    for layer in (one for one in made.layers if one.weights):
        weights = model.get_layer(layer.name).get_weights()
        if layer.name == first.name:
            weights[0] = kernel_for(weights[0][:, :, places], count)
        elif layer.name in changed:
            weights = _statistics_for(weights, count, places)
        layer.set_weights(weights)
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    return made, first.name


def _way_in(pretrained: Pretrained) -> tuple[layers.Conv2D, list[layers.Layer]]:
    """The convolution that reads the image, and the layers before it. Raises BackboneError."""
    model = pretrained.backbone
    reached, between, readers = {id(tensor) for tensor in model.inputs}, list[layers.Layer](), list[keras.Operation]()
    for call in calls_in(model):
        if not any(id(tensor) in reached for tensor in call.input_tensors):
            continue
        if _passes(call):
            reached |= {id(tensor) for tensor in call.outputs}
            between += [call.operation] if isinstance(call.operation, layers.Layer) else []
        else:
            readers.append(call.operation)
    if len(readers) == 1 and isinstance(readers[0], layers.Conv2D) and readers[0].groups == 1:
        return readers[0], between
    told = ", ".join(f"{type(one).__name__} {one.name}" for one in readers[:4]) or "nothing"
    raise BackboneError(
        f"The first layer of {pretrained.name} cannot be made for other channels than red, green and blue.",
        expected="one convolution that reads the image",
        received=told,
        fix="pick three channels, such as --channels 4,3,2, or choose another backbone",
    )


def _passes(call: Any) -> bool:
    operation, tensors = call.operation, (*call.input_tensors, *call.outputs)
    if len(tensors) != 2 or tensors[0].shape[-1] != tensors[1].shape[-1]:
        return False
    if isinstance(operation, layers.Normalization) and tuple(operation.axis) not in ((-1,), (3,)):
        return False
    return isinstance(operation, PASSING) or type(operation).__name__ in PASSING_OPERATIONS


def _value_for(value: Any, count: int, places: np.ndarray) -> Any:
    """A factor or offset of a layer: one number for all channels, or one for each."""
    values = np.asarray(value, float)
    return value if values.ndim == 0 else in_turn(values.reshape(RGB)[places], count).tolist()


def _statistics_for(weights: list[np.ndarray], count: int, places: np.ndarray) -> list[np.ndarray]:
    """Mean and variance of a Normalization, which is y = scale * x + offset in other words."""
    mean, variance, *rest = weights
    scale = 1 / np.sqrt(variance[places])
    offset = in_turn(-mean[places] * scale, count)
    scale = in_turn(scale, count)
    return [-offset / scale, scale**-2, *rest]
