"""The preprocessing of torchvision's and timm's checkpoints as data: what their own transforms do, to the pixel.

Imports neither library: torchvision's transform is read as an object, timm's configuration as a mapping, which may come
from timm's registry or from the config.json beside a weight file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from multitl.contracts import Preprocess, Triple
from multitl.errors import BackboneError

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
INTERPOLATIONS: dict[str, Interpolation] = {
    "nearest": "nearest",
    "nearest-exact": "nearest",  # torchvision's, the same on a Pillow image
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "lanczos": "lanczos",
    "random": "bilinear",  # timm's, bilinear outside of training
}
TIMM_DEFAULTS: dict[str, Any] = {  # of timm.data.resolve_data_config, which also reads "no value" as these
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


def from_torchvision(transforms: Any, image_size: int = 0) -> Preprocess:
    """The preprocessing of `weights.transforms()`. Raises BackboneError if it is not one of classification.

    image_size: side of the crop, 0 for the authors'; the part of the image that is seen stays the same.
    Antialiased always: on a Pillow image torchvision is, whatever its `antialias` says.
    """
    if type(transforms).__name__ != "ImageClassification":
        raise BackboneError(
            "These weights do not classify images.",
            expected="transforms of the kind ImageClassification",
            received=type(transforms).__name__,
            fix="choose weights of torchvision.models' classification networks",
        )
    (crop,), (shorter_side,) = transforms.crop_size, transforms.resize_size
    if image_size:
        crop, shorter_side = image_size, round(image_size * shorter_side / crop)
    return Preprocess(
        height=crop,
        width=crop,
        shorter_side=shorter_side,
        interpolation=_interpolation(transforms.interpolation.value),
    ).standardise(_triple(transforms.mean), _triple(transforms.std))


def from_timm(cfg: Mapping[str, Any], image_size: int = 0) -> Preprocess:
    """The preprocessing that timm evaluates with: `resolve_data_config`, then `create_transform`.

    cfg: a `pretrained_cfg`.  image_size: side of the crop, 0 for the `input_size`, which the network was trained at; at
    its `test_input_size` the authors' `test_crop_pct` counts. Raises BackboneError for what is no RGB image.
    """
    has = TIMM_DEFAULTS | {name: value for name, value in cfg.items() if value}
    channels, height, width = has["input_size"]
    if channels != 3:
        raise BackboneError(
            f"This network takes images of {channels} channels.",
            expected="3 channels: red, green, blue",
            received=f"input_size = {tuple(has['input_size'])}",
            fix="choose a network for RGB images",
        )
    share = has["crop_pct"]
    if image_size:
        height = width = image_size
        is_test_size = list(has.get("test_input_size", ())) == [3, image_size, image_size]
        share = has.get("test_crop_pct", share) if is_test_size else share
    box = math.floor(height / share), math.floor(width / share)
    mean = _triple(has["mean"])
    return replace(
        _geometry(has["crop_mode"], box, mean),
        height=height,
        width=width,
        interpolation=_interpolation(has["interpolation"]),
    ).standardise(mean, _triple(has["std"]))


def _geometry(crop_mode: str, box: tuple[int, int], mean: Triple) -> Preprocess:
    """How the image is resized to `box`; timm takes every word but two for its mode "center"."""
    height, width = box
    if crop_mode == "squash":
        return Preprocess(height, width, "squash", box=box)
    if crop_mode == "border":
        red, green, blue = (round(255 * value) for value in mean)
        return Preprocess(height, width, "fit", box=box, fill=(red, green, blue))
    if height != width:
        return Preprocess(height, width, "cover", box=box)
    return Preprocess(height, width, "crop", shorter_side=height)


def _interpolation(name: str) -> Interpolation:
    if name not in INTERPOLATIONS:
        raise BackboneError(
            f"Images are resized by {name!r} for this network, which multitl does not have.",
            expected=", ".join(INTERPOLATIONS),
            received=name,
            fix="choose another network or checkpoint",
        )
    return INTERPOLATIONS[name]


def _triple(values: Sequence[float]) -> Triple:
    red, green, blue = values
    return float(red), float(green), float(blue)
