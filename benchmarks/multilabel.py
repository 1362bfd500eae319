"""Several labels an image, against scikit-learn: `python benchmarks/multilabel.py CLOTHES [PAIRS] [BACKBONE] [SIZE]`

CLOTHES is a folder CLASS/images of single garments, such as clothing_medium's train folder. Photos are paired side by
side, PAIRS of them (default 1,000), so that a picture has two labels, or one where both are of a class; one in twelve
has one garment beside a grey half, and one in twelve none. multitl's solved head is compared with scikit-learn's
one-vs-rest LogisticRegression, with C chosen by five-fold cross-validation and with C = 1, on the same features and the
same images: mean average precision on the test images. Ends with an error if multitl's is lower.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
import warnings
from pathlib import Path

import keras
import numpy as np
from PIL import Image, ImageOps
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from startup import machine

import multitl
from multitl.data.pixels import PixelReader
from multitl.data.scanning import scan_for_training
from multitl.models import several_labels
from multitl.models.inference import compile_forward, predict_pixels
from multitl.recipes import Recipe

SIDE = 224
GREY = (128, 128, 128)
STRENGTHS = np.logspace(-3, 3, 7)


def pair(clothes: Path, count: int, folder: Path) -> Path:
    """Write the pictures, and their table. Returns the table's path."""
    random = np.random.default_rng(0)
    photos = sorted((path, path.parent.name) for path in clothes.glob("*/*") if path.suffix.lower() in (".jpg", ".png"))
    order = random.permutation(len(photos))
    rows = []
    for number in range(count):
        chosen = [photos[order[(2 * number + side) % len(photos)]] for side in range(2)]
        kept = chosen[: {0: 0, 1: 1}.get(number % 12, 2)]
        picture = Image.new("RGB", (2 * SIDE, SIDE), GREY)
        for side, (path, _) in enumerate(kept):
            with Image.open(path) as image:
                picture.paste(ImageOps.fit(image.convert("RGB"), (SIDE, SIDE)), (SIDE * side, 0))
        picture.save(folder / f"{number:05}.jpg", quality=92)
        rows.append((f"{number:05}.jpg", "|".join(sorted({label for _, label in kept}))))
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "labels"), *rows])
    return folder / "pairs.csv"


def compare(table: Path, recipe: Recipe, folder: Path) -> tuple[float, float, float]:
    """Mean average precision on the test images: multitl's; scikit-learn's with C chosen, and with C = 1."""
    dataset = scan_for_training(table, recipe)
    started = time.perf_counter()
    result = multitl.finetune(table, output=folder / "run", recipe=recipe)
    seconds = time.perf_counter() - started
    model = multitl.load(result.output).model
    forward = compile_forward(keras.Model(model.input, model.get_layer("pool").output))
    preprocess = multitl.load(result.output).card.preprocess
    features, truth = {}, {}
    for name, splits in {"known": ("train", "validation"), "test": ("test",)}.items():
        examples = [example for split in splits for example in dataset.split(split)]
        features[name] = predict_pixels(forward, PixelReader(examples, preprocess))
        truth[name] = several_labels.truth_of(examples, len(dataset.class_names))
    size = np.sqrt(np.square(features["known"]).mean())
    precisions = []
    chosen = LogisticRegressionCV(Cs=STRENGTHS, cv=5, scoring="neg_log_loss", max_iter=2000)
    for rival in (chosen, LogisticRegression(C=1.0, max_iter=2000)):
        fitted = OneVsRestClassifier(rival).fit(features["known"] / size, truth["known"])
        scores = fitted.decision_function(features["test"] / size)
        precisions.append(average_precision_score(truth["test"], scores))
    print(f"{machine()}; {recipe.backbone}, {preprocess.height} px, {keras.config.backend()}")
    print(f"{len(truth['known'])} pictures to fit, {len(truth['test'])} to test, {len(dataset.class_names)} labels")
    ours = result.metrics["test"]["map"]
    print(f"multitl {ours:.4f} ({seconds:.0f} s), scikit-learn {precisions[0]:.4f}, with C = 1 {precisions[1]:.4f}")
    return ours, precisions[0], precisions[1]


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)  # scikit-learn's, of each fit
    clothes = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    backbone = sys.argv[3] if len(sys.argv) > 3 else Recipe().backbone
    size = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    recipe = Recipe(labels="several", backbone=backbone, image_size=size, unfreeze="none")
    with tempfile.TemporaryDirectory() as folder:
        ours, *theirs = compare(pair(clothes, count, Path(folder)), recipe, Path(folder))
    sys.exit(ours < max(theirs))


if __name__ == "__main__":
    main()
