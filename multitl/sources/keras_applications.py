"""Source `keras`: every network of keras.applications, with official, local or random weights.

What is known of the networks is data, in keras_catalogue.py; building and filling them, which needs Keras, is
keras_networks.py.
"""

from __future__ import annotations

from pathlib import Path

from multitl.contracts import BackboneInfo, Head, Origin, Pretrained
from multitl.errors import BackboneError, nearest_names
from multitl.sources.keras_catalogue import ARCHITECTURES, Architecture
from multitl.system.hashes import file_sha256
from multitl.system.paths import expanded
from multitl.system.sizes import show_bytes


def backbones() -> list[BackboneInfo]:
    """The 40 names, in the order of Keras' documentation; loads nothing."""
    return [
        BackboneInfo(
            name=one.full_name,
            image_size=one.image_size,
            licence=one.family.licence,
            weights=f"downloaded by Keras ({show_bytes(one.megabytes * 1e6)})",
            variants=_variants(one.name),
        )
        for one in ARCHITECTURES
        if not one.variant
    ]


def check(name: str, weights: str) -> None:
    """See `contracts.Source`."""
    find_architecture(name)


def at_hand(image_size: int) -> list[str]:
    """See `contracts.Source`."""
    return [one.full_name for one in ARCHITECTURES if one.kept_at(image_size or one.image_size).is_file()]


def load(name: str, weights: str, image_size: int, head: Head = "cut") -> Pretrained:
    """Build one of `backbones()`. See `contracts.Source`.

    weights: a local file or folder also settles the variant, where `name` leaves it open.
    head: "keep" for logits of ImageNet's classes, or of as many as a local file has.
    Raises BackboneError for an unknown name or variant and for a size the network cannot take; WeightsError as
    `weight_files.load_weights` does, and for a failed download.
    """
    from multitl.models.stages import stages_by_stride
    from multitl.sources import keras_networks as networks
    from multitl.sources.imagenet import class_names

    architecture = find_architecture(name)
    size = _check_size(architecture, image_size)
    path: Path | None = None
    if weights == "none":
        backbone = networks.build(architecture, size, seed=0, classes=networks.CLASSES if head == "keep" else 0)
    else:
        _check_positions(architecture, size, head)
        path = expanded(weights)
        if weights == "default":
            path = networks.download(architecture, size, head)
        elif ":" not in name:
            architecture = networks.infer_variant(architecture, path)
        backbone, path = networks.build_filled(architecture, size, path, head)
    return Pretrained(
        name=architecture.full_name,
        backbone=backbone,
        preprocess=architecture.preprocess(size),
        stages=stages_by_stride(backbone),
        origin=_origin(architecture, size, weights, file_sha256(path) if path else None, head),
        class_names=class_names(backbone.output_shape[-1]) if head == "keep" else (),
    )


def find_architecture(name: str) -> Architecture:
    """The catalogue's row for "ResNet50" or "MobileNet:alpha=0.25". Raises BackboneError."""
    plain, colon, variant = name.partition(":")
    rows = {one.variant: one for one in ARCHITECTURES if one.name == plain}
    if not rows:
        known = [one.name for one in ARCHITECTURES if not one.variant]
        raise BackboneError(
            f"Unknown backbone 'keras/{name}'.",
            expected="one of the 40 networks of keras.applications",
            received=f"keras/{name}",
            nearest=[f"keras/{near}" for near in nearest_names(plain, known)],
            fix="multitl backbones 'keras/*'",
        )
    if not colon:
        return rows[""]
    choices = _variants(plain)
    if any(choice.startswith("alpha=") for choice in choices):
        rows["alpha=1"] = rows[""]
    wanted = _canonical(variant)
    if not wanted or wanted not in rows:
        raise BackboneError(
            f"Unknown variant {variant!r} of keras/{plain}.",
            expected="one of " + ", ".join(choices) if choices else f"keras/{plain}, which has no variants",
            received=f"keras/{name}",
            nearest=nearest_names(variant, choices),
            fix=f"--backbone keras/{plain}" + (f":{choices[0]}" if choices else ""),
        )
    return rows[wanted]


def _canonical(variant: str) -> str:
    """Evens out case, spaces and digits: "Alpha = 0.50" -> "alpha=0.5"."""
    key, equals, value = (part.strip().lower() for part in variant.partition("="))
    try:
        return f"{key}{equals}{float(value):g}"
    except ValueError:
        return f"{key}{equals}{value}"


def _variants(name: str) -> tuple[str, ...]:
    return tuple(one.variant for one in ARCHITECTURES if one.name == name and one.variant)


def _check_size(architecture: Architecture, image_size: int) -> int:
    size, least = image_size or architecture.image_size, architecture.family.minimum
    if size < least:
        raise BackboneError(
            f"{architecture.full_name} cannot take images of {size} x {size} pixels.",
            expected=f"an image size of at least {least}",
            received=f"image_size = {size}",
            fix=f"--image-size {least} or more; without the option it is {architecture.image_size}",
        )
    return size


def _check_positions(architecture: Architecture, size: int, head: Head) -> None:
    """Raises BackboneError for a kept classifier whose weights count the positions of another image size."""
    if head == "keep" and architecture.family.is_flattened and size != architecture.image_size:
        raise BackboneError(
            f"The classifier of {architecture.full_name} cannot take images of {size} x {size} pixels.",
            expected=f"an image size of {architecture.image_size}: it has weights for every position of that",
            received=f"image_size = {size}",
            fix="leave --image-size out, or cut the classifier off: --head cut",
        )


def _origin(architecture: Architecture, size: int, weights: str, sha256: str | None, head: Head) -> Origin:
    licence, url = architecture.family.licence, "https://keras.io/api/applications/"
    if weights == "none":
        licence = "none: random weights"
    elif weights == "default":
        url = architecture.weights_url(size, head)
    else:
        licence = f"that of the file; {licence} for the official weights"
    return Origin(source="keras", weights=weights, file_sha256=sha256, licence=licence, url=url)
