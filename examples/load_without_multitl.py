"""Use a run's model.keras with nothing but Keras: raw 8-bit pixels go in, probabilities come out.

python examples/load_without_multitl.py RUN                        # any finished run whose pictures are still there
KERAS_BACKEND=tensorflow python examples/load_without_multitl.py   # trains a small one first, as the command line does
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from PIL import Image, ImageOps
from toy_photos import make_photos


def fit(path: str, how: dict) -> np.ndarray:
    """uint8 (height, width, 3): the geometry of card.json. Scaling and channel order are inside the model."""
    assert how["resize"] == "crop" and how["antialias"], "written for the default backbone"
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    scale = how["shorter_side"] / min(image.size)
    image = image.resize(
        (int(image.width * scale), int(image.height * scale)), Image.Resampling[how["interpolation"].upper()]
    )
    left, top = round((image.width - how["width"]) / 2), round((image.height - how["height"]) / 2)
    return np.asarray(image.crop((left, top, left + how["width"], top + how["height"])))


def main(run: Path) -> None:
    card = json.loads((run / "card.json").read_text())
    names, how = card["data"]["class_names"], card["backbone"]["preprocess"]
    with (run / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]

    model = keras.models.load_model(run / "model.keras", compile=False)
    probabilities = model.predict(np.stack([fit(row["path"], how) for row in rows]), verbose=0)

    print(f"{card['backend']['name']} wrote the model, {keras.config.backend()} read it")
    for row, p in list(zip(rows, probabilities, strict=True))[:3]:
        print(f"{Path(row['path']).name}: {names[p.argmax()]}, {p.max():.3f}; the run said {row['confidence'][:5]}")
    expected = [[float(row[f"p:{name}"]) for name in names] for row in rows]
    assert np.abs(probabilities - expected).max() < 1e-4 and "multitl" not in sys.modules


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        finished = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder, "run")
        if len(sys.argv) == 1:
            options = ["--out", str(finished), "--image-size", "64", "--unfreeze", "none"]
            command = [sys.executable, "-m", "multitl", "finetune", str(make_photos(f"{folder}/photos")), *options]
            subprocess.run(command, check=True)
        main(finished)
