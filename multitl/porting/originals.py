"""The way back: a classifier's weights under the names of the network that it came from.

The backbone's tensors go back bit by bit, as the card says. The new head takes the place of the original's last layer,
which it equals: the mean over positions, a constant factor and a dense layer are one matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from multitl.contracts import RGB, TranslatedWeight
from multitl.errors import PortError
from multitl.models.heads import backbone_of
from multitl.runs.cards import Card
from multitl.translation.filling import extract

SOURCES = ("torchvision", "timm")  # whose networks have a class that loads a state_dict
OTHERWISE = "choose a format that takes any model, such as --to torch-export or --to onnx"


def original_tensors(model: keras.Model, card: Card) -> dict[str, np.ndarray]:
    """The state_dict of a saved model's network, by the original's names, without constants that its graph never reads.

    card: of the run or the translated network.  Raises PortError where the original's class has no place for something:
    a network of another source, a head of more than a linear layer, pooling by maximum, a classifier of several layers.
    """
    about = card.backbone
    if about.name.partition("/")[0] not in SOURCES:
        raise _no_place(f"{about.name} does not come from a class of PyTorch", f"a network of {' or '.join(SOURCES)}")
    if (count := about.preprocess.channels) != RGB:
        raise _no_place(f"its first layer reads {count} channels, the original's red, green and blue", "three channels")
    tensors = extract(backbone_of(model), about.tensors)
    if card.head == "keep":
        return tensors
    if about.classifier is None:
        raise PortError(
            "The run was made by an older multitl, which did not write down how the classifier is called.",
            expected="card.json with backbone.classifier",
            received="none",
            fix="run multitl finetune again with --overwrite; stored features are kept",
        )
    return tensors | _classifier(about.classifier, *_as_one_layer(model, card))


def _as_one_layer(model: keras.Model, card: Card) -> tuple[np.ndarray, np.ndarray]:
    """The head as kernel (channels, classes) and bias (classes,) float32."""
    backbone = backbone_of(model)
    behind = model.layers[model.layers.index(backbone) + 1 :]
    head = next((layer for layer in behind if isinstance(layer, keras.Model)), None)
    if head is None:
        raise _no_place("the model has no classifier", "a classifier")
    if card.recipe.pooling != "avg" and backbone.output_shape[1:3] != (1, 1):
        raise _no_place(f"the head pools by {card.recipe.pooling}", "pooling by avg")
    if any(isinstance(layer, keras.layers.UnitNormalization) for layer in head.layers):
        raise _no_place("the head brings features to length 1", "one layer")
    dense = [layer for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    if len(dense) != 1:
        raise _no_place("the head has a hidden layer", "one layer")
    scale = head.get_layer("feature_scale").scale
    kernel, bias = (keras.ops.convert_to_numpy(one.value) for one in (dense[0].kernel, dense[0].bias))
    return (kernel.astype("float64") * scale).astype("float32"), bias


def _classifier(places: Sequence[TranslatedWeight], kernel: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """Kernel and bias under the original's names, in its shapes: (classes, channels), or with two more axes of 1."""
    kernels = [place for place in places if len(place.shape) > 1]
    biases = [place for place in places if len(place.shape) == 1]
    if not places:
        raise _no_place("the original has no classifier", "a network that was trained to classify")
    if len(kernels) != 1 or len(biases) != 1:
        raise _no_place(
            f"the original ends with {len(kernels)} layers side by side and {len(biases)} biases", "one layer with bias"
        )
    (weight,) = kernels
    shape = (kernel.shape[1], *weight.shape[1:])
    if int(np.prod(shape)) != kernel.size:
        raise _no_place(f"the original's last layer takes {weight.shape[1]} channels", f"{kernel.shape[0]}")
    return {weight.name: np.ascontiguousarray(kernel.T).reshape(shape), biases[0].name: bias}


def _no_place(problem: str, expected: str) -> PortError:
    return PortError(
        f"The model cannot be written as the state_dict of its original class: {problem}.",
        expected=expected,
        received=problem,
        fix=OTHERWISE,
    )
