"""From a translated network to a `Pretrained`: what the sources torchvision, timm, tfhub and file share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import keras

from multitl.contracts import Head, Origin, Parity, Preprocess, Pretrained, Stage, Translation
from multitl.translation.cutting import Cut, cut_classifier, features_as_backbone


@dataclass(frozen=True, eq=False)
class Network:
    """A whole network with its weights, and what is known of it."""

    name: str
    translation: Translation
    preprocess: Preprocess
    origin: Origin
    parity: Parity | None
    class_names: tuple[str, ...]


def say(note: str) -> None:
    """Tell people what was chosen from a file of weights, and what was left out."""
    from multitl.system import messages

    if note:
        messages.say(f"weights: {note}")


def note_values(model: keras.Model, name: str, values: str) -> None:
    """Say so where nothing in a user's model brings pixels into the range that it was trained on.

    values: what it gets, in words.
    """
    from multitl.system.messages import say

    if not _scales_pixels(model):
        say(
            f"{name} gets {values}: nothing in it rescales them. If it was trained on other values, name them: "
            "--preprocess torch, caffe, tf, unit or bytes"
        )


def _scales_pixels(model: keras.Model) -> bool:
    """Whether arithmetic comes before the first layer with a kernel."""
    for operation in model.operations:
        if isinstance(operation, keras.layers.Rescaling | keras.layers.Normalization):
            return True
        if type(operation).__name__ in ("Add", "Subtract", "Multiply", "Divide", "TrueDivide"):
            return True
        if isinstance(operation, keras.layers.Layer) and operation.weights:
            return False
    return False


def as_pretrained(network: Network, head: Head) -> Pretrained:
    """The network with its classifier cut off or kept. Raises TranslationError if no classifier can be seen to cut
    off.
    """
    if head == "cut":
        return _as_backbone(network, cut_classifier(network.translation.model))
    return _pretrained(network, network.translation.model, "", network.class_names)


def of_features(network: Network) -> Pretrained:
    """A network that has no classifier: it gives a feature vector."""
    return _as_backbone(network, features_as_backbone(network.translation.model))


def _as_backbone(network: Network, cut: Cut) -> Pretrained:
    return _pretrained(network, cut.backbone, cut.feature_map, ())


def _pretrained(network: Network, backbone: keras.Model, feature_map: str, class_names: tuple[str, ...]) -> Pretrained:
    translation = network.translation
    kept = {layer.name for layer in backbone.layers}
    return Pretrained(
        name=network.name,
        backbone=backbone,
        preprocess=network.preprocess,
        stages=_without(translation.stages, kept),
        origin=network.origin,
        class_names=class_names,
        weights=tuple(weight for weight in translation.weights if weight.layer in kept),
        classifier=tuple(weight for weight in translation.weights if weight.layer not in kept),
        unused=translation.unused,
        parity=network.parity,
        feature_map=feature_map,
    )


def _without(stages: tuple[Stage, ...], kept: Collection[str]) -> tuple[Stage, ...]:
    """The stages' layers that are there; a stage without any goes."""
    cut = [Stage(stage.name, tuple(layer for layer in stage.layers if layer in kept)) for stage in stages]
    return tuple(stage for stage in cut if stage.layers)
