"""One weights file that every contender reads: `python -m multitl.bench.preparation BACKBONE WEIGHTS SIZE FILE`.

Random weights alone would not do: without statistics a deep network's outputs vanish or explode, and contenders could
not be told apart. So batch normalisation takes the statistics of a few images. Speed does not depend on the values.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
from safetensors.numpy import save_file

from multitl.bench.pictures import synthetic_pixels
from multitl.contracts import Pretrained
from multitl.errors import MultitlError
from multitl.freezing import leaf_layers
from multitl.preprocessing import normalise
from multitl.pretrained import load_pretrained
from multitl.runs import atomic_write, write_json
from multitl.state_dicts import extract

IMAGES = 8


def prepare(backbone: str, weights: str, image_size: int, file: Path) -> None:
    """Write FILE, or nothing for a backbone whose tensors have no names in PyTorch; and FILE.json with its size."""
    pretrained = load_pretrained(backbone, weights, image_size)
    if weights == "none":
        calibrate(pretrained)
    if pretrained.weights:
        with atomic_write(file) as path:
            save_file(extract(pretrained.backbone, pretrained.weights), path)
    parameters = pretrained.backbone.count_params()
    write_json(file.with_suffix(".json"), {"image_size": pretrained.preprocess.height, "parameters": parameters})


def calibrate(pretrained: Pretrained) -> None:
    """Batch normalisation takes on the statistics of synthetic images."""
    for layer in leaf_layers(pretrained.backbone):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    pixels = synthetic_pixels(IMAGES, pretrained.preprocess.height, seed=0)
    pretrained.backbone(keras.ops.convert_to_tensor(normalise(pixels, pretrained.preprocess)), training=True)


def main(arguments: list[str]) -> int:
    backbone, weights, size, file = arguments
    try:
        prepare(backbone, weights, int(size), Path(file))
    except MultitlError as error:
        fields = {name: getattr(error, name) for name in ("problem", "fix", "expected", "received", "nearest")}
        write_json(Path(file).with_suffix(".error.json"), {"kind": type(error).__name__} | fields)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
