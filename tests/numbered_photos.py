"""A small data set with a number for each image: a table of photos, whose number is how much of a photo is blue."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32


def make_numbered(root: Path, count: int = 60) -> Path:
    """ROOT/photos.csv lists photos and their `width`: 100 + 2 for each blue column, and a little noise."""
    random, rows = np.random.default_rng(0), []
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        wide = int(random.integers(0, SIDE + 1))
        pixels = random.integers(90, 160, (SIDE, SIDE, 3))
        pixels[:, :wide] = np.array((40, 60, 200)) + random.integers(-20, 20, 3)
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(root / f"{number:03}.png")
        rows.append((f"{number:03}.png", f"{100 + 2 * wide + random.normal(0, 0.5):.3f}"))
    with (root / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "width"), *rows])
    return root
