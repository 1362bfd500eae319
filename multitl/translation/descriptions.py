"""A translated network without its weights: a Keras configuration, and which tensor of the original goes where.

The descriptions of torchvision's networks are shipped, a few kilobytes each, so that their official weights run without
PyTorch. `multitl_torch.describe` makes them; the tests compare them with fresh translations.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras

from multitl.contracts import Parity, Stage, TranslatedWeight, Translation
from multitl.errors import BackboneError
from multitl.models.initialisers import numpy_initialisers


@dataclass(frozen=True, eq=False)
class Description:
    """`config`: of the whole network, classifier included, for images of `image_size`.

    `smallest`: the smallest side that the same graph also works at; 0 if it is bound to `image_size`. `versions`: of
    the packages that made it. `parity`: of the translation against the original, with random weights.
    """

    name: str
    image_size: int
    smallest: int
    config: Mapping[str, Any]
    weights: tuple[TranslatedWeight, ...]
    stages: tuple[Stage, ...]
    unused: tuple[str, ...]
    versions: Mapping[str, str]
    parity: Parity


def describe(
    translation: Translation, name: str, image_size: int, smallest: int, versions: Mapping[str, str], parity: Parity
) -> Description:
    """What has to be kept of a translation besides its weights. Raises ValueError if a variable of it has no
    original.
    """
    named = {(weight.layer, weight.variable) for weight in translation.weights}
    nameless = [
        f"{layer.name}/{variable.name}"
        for layer in translation.model.layers
        for variable in layer.weights
        if (layer.name, variable.name) not in named
    ]
    if nameless:
        raise ValueError(f"{name} holds values that no state_dict has: {', '.join(nameless)}")
    config = keras.saving.serialize_keras_object(translation.model)
    return Description(
        name,
        image_size,
        smallest,
        config,
        translation.weights,
        translation.stages,
        translation.unused,
        versions,
        parity,
    )


def write_description(path: Path, description: Description) -> None:
    """A .json.xz file; the same description gives the same bytes."""
    text = json.dumps(asdict(description), separators=(",", ":"), allow_nan=False)
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def read_description(path: Path) -> Description:
    """Read what `write_description` wrote."""
    values = json.loads(lzma.decompress(path.read_bytes()))
    values |= translated_from_json(values)
    return Description(**values | {"parity": Parity(**values["parity"])})


def translated_from_json(values: Mapping[str, Any]) -> dict[str, tuple]:
    """The weights, stages and unused names of a translation, from a description or a card."""
    return {
        "weights": tuple(TranslatedWeight(**_with_tuples(weight)) for weight in values["weights"]),
        "stages": tuple(Stage(**_with_tuples(stage)) for stage in values["stages"]),
        "unused": tuple(values["unused"]),
    }


def build(description: Description, image_size: int, seed: int | None) -> Translation:
    """The network for images of `image_size`. seed: of random weights; None for zeros, if they will be overwritten.

    Raises BackboneError for a size the graph does not work at.
    """
    check_size(description, image_size)
    config = _resized(description.config, description.image_size, image_size)
    with numpy_initialisers(seed):
        model = keras.saving.deserialize_keras_object(config)
    return Translation(model, description.weights, description.stages, description.unused)


def with_classes(description: Description, classifier: Collection[str], classes: int) -> Description:
    """The same network with a classifier of another size. classifier: names of its weights."""
    old = next(one.shape[0] for one in description.weights if one.name in classifier)
    weights = tuple(_with_rows(one, classes) if one.name in classifier else one for one in description.weights)
    layers = {weight.layer for weight in weights if weight.name in classifier}
    config = json.loads(json.dumps(description.config))
    after = False  # the classifier; what follows may count the classes to drop axes
    for layer in config["config"]["layers"]:
        settings, after = layer["config"], after or layer["name"] in layers
        if layer["name"] in layers:
            settings["units" if "units" in settings else "filters"] = classes
        elif after and "newshape" in settings:
            settings["newshape"] = [classes if size == old else size for size in settings["newshape"]]
    return replace(description, config=config, weights=weights)


def _with_rows(weight: TranslatedWeight, rows: int) -> TranslatedWeight:
    return replace(weight, shape=(rows, *weight.shape[1:]), split=(rows, *weight.split[1:]))


def works_at(description: Description, image_size: int) -> bool:
    """Whether the same graph serves images of this size."""
    return image_size == description.image_size or 0 < description.smallest <= image_size


def check_size(description: Description, image_size: int) -> None:
    """Raises BackboneError for a size that the graph does not work at."""
    if works_at(description, image_size):
        return
    sizes = f"{description.image_size}" if not description.smallest else f"{description.smallest} or more"
    raise BackboneError(
        f"{description.name} cannot take images of {image_size} x {image_size} pixels.",
        expected=f"an image size of {sizes}",
        received=f"image_size = {image_size}",
        fix=f"leave --image-size out for {description.image_size}",
    )


def _resized(config: Mapping[str, Any], old: int, new: int) -> dict[str, Any]:
    """The configuration for images of another size, as a copy: Keras takes it apart when it builds.

    Only the input layer has a size in it; layers forget the shapes they were built with and are built when they are
    called.
    """
    copy = json.loads(json.dumps(config))
    if old == new:
        return copy
    copy["config"]["layers"][0]["config"]["batch_shape"][1:3] = [new, new]
    for layer in copy["config"]["layers"]:
        layer.pop("build_config", None)
    return copy


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
