"""Something to train on that needs no download: three classes of coloured shapes on noise.

python examples/toy_photos.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = {"disc": "orange", "square": "teal", "triangle": "purple"}


def make_photos(folder: str | Path, count: int = 16) -> Path:
    """Write `folder`/CLASS/NN.png, `count` images of 96 x 72 pixels a class, and return the folder."""
    random, root = np.random.default_rng(0), Path(folder)
    for name, colour in CLASSES.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            photo = Image.fromarray(random.integers(0, 256, (72, 96, 3), dtype=np.uint8))
            draw, (x, y, r) = ImageDraw.Draw(photo), random.integers((28, 28, 14), (44, 44, 26)).tolist()
            if name == "disc":
                draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
            else:
                draw.regular_polygon((x, y, r), n_sides=4 if name == "square" else 3, fill=colour)
            photo.save(root / name / f"{index:02}.png")
    return root


if __name__ == "__main__":
    print(make_photos(sys.argv[1]))
