"""A run on stored features, made again after its images were relabelled, added to and thinned out: how long, how equal.

    python benchmarks/again.py [--images 10000] [--classes 10] [--folder /tmp/again]

Photos of noise, 40 pixels a side, and a small backbone of as many channels as EfficientNet-Lite0, so that the first
pass is short and the head is as large as usual; the second run computes nothing but the new images' features. What is
compared is a third run with an empty cache. Seconds are of `multitl.finetune` in a process that has made a run before;
`python benchmarks/again.py --profile` says where they go.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import shutil
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, CHANNELS = 40, 1280


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/again"))
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    os.environ["MULTITL_CACHE"] = str(options.folder / "cache")
    photos, backbone = options.folder / "photos", options.folder / "small.keras"
    make_photos(photos, range(options.images), options.classes)
    save_backbone(backbone)
    run(photos, backbone, options.folder / "first")
    change(photos, options.images, options.classes)
    profile = cProfile.Profile()
    if options.profile:
        profile.enable()
    second = run(photos, backbone, options.folder / "second")
    profile.disable()
    os.environ["MULTITL_CACHE"] = str(options.folder / "empty")
    fresh = run(photos, backbone, options.folder / "fresh")
    print(f"largest difference of a probability: {np.abs(second - fresh).max():.1e}")
    if options.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(60)


def make_photos(root: Path, numbers: range, classes: int) -> None:
    """class-K/NNNNN.png: noise around a colour of the class; no two files are equal."""
    for number in numbers:
        label, random = number % classes, np.random.default_rng(number)
        colour = np.random.default_rng([7, label]).uniform(60, 200, 3)
        pixels = random.normal(colour + random.normal(0, 25, 3), 40, (SIDE, SIDE, 3)).clip(0, 255).astype("uint8")
        folder = root / f"class-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number:05}.png", compress_level=1)


def change(root: Path, images: int, classes: int) -> None:
    """A hundredth relabelled, a hundredth removed, a hundredth new."""
    files = sorted(root.rglob("*.png"))
    for path in files[::100]:
        label = (int(path.parent.name.removeprefix("class-")) + 1) % classes
        path.rename(root / f"class-{label}" / f"moved-{path.name}")
    for path in files[50::100]:
        path.unlink()
    make_photos(root, range(images, images + images // 100), classes)


def save_backbone(path: Path) -> None:
    import keras

    layers = keras.layers
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    for number, (width, stride) in enumerate(((16, 4), (CHANNELS, 4))):
        seed = keras.initializers.HeNormal(seed=number)
        x = layers.Conv2D(width, 5, stride, "same", activation="relu", kernel_initializer=seed)(x)
    keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))).save(path)


def run(photos: Path, backbone: Path, output: Path) -> np.ndarray:
    """The probabilities of the test images, sorted by path."""
    import multitl
    from multitl.judging.predictions import read_predictions

    started, worked = time.perf_counter(), time.process_time()
    multitl.finetune(photos, backbone=f"file:{backbone}", output=output, unfreeze="none")
    wall, work = time.perf_counter() - started, time.process_time() - worked
    card = multitl.load(output).card
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in card.seconds.items())
    computed, reused = card.features.computed, card.features.reused
    print(f"{output.name}: {wall:.2f} s, of a processor {work:.2f} s ({parts})")
    print(f"    {computed:,} features computed, {reused:,} stored")
    return read_predictions(output / "predictions.csv").of("test").probabilities


if __name__ == "__main__":
    main()
