"""Classify images by the model beside this file: `python classify.py IMAGE ...`

Prints a line for each image: its path, the class, its probability; where an image may have several labels, each that it
has and its probability; where a number is predicted, "value" and the number. Needs NumPy, Pillow and what opens the
model, and nothing of multitl, which wrote it. Pictures of 8 bits become pixels as for `multitl predict`, to the last
bit; HEIC and more bits are beyond it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from multitl.data.geometry import fit_pixels, to_rgb
from multitl.standalone.decisions import decide, reaching
from multitl.standalone.runtimes import open_keras as open_model


def classify(paths: list[str], folder: Path) -> Iterator[list[tuple[str, float]]]:
    """The class and its probability for each image; of several labels those that are given, the likeliest first.

    folder: where the model lies, preprocess.json and labels.txt.
    """
    how: Any = SimpleNamespace(**json.loads((folder / "preprocess.json").read_text(encoding="utf-8")))
    labels = (folder / "labels.txt").read_text(encoding="utf-8").split("\n")
    answer = open_model(folder)
    for path in paths:
        pixels = fit_pixels(read_rgb(path, how), how)[np.newaxis]
        (probabilities,) = answer(as_taken(pixels, how))
        yield [(labels[index], float(probabilities[index])) for index in given(probabilities, how)]


def given(probabilities: np.ndarray, how: Any) -> list[int]:
    """Places of the labels that reach their thresholds, the likeliest first; without thresholds that of the class."""
    if how.thresholds is not None:
        return reaching(probabilities, how.thresholds)
    costs = None if how.costs is None else np.array(how.costs)
    return [int(index) for index in decide(probabilities[np.newaxis], costs)]


def read_rgb(path: str, how: Any) -> Image.Image:
    """An upright picture of 8-bit RGB; what is transparent becomes white."""
    if how.decoding["channels"]:
        raise SystemExit(f"{path}: `multitl predict` picks channels, but not this program")
    with Image.open(path) as image:
        if how.decoding["page"] > 1 and getattr(image, "n_frames", 1) > 1:
            image.seek(how.decoding["page"] - 1)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            raise SystemExit(
                f"{path} has more than 8 bits a value, which `multitl predict` reads, but not this program"
            )
        image.load()
        return to_rgb(ImageOps.exif_transpose(image))


def as_taken(pixels: np.ndarray, how: Any) -> np.ndarray:
    """uint8 (n, height, width, 3) as the model takes images: so, in [0, 1], or normalised."""
    if how.takes == "pixels":
        return pixels
    if how.takes == "unit":
        return pixels.astype("float32") / np.float32(255)
    ordered = pixels[..., ::-1] if how.channel_order == "bgr" else pixels
    return ordered.astype("float32") * np.array(how.scale, "float32") + np.array(how.offset, "float32")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for name, found in zip(sys.argv[1:], classify(sys.argv[1:], Path(__file__).resolve().parent), strict=True):
        print("\t".join([name, *(f"{label}\t{probability:.4f}" for label, probability in found)]), flush=True)
