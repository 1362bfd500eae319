"""Two heads on one backbone against two runs: `python benchmarks/multitask.py CROPS [IMAGES] [BACKBONE] [SIZE]`

CROPS is a folder CLASS/images of square pictures, such as deeppcb_crops' train folder. A made-up second target, a
number, is how far a crop is turned, from -45 to 45 degrees: its middle is cut out after the turn, so that no corner
tells. Of IMAGES pictures (default 1,200) a class and an angle are learned, once with `finetune_heads` and once by a run
each, which computes its own features. Both have the same train, validation and test images. Prints accuracy, mean
absolute error, seconds, and those of all cores, which tell more where others use the machine too. Ends with an error if
a head is worse than its own run by more than a point, or 2 %, or if both heads take more than 0.55 of the time.
"""

from __future__ import annotations

import csv
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from startup import machine

import multitl
from multitl.recipes import Recipe

MOST = 45.0  # degrees
MIDDLE = 0.68  # of a side: what is left of a square that is turned by as much
WARMING = 80  # pictures
POINT, PERCENT, TIME = 0.01, 1.02, 0.55


def turn(crops: Path, count: int, folder: Path) -> Path:
    """Write the pictures, and their table. Returns the table's path."""
    random = np.random.default_rng(0)
    photos = sorted((path, path.parent.name) for path in crops.glob("*/*") if path.suffix.lower() in (".jpg", ".png"))
    rows = []
    for number, place in enumerate(random.permutation(len(photos))[:count]):
        path, label = photos[place]
        angle = float(random.uniform(-MOST, MOST))
        with Image.open(path) as image:
            picture = image.convert("RGB").rotate(angle, Image.Resampling.BICUBIC)
        cut = round(min(picture.size) * (1 - MIDDLE) / 2)
        picture.crop((cut, cut, picture.width - cut, picture.height - cut)).save(folder / f"{number:05}.png")
        rows.append((f"{number:05}.png", label, f"{angle:.2f}"))
    with (folder / "crops.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "defect", "angle"), *rows])
    return folder / "crops.csv"


def clocks() -> np.ndarray:
    """Seconds by the clock, and of all cores, child processes that ended among them."""
    return np.array([time.perf_counter(), sum(os.times()[:4])])


def run_together(table: Path, recipe: Recipe, folder: Path) -> tuple[dict[str, float], np.ndarray]:
    """Accuracy of one head and mean absolute error of the other on the test images, and what both took."""
    os.environ["MULTITL_CACHE"] = str(folder / "cache-together")
    started = clocks()
    result = multitl.finetune_heads(table, "defect=class, angle=number", output=folder / "heads", recipe=recipe)
    seconds = clocks() - started
    metrics = result.metrics
    return {"accuracy": metrics["defect"]["test"]["accuracy"], "mae": metrics["angle"]["test"]["mae"]}, seconds


def run_apart(folder: Path, recipe: Recipe) -> tuple[dict[str, float], np.ndarray]:
    """The same of a run each, on the same parts, which the heads' tables name."""
    figures, seconds = {}, np.zeros(2)
    for name, labels, figure in (("defect", "one", "accuracy"), ("angle", "number", "mae")):
        os.environ["MULTITL_CACHE"] = str(folder / f"cache-{name}")
        own = replace(recipe, labels=labels, label_column="label")
        started = clocks()
        result = multitl.finetune(folder / "heads" / "heads" / f"{name}.csv", output=folder / name, recipe=own)
        seconds += clocks() - started
        figures[figure] = result.metrics["test"][figure]
    return figures, seconds


def main() -> None:
    crops = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1200
    backbone = sys.argv[3] if len(sys.argv) > 3 else Recipe().backbone
    size = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    recipe = Recipe(backbone=backbone, image_size=size, unfreeze="none")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = turn(crops, count, folder)
        for warm in ("warm", "warmer"):  # what a process pays once is no part of it
            (folder / warm).mkdir()
        run_together(turn(crops, WARMING, folder / "warm"), recipe, folder / "warmer")
        together, joint_seconds = run_together(table, recipe, folder)
        apart, seconds = run_apart(folder, recipe)
    print(f"{machine()}; {backbone}, {keras.config.backend()}, {count} pictures")
    for about, figures, spent in (("together", together, joint_seconds), ("apart", apart, seconds)):
        told = f"accuracy {figures['accuracy']:.4f}, angle off by {figures['mae']:.2f} degrees"
        print(f"{about}: {told}, {spent[0]:.1f} s, {spent[1]:.1f} s of all cores")
    shares = joint_seconds / seconds
    print(f"{shares[0]:.2f} of the time, {shares[1]:.2f} of that of all cores")
    is_as_good = together["accuracy"] >= apart["accuracy"] - POINT and together["mae"] <= apart["mae"] * PERCENT
    sys.exit(not is_as_good or shares[0] > TIME)


if __name__ == "__main__":
    main()
