"""One weights file that every contender reads: `python -m multitl.bench.preparation BACKBONE WEIGHTS SIZE FILE`.

Random weights alone would not do: without statistics a deep network's outputs vanish or explode, and contenders could
not be told apart. So batch normalisation takes the statistics of a few images. Speed does not depend on the values.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
from safetensors.numpy import save_file

from multitl.bench.pictures import synthetic_labels, synthetic_pixels
from multitl.contracts import RGB, Pretrained
from multitl.errors import BackboneError
from multitl.models.freezing import FreezePolicy, apply_policy, leaf_layers
from multitl.models.heads import build_extractor, build_head
from multitl.models.preprocessing import normalise
from multitl.recipes import Recipe
from multitl.sources.pretrained import load_pretrained
from multitl.system.workers import report_errors
from multitl.system.writing import atomic_write, write_json
from multitl.training.checkpoints import read_variables
from multitl.translation.filling import extract

IMAGES = 8
CLASSES = 10
FALL, TRIAL = 0.01, 1e-3


def prepare(backbone: str, weights: str, image_size: int, file: Path) -> None:
    """Write FILE, or nothing for a backbone whose tensors have no names in PyTorch; and FILE.json, what else a race
    has to know. Raises BackboneError for images of other channels than RGB, which no contender but ours takes.
    """
    pretrained = load_pretrained(backbone, weights, image_size)
    if (count := pretrained.preprocess.channels) != RGB:
        raise BackboneError(
            f"{backbone} takes images of {count} channels, and a race is run on RGB.",
            expected="a backbone that takes red, green and blue",
            received=f"{count} channels",
            fix=f"--backbone {pretrained.origin.source}/NAME, or one of `multitl backbones`",
        )
    for layer in leaf_layers(pretrained.backbone):
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    if weights == "none":
        calibrate(pretrained)
    if pretrained.weights:
        with atomic_write(file) as path:
            save_file(extract(pretrained.backbone, pretrained.weights), path)
    about = {"image_size": pretrained.preprocess.height, "parameters": pretrained.backbone.count_params()}
    write_json(file.with_suffix(".json"), about | {"check_rate": find_rate(pretrained)})


def calibrate(pretrained: Pretrained) -> None:
    """Batch normalisation takes on the statistics of synthetic images."""
    for layer in leaf_layers(pretrained.backbone):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    pixels = synthetic_pixels(IMAGES, pretrained.preprocess.height, seed=0)
    pretrained.backbone(keras.ops.convert_to_tensor(normalise(pixels, pretrained.preprocess)), training=True)


def find_rate(pretrained: Pretrained) -> float:
    """A learning rate at which one step of SGD lowers the loss by about FALL of itself.

    Large enough for a wrong gradient to show, small enough for rounding not to: where the loss is far from straight
    along a step, contenders drift apart. To first order a step lowers the loss by the rate times |gradient|^2.
    """
    model = trial_model(pretrained)
    model.compile(keras.optimizers.SGD(TRIAL), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = read_variables(model.trainable_variables)
    loss = float(model.train_on_batch(*trial_batch(pretrained)))
    steps = zip(before, read_variables(model.trainable_variables), strict=True)
    square = sum(float(np.sum(np.square((new - old) / TRIAL, dtype="float64"))) for old, new in steps)
    return FALL * loss / square


def trial_model(pretrained: Pretrained) -> keras.Model:
    """uint8 pixels -> logits of a new head; everything trains."""
    apply_policy(FreezePolicy("all", train_batch_norm=True), pretrained.backbone, pretrained.stages)
    extractor = build_extractor(pretrained, "avg")
    head = build_head(np.ones((1, extractor.output_shape[-1])), CLASSES, Recipe(l2=0.0))
    return keras.Model(extractor.input, head(extractor.output))


def trial_batch(pretrained: Pretrained) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels."""
    size = pretrained.preprocess.height
    return synthetic_pixels(IMAGES, size, seed=1), synthetic_labels(IMAGES, CLASSES, seed=1)


def main(arguments: list[str]) -> int:
    backbone, weights, size, file = arguments
    return report_errors(
        lambda: prepare(backbone, weights, int(size), Path(file)), Path(file).with_suffix(".error.json")
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
