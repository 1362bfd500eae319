"""Source `torchvision`: every classification network of torchvision.models, most of them without PyTorch.

Networks are shipped as descriptions, the official weights are read by multitl's own reader of .pth files. PyTorch and
torchvision are needed only for a network that is not described yet, or for an image size that a network's graph is not
made for (a ViT's positions are counted, say): then it is translated, in a process of its own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitl.contracts import BackboneInfo, Checkpoint, Head, Job, Origin, Preprocess, Pretrained
from multitl.errors import BackboneError, nearest_names
from multitl.system.sizes import show_bytes

if TYPE_CHECKING:  # `backbones` must answer without loading a framework
    from multitl.translation.descriptions import Description

FOLDER = Path(__file__).parent / "torchvision_networks"
INDEX = FOLDER / "index.json"
POSITIONS = "pos_embedding"  # of a ViT, one for each patch of an image


@dataclass(frozen=True)
class Listed:
    """A line of the index. smallest: as in `Description`."""

    image_size: int
    smallest: int
    checkpoints: Mapping[str, Checkpoint]

    @property
    def default(self) -> Checkpoint:
        return next(one for one in self.checkpoints.values() if one.is_default)


def backbones() -> list[BackboneInfo]:
    """All networks with official weights, by full name; loads nothing."""
    return [
        BackboneInfo(
            name=f"torchvision/{name}",
            image_size=listed.default.preprocess.height,
            licence=listed.default.licence,
            weights=f"downloaded from pytorch.org ({show_bytes(listed.default.megabytes * 1e6)})",
            variants=tuple(one for one in listed.checkpoints if one != listed.default.name),
        )
        for name, listed in networks().items()
    ]


def check(name: str, weights: str) -> None:
    """See `contracts.Source`."""
    find(name)


def at_hand(image_size: int) -> list[str]:
    """See `contracts.Source`."""
    from multitl.files.downloads import kept_at

    every = [(name, one) for name, listed in networks().items() for one in listed.checkpoints.values()]
    kept = [(name, one) for name, one in every if kept_at(one.url).is_file()]
    return [f"torchvision/{name}" + ("" if one.is_default else f":{one.name}") for name, one in kept]


def load(name: str, weights: str, image_size: int, head: Head = "cut") -> Pretrained:
    """Build one of `backbones()`. See `contracts.Source`.

    name: "resnet50", or "resnet50:IMAGENET1K_V1" for other official weights than the best.
    weights: a local file or folder may hold what `state_dict_files.read_state_dict` reads.

    Raises BackboneError for an unknown name or size, WeightsError for weights that are missing, damaged or of another
    network.
    """
    from multitl.files.downloads import download
    from multitl.sources import translated
    from multitl.translation.descriptions import read_description, works_at
    from multitl.translation.store import translated as from_cache

    network, checkpoint = find(name)
    size = image_size or checkpoint.preprocess.height
    described = FOLDER / f"{network}.json.xz"
    description = read_description(described) if described.is_file() else None
    if description and works_at(description, size) and not _is_of_another_size(description, weights):
        return translated.as_pretrained(_described(description, checkpoint, weights, size, head), head)
    path = download(checkpoint.url, checkpoint.sha256, checkpoint.megabytes) if weights == "default" else weights
    entry = from_cache(Job("torchvision", name, str(path), size, head))
    translated.say(entry.card.weights_note)
    origin = _origin(checkpoint, weights, entry.card.weights_sha256 if weights != "none" else None)
    return translated.as_pretrained(
        translated.Network(
            name=f"torchvision/{name}",
            translation=entry.translation,
            preprocess=entry.card.preprocess,
            origin=origin,
            parity=entry.card.parity,
            class_names=entry.card.class_names,
        ),
        head,
    )


def find(name: str) -> tuple[str, Checkpoint]:
    """A network's plain name, and the official weights meant by "resnet50" or "resnet50:IMAGENET1K_V1"."""
    plain, colon, wanted = name.partition(":")
    known = networks()
    if plain not in known:
        raise BackboneError(
            f"Unknown backbone 'torchvision/{name}'.",
            expected=f"one of the {len(known)} classification networks of torchvision.models",
            received=f"torchvision/{name}",
            nearest=[f"torchvision/{near}" for near in nearest_names(plain, known)],
            fix="multitl backbones torchvision/",
        )
    checkpoints = {one.upper(): checkpoint for one, checkpoint in known[plain].checkpoints.items()}
    if not colon:
        return plain, known[plain].default
    if wanted.upper() not in checkpoints:
        raise BackboneError(
            f"Unknown weights {wanted!r} of torchvision/{plain}.",
            expected="one of " + ", ".join(known[plain].checkpoints),
            received=f"torchvision/{name}",
            nearest=nearest_names(wanted, known[plain].checkpoints),
            fix=f"--backbone torchvision/{plain} for the best ones",
        )
    return plain, checkpoints[wanted.upper()]


@functools.cache
def networks() -> dict[str, Listed]:
    """The index, by name."""
    return {
        name: Listed(
            image_size=values["image_size"],
            smallest=values["smallest"],
            checkpoints={one["name"]: _checkpoint(one) for one in values["checkpoints"]},
        )
        for name, values in json.loads(INDEX.read_text(encoding="utf-8")).items()
    }


def _checkpoint(values: Mapping[str, Any]) -> Checkpoint:
    preprocess = Preprocess.from_mapping(values["preprocess"])
    return Checkpoint(**dict(values) | {"preprocess": preprocess, "smallest": tuple(values["smallest"])})


def _described(description, checkpoint: Checkpoint, weights: str, size: int, head: Head):
    """The network from its description, filled."""
    from multitl.files.downloads import download
    from multitl.files.state_dict_files import read_state_dict
    from multitl.sources.imagenet import class_names
    from multitl.sources.translated import Network, say
    from multitl.system.hashes import file_sha256
    from multitl.translation import descriptions
    from multitl.translation.cutting import classifier_weights
    from multitl.translation.filling import fill
    from multitl.translation.state_dicts import classes_in, fit

    translation = descriptions.build(description, size, seed=0 if weights == "none" else None)
    sha256 = None
    if weights != "none":
        path = download(checkpoint.url, checkpoint.sha256, checkpoint.megabytes) if weights == "default" else weights
        state = read_state_dict(path)
        classifier = classifier_weights(translation)
        classes = classes_in(state, translation.weights, classifier)
        if head == "keep" and classes and classes != translation.model.output_shape[-1]:
            description = descriptions.with_classes(description, classifier, classes)
            translation = descriptions.build(description, size, seed=None)
        free = classifier if head == "cut" else ()
        fitting = fit(state, translation.weights, unused=translation.unused, classifier=free, network=description.name)
        filled = [weight for weight in translation.weights if weight.name in fitting.tensors]
        fill(translation.model, filled, fitting.tensors)
        sha256 = file_sha256(fitting.file)
        say(fitting.note)
    return Network(
        name=description.name + (f":{checkpoint.name}" if not checkpoint.is_default else ""),
        translation=translation,
        preprocess=resized(checkpoint.preprocess, size),
        origin=_origin(checkpoint, weights, sha256),
        parity=description.parity,
        class_names=class_names(translation.model.output_shape[-1]),
    )


def _is_of_another_size(description: Description, weights: str) -> bool:
    """Whether a file's position embeddings have to be interpolated, which takes the network itself."""
    from multitl.files.state_dict_files import read_state_dict

    positions = [weight for weight in description.weights if weight.name.endswith(POSITIONS)]
    if not positions or weights in ("default", "none"):
        return False
    tensors = read_state_dict(weights).tensors.items()
    shapes = [(one.shape, array.shape) for one in positions for name, array in tensors if name.endswith(one.name)]
    return any(wanted != found for wanted, found in shapes)


def resized(preprocess: Preprocess, size: int) -> Preprocess:
    """The same for another image size: the part of a photo that is seen stays the same."""
    side = round(size * preprocess.shorter_side / preprocess.height)
    return replace(preprocess, height=size, width=size, shorter_side=side)


def _origin(checkpoint: Checkpoint, weights: str, sha256: str | None) -> Origin:
    licence, url = checkpoint.licence, "https://pytorch.org/vision/stable/models.html"
    if weights == "none":
        licence = "none: random weights"
    elif weights == "default":
        url = checkpoint.url
    else:
        licence = f"that of the file; {licence} for the official weights"
    return Origin(source="torchvision", weights=weights, file_sha256=sha256, licence=licence, url=url)
