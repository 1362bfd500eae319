"""From a translated network to a `Pretrained`: what the sources torchvision and timm share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from multitl.contracts import Head, Origin, Parity, Preprocess, Pretrained, Stage, Translation
from multitl.cutting import cut_classifier


@dataclass(frozen=True, eq=False)
class Network:
    """A whole network with its weights, and what is known of it."""

    name: str
    translation: Translation
    preprocess: Preprocess
    origin: Origin
    parity: Parity
    class_names: tuple[str, ...]


def as_pretrained(network: Network, head: Head) -> Pretrained:
    """The network with its classifier cut off or kept. Raises TranslationError if no classifier can be seen to cut
    off.
    """
    translation = network.translation
    if head == "keep":
        backbone, feature_map, class_names = translation.model, "", network.class_names
    else:
        cut = cut_classifier(translation.model)
        backbone, feature_map, class_names = cut.backbone, cut.feature_map, ()
    kept = {layer.name for layer in backbone.layers}
    return Pretrained(
        name=network.name,
        backbone=backbone,
        preprocess=network.preprocess,
        stages=_without(translation.stages, kept),
        origin=network.origin,
        class_names=class_names,
        weights=tuple(weight for weight in translation.weights if weight.layer in kept),
        parity=network.parity,
        feature_map=feature_map,
    )


def _without(stages: tuple[Stage, ...], kept: Collection[str]) -> tuple[Stage, ...]:
    """The stages' layers that are there; a stage without any goes."""
    cut = [Stage(stage.name, tuple(layer for layer in stage.layers if layer in kept)) for stage in stages]
    return tuple(stage for stage in cut if stage.layers)
