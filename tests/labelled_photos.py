"""A small data set with several labels an image: tables of photos, and a backbone that sees what is to be seen."""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path

import keras
import numpy as np
from PIL import Image

layers = keras.layers
COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}
SETS = [chosen for count in range(4) for chosen in combinations(COLOURS, count)]  # of labels, none among them
SIDE = 32


def make_labelled(root: Path, each: int = 6, separator: str = "|") -> Path:
    """Photos with a stripe for each of their labels, `each` of every set of labels.

    ROOT/photos.csv lists them, ROOT/bits.csv says the same in columns of 0 and 1.
    """
    random, rows = np.random.default_rng(0), []
    root.mkdir(parents=True, exist_ok=True)
    for number, labels in enumerate(SETS * each):
        pixels = random.integers(90, 160, (SIDE, SIDE, 3))
        for place, name in enumerate(COLOURS):
            if name in labels:
                pixels[:, 10 * place : 10 * place + 10] = np.array(COLOURS[name]) + random.integers(-30, 30, 3)
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(root / f"{number:03}.png")
        rows.append((f"{number:03}.png", labels))
    with (root / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "labels"), *((path, separator.join(labels)) for path, labels in rows)])
    with (root / "bits.csv").open("w", newline="") as file:
        bits = [(path, *(int(name in labels) for name in COLOURS)) for path, labels in rows]
        csv.writer(file).writerows([("path", *COLOURS), *bits])
    return root


def save_small_backbone(path: Path) -> Path:
    """Three convolutions with random weights, which compile in a second."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    for number, width in enumerate((8, 16, 24), start=1):
        x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False, name=f"conv{number}")(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"conv{number}_bn")(x))
    keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)), name="small").save(path)
    return path
