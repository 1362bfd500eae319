"""Preprocessing against the originals on real photos: torchvision's transforms and timm's, to the pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multitl_torch.torchvision import import_timm, import_torchvision
from multitl_torch.transforms import from_timm, from_torchvision
from PIL import Image

from multitl.contracts import Preprocess
from multitl.data.images import fit_pixels, open_rgb
from multitl.errors import BackboneError
from multitl.models.preprocessing import normalise

CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
CONFIGS: list[dict[str, Any]] = [
    {},
    {"crop_pct": 0.9, "interpolation": "bilinear"},
    {"crop_pct": 0.95, "input_size": (3, 256, 256), **HALF},
    {"crop_pct": 1.0, "input_size": (3, 384, 384), **CLIP},
    {"crop_pct": 1.15, "input_size": (3, 448, 448)},  # volo: the crop is larger than the image
    {"crop_pct": 0.9, "interpolation": "lanczos"},
    {"crop_pct": 0.9, "interpolation": "nearest"},
    {"crop_mode": "squash", "crop_pct": 1.0, **HALF},
    {"crop_mode": "squash", "crop_pct": 0.94},
    {"crop_mode": "squash", "crop_pct": 1.0, "input_size": (3, 256, 192), "interpolation": "bilinear"},  # sapiens
    {"crop_mode": "border", "crop_pct": 1.0, **HALF},
    {"crop_mode": "border", "crop_pct": 0.9, **CLIP},
    {"crop_mode": "border", "crop_pct": 0.8, "input_size": (3, 160, 250)},
    {"crop_pct": 0.875, "input_size": (3, 160, 250)},
    {"crop_pct": 0.95, "input_size": (3, 250, 161), "interpolation": "bilinear"},
    {"input_size": [3, 96, 96], "mean": None, "std": [1.0, 1.0, 1.0], "crop_pct": None},  # as JSON
]


@pytest.fixture(scope="module")
def photo_files(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "clothing_tiny" / "test").rglob("*.jpg"))[::16]


@pytest.fixture(scope="module")
def photos(photo_files: list[Path]) -> list[Image.Image]:
    """Real photos, as they are and in awkward sizes: square, tall, hair-thin, tiny, with odd and with large sides."""
    opened = [Image.open(path).convert("RGB") for path in photo_files[:3]]
    first = opened[0]
    sizes = [(224, 224), (241, 613), (901, 37), (53, 41), (1023, 768)]
    return opened + [first.resize(size, Image.Resampling.LANCZOS) for size in sizes]


def differences(original: Callable, preprocess: Preprocess, photos: list[Image.Image]) -> list[str]:
    """The photos for which our numbers are not the original's: one grey level is far outside the tolerance."""
    found = []
    for photo in photos:
        expected = np.moveaxis(original(photo).numpy(), 0, -1)
        received = normalise(fit_pixels(photo, preprocess), preprocess)
        if received.shape != expected.shape or not np.allclose(received, expected, rtol=1e-5, atol=1e-5):
            found.append(f"{photo.size}: {received.shape}, {expected.shape}")
    return found


def distinct_transforms() -> dict[str, Any]:
    """Every different transform of torchvision's classification weights, by its text."""
    models = import_torchvision().models
    members = [member for name in models.list_models(module=models) for member in models.get_model_weights(name)]
    return {repr(transforms): transforms for transforms in (member.transforms() for member in members)}


def timm_transform(config: dict[str, Any], image_size: int = 0, use_test_size: bool = False) -> Callable:
    data = import_timm().data
    arguments = {"input_size": (3, image_size, image_size)} if image_size and not use_test_size else None
    resolved = data.resolve_data_config(arguments, pretrained_cfg=config or {"url": ""}, use_test_size=use_test_size)
    return data.create_transform(**resolved, is_training=False)


def test_every_transform_of_torchvision_on_photos(photos: list[Image.Image]):
    distinct = distinct_transforms()
    assert len(distinct) >= 28
    wrong = {text: differences(original, from_torchvision(original), photos) for text, original in distinct.items()}
    assert not any(wrong.values()), wrong


def test_one_grey_level_would_be_seen(photos: list[Image.Image]):
    """The tolerance of the other tests is not so wide that they could not fail."""
    for original in distinct_transforms().values():
        preprocess = from_torchvision(original)
        shifted = tuple(b + a for a, b in zip(preprocess.scale, preprocess.offset, strict=True))
        assert differences(original, dataclasses.replace(preprocess, offset=shifted), photos[:1])


def test_files_are_read_as_the_original_reads_them(photo_files: list[Path]):
    original = import_torchvision().models.ResNet50_Weights.DEFAULT.transforms()
    preprocess = from_torchvision(original)
    for path in photo_files:
        expected = np.moveaxis(original(Image.open(path).convert("RGB")).numpy(), 0, -1)
        np.testing.assert_allclose(
            normalise(fit_pixels(open_rgb(path), preprocess), preprocess), expected, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_timm_on_photos(config: dict[str, Any], photos: list[Image.Image]):
    assert differences(timm_transform(config), from_timm(config), photos) == []


def test_every_configuration_of_timm_on_photos(photos: list[Image.Image]):
    models = import_timm().models
    configs = [models.get_pretrained_cfg(name).to_dict() for name in models.list_pretrained()]
    keys = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")
    distinct = {str([config[key] for key in keys]): config for config in configs if config["input_size"][0] == 3}
    assert len(distinct) > 100
    wrong = {key: differences(timm_transform(cfg), from_timm(cfg), photos[2:3]) for key, cfg in distinct.items()}
    assert not any(wrong.values()), wrong


def test_a_whole_image_thinner_than_one_pixel_still_shows():
    """timm's border mode refuses such an image; ours gives it the one pixel."""
    pixels = fit_pixels(Image.new("RGB", (2000, 1), "red"), from_timm({"crop_mode": "border", "crop_pct": 1.0}))
    assert (pixels == (255, 0, 0)).all(axis=-1).sum() == 224


def test_another_size_sees_the_same_part_of_the_image(photos: list[Image.Image]):
    weights = import_torchvision().models.ResNet50_Weights
    assert from_torchvision(weights.IMAGENET1K_V1.transforms(), 112).shorter_side == 128
    assert from_torchvision(weights.IMAGENET1K_V2.transforms(), 448).shorter_side == 464
    config = {"input_size": (3, 224, 192), "crop_pct": 0.9}
    assert differences(timm_transform(config, 160), from_timm(config, 160), photos) == []


def test_timms_test_size_has_its_own_crop(photos: list[Image.Image]):
    config = {"crop_pct": 0.95, "test_input_size": (3, 288, 288), "test_crop_pct": 1.0}
    assert differences(timm_transform(config, use_test_size=True), from_timm(config, 288), photos) == []
    assert from_timm(config, 288).shorter_side == 288
    assert from_timm(config).shorter_side == 235
    del config["test_crop_pct"]
    assert differences(timm_transform(config, use_test_size=True), from_timm(config, 288), photos) == []


def test_random_interpolation_is_bilinear_outside_of_training():
    assert from_timm({"interpolation": "random"}) == from_timm({"interpolation": "bilinear"})


def test_what_is_no_rgb_image_or_no_classification_is_refused():
    with pytest.raises(BackboneError, match="1 channels"):
        from_timm({"input_size": (1, 224, 224)})
    with pytest.raises(BackboneError, match="'hamming'"):
        from_timm({"interpolation": "hamming"})
    segmentation = import_torchvision().models.segmentation.FCN_ResNet50_Weights.DEFAULT.transforms()
    with pytest.raises(BackboneError, match="do not classify"):
        from_torchvision(segmentation)
