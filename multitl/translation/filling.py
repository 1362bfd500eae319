"""The weights of a translated network: from the original's tensors into the Keras model, and back, bit by bit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from multitl.contracts import TranslatedWeight
from multitl.errors import WeightsError
from multitl.files.state_dict_files import some
from multitl.models.freezing import leaf_layers
from multitl.translation.layouts import to_keras, to_original


def fill(model: keras.Model, weights: Sequence[TranslatedWeight], tensors: Mapping[str, np.ndarray]) -> None:
    """Set the variable of every weight to the original's tensor of its name, all of them or none.

    Raises WeightsError if one has no tensor of its shape or no variable of its size in the model.
    """
    variables = _variables(model, weights)
    wrong = [w.name for w in weights if w.name not in tensors or tensors[w.name].shape != w.shape]
    if wrong:
        raise WeightsError(
            f"{len(wrong)} of {len(weights)} tensors for {model.name} are missing or of another shape.",
            expected=f"a tensor of the original's shape for each of its {len(weights)} weights",
            received=some(wrong),
            fix="give weights and tensors of the same network",
        )
    for weight, variable in zip(weights, variables, strict=True):
        variable.assign(to_keras(tensors[weight.name], weight, variable.shape))


def extract(model: keras.Model, weights: Sequence[TranslatedWeight]) -> dict[str, np.ndarray]:
    """The inverse of `fill`, bit by bit: the model's weights as tensors of the original, by name. Copies.

    Raises WeightsError if a weight has no variable of its size in the model, or two of different values.
    """
    tensors: dict[str, np.ndarray] = {}
    for weight, variable in zip(weights, _variables(model, weights), strict=True):
        array = np.array(to_original(keras.ops.convert_to_numpy(variable.value), weight))
        if weight.name in tensors and not np.array_equal(tensors[weight.name], array):
            raise WeightsError(
                f"{weight.name} is one tensor in the original, and its copies in {model.name} have come to differ.",
                expected="equal values",
                received=f"{weight.layer}/{weight.variable} differs",
                fix="freeze the layers that share this weight",
            )
        tensors[weight.name] = array
    return tensors


def is_all_weights(model: keras.Model, weights: Sequence[TranslatedWeight]) -> bool:
    """Whether every variable is a weight of the original: others hold what was computed from weights, such as positions
    of another size, and would stay what they are where the weights are changed."""
    named = {(weight.layer, weight.variable) for weight in weights}
    return all((layer.name, variable.name) in named for layer in leaf_layers(model) for variable in layer.weights)


def _variables(model: keras.Model, weights: Sequence[TranslatedWeight]) -> list[keras.Variable]:
    """The variable of each weight."""
    places: dict[tuple[str, str], list[keras.Variable]] = defaultdict(list)
    for layer in dict.fromkeys(leaf_layers(model)):
        for variable in layer.weights:
            places[layer.name, variable.name].append(variable)
    found = [[v for v in places[w.layer, w.variable] if math.prod(v.shape) == math.prod(w.shape)] for w in weights]
    lost = [f"{w.layer}/{w.variable}" for w, variables in zip(weights, found, strict=True) if len(variables) != 1]
    if lost:
        raise WeightsError(
            f"The model {model.name} does not hold {len(lost)} of {len(weights)} weights of the original.",
            expected="one variable of the same size for each weight",
            received=f"none, or several, for {some(lost)}",
            fix="translate the network again",
        )
    return [variables[0] for variables in found]
