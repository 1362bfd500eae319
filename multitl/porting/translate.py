"""`translate`: a pretrained network as a folder of its own, to be looked at, used or taken elsewhere without training.

With its classifier kept, the folder serves `multitl predict` and `multitl evaluate` like a run's.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras

from multitl.contracts import Backend, Head, Pretrained
from multitl.models.heads import pixel_input
from multitl.models.inference import BATCH
from multitl.models.preprocessing import normalise_in_model, with_values
from multitl.models.weight_hashes import weights_sha256
from multitl.recipes import Recipe
from multitl.runs.cards import checked
from multitl.runs.folders import check_folder, start_run
from multitl.runs.locks import locked, run_lock
from multitl.sources.pretrained import load_pretrained
from multitl.system.writing import write_json
from multitl.training.recording import describe_backbone, describe_machine, save_model
from multitl.translation.parity import probe_images


@dataclass(frozen=True, eq=False)
class Translated:
    """What `translate` made. `card` is card.json."""

    output: Path
    pretrained: Pretrained
    card: dict[str, Any]


def translate(
    name: str,
    *,
    weights: str,
    image_size: int,
    head: Head,
    preprocess: str,
    backend: Backend,
    output: str | os.PathLike[str],
    overwrite: bool,
) -> Translated:
    """See `multitl.translate`."""
    folder = Path(output)
    recipe = Recipe(backbone=name, weights=weights, image_size=image_size, preprocess=preprocess)
    with locked(run_lock(folder), folder):
        check_folder(folder, recipe, backend.name, overwrite=overwrite, resume=False)
        return _translate(folder, recipe, head, backend)


def _translate(folder: Path, recipe: Recipe, head: Head, backend: Backend) -> Translated:
    pretrained = load_pretrained(recipe.backbone, recipe.weights, recipe.image_size, head)
    pretrained = replace(pretrained, preprocess=with_values(pretrained.preprocess, recipe.preprocess))
    model = _from_pixels(pretrained, head)
    sha256 = weights_sha256(pretrained.backbone)
    start_run(folder, recipe, backend.name, "", sha256, resume=False)
    pixels = _some_pixels(model)
    difference = save_model(folder, model, pixels, model.predict_on_batch(pixels), "float32")
    card = describe_machine(backend) | {
        "backbone": describe_backbone(pretrained, sha256),
        "head": head,
        "data": {"class_names": _class_names(pretrained, model, head), "warnings": []},
        "recipe": asdict(recipe),
        "seed": recipe.seed,
        "saved_model_difference": difference,
    }
    write_json(folder / "card.json", checked(card))
    return Translated(folder, pretrained, card)


def _from_pixels(pretrained: Pretrained, head: Head) -> keras.Model:
    """uint8 pixels (batch, height, width, 3) -> probabilities (batch, classes), or the feature map."""
    pixels = pixel_input(pretrained.preprocess)
    outputs = pretrained.backbone(normalise_in_model(pixels, pretrained.preprocess))
    if head == "keep":
        outputs = keras.layers.Softmax(dtype="float32", name="probabilities")(outputs)
    return keras.Model(pixels, outputs, name="network")


def _some_pixels(model: keras.Model):
    images = probe_images(model.input_shape[1:], count=min(4, BATCH))
    return (images * 48 + 128).clip(0, 255).astype("uint8")


def _class_names(pretrained: Pretrained, model: keras.Model, head: Head) -> list[str]:
    """The names known, or numbers; none without a classifier."""
    if head == "cut":
        return []
    return list(pretrained.class_names) or [f"class {number}" for number in range(model.output_shape[-1])]
