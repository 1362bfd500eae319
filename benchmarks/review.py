"""What `multitl review` and `multitl drift` find of faults that were planted, on real photos.

    KERAS_BACKEND=tensorflow python benchmarks/review.py RUN > benchmarks/review.md

RUN: a finished run on images of one class each, such as clothing_medium, whose own features are used, fine-tuned if it
was. Wrong labels: 5 % of all labels are drawn anew among the other classes, three times. Copies: 201 images are saved
as JPEG of quality 60, cropped to 90 % of each side somewhere, or halved, and put among all others.
Images of unknown classes: benchmarks/unknown.py.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from zoo import versions

from multitl.adapters import load_backend
from multitl.contracts import SPLITS, Example
from multitl.judging.metrics import score
from multitl.judging.opening import load_run
from multitl.reviewing.answers import unseen_answers
from multitl.reviewing.copies import ALIKE, ALIKE_TINY, NEAREST, pairs_of, verify
from multitl.reviewing.label_errors import find_label_errors
from multitl.reviewing.looks import look_at
from multitl.reviewing.neighbours import centre_of, nearest
from multitl.reviewing.subjects import Subject, open_subject
from multitl.training.solved_head import Task
from multitl.training.targets import truth_of

SHARE, SEEDS, PLANTED = 0.05, 3, 201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    backend = load_backend()
    run = load_run(parser.parse_args().run)
    subject = open_subject(run, None, backend)
    kept = run.card.trials.kept if run.card.trials else 0
    how = "fine-tuned" if kept else "as published"
    print(f"{datetime.date.today()}, {run.card.backbone.name} {how}, {len(subject.features):,} images; {versions()}\n")
    truth = truth_of(subject.dataset, subject.recipe, *SPLITS)
    for title, rows in {
        "Wrong labels": wrong_labels(subject, truth),
        "Copies": copies(subject),
        "Calibration of answers that are out of fold": calibration(subject, truth),
    }.items():
        print(f"\n## {title}\n")
        for number, row in enumerate(rows):
            if not number:
                print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
            print("| " + " | ".join(row.values()) + " |", flush=True)


def answers(subject: Subject, labels: np.ndarray) -> np.ndarray:
    """Probabilities (n, classes) of each image by heads that have not seen it, fitted to these labels."""
    targets = np.eye(len(subject.dataset.class_names), dtype="float32")[labels]
    own, others = subject.rows("train", "validation"), subject.rows("test")
    task = Task([subject.features[own]], targets[own], np.ones(len(own), "float32"))
    found = unseen_answers(task, subject.features[others])
    assert found
    return np.concatenate(found)


def wrong_labels(subject: Subject, truth: np.ndarray) -> Iterator[dict[str, str]]:
    classes, parts = len(subject.dataset.class_names), (subject.rows("train", "validation"), subject.rows("test"))
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        is_wrong = np.zeros(len(truth), bool)
        is_wrong[random.permutation(len(truth))[: round(SHARE * len(truth))]] = True
        labels = np.where(is_wrong, (truth + random.integers(1, classes, len(truth))) % classes, truth)
        probabilities = answers(subject, labels)
        found = [(part, find_label_errors(probabilities[part], labels[part])) for part in parts if part]
        flagged = np.concatenate([np.array(part)[one.rows] for part, one in found])
        own = probabilities[np.arange(len(labels)), labels]
        first = np.argsort(own, kind="stable")[: is_wrong.sum()]
        yield {
            "draw": str(seed),
            "wrong": str(is_wrong.sum()),
            "flagged": str(len(flagged)),
            "precision of the flagged": f"{is_wrong[flagged].mean():.3f}",
            "recall": f"{is_wrong[flagged].sum() / is_wrong.sum():.3f}",
            "precision of as many as are wrong": f"{is_wrong[first].mean():.3f}",
        }


def copies(subject: Subject) -> Iterator[dict[str, str]]:
    random, paths = np.random.default_rng(0), subject.paths
    chosen = random.permutation(len(paths))[:PLANTED]
    kinds = ("JPEG of quality 60", "crop of 90 %", "half of the size")
    with tempfile.TemporaryDirectory() as folder:
        planted = [plant(paths[image], Path(folder, f"{i:03}.jpg"), i % 3, random) for i, image in enumerate(chosen)]
        examples = [Example(str(p), 0, "train", hashlib.sha256(p.read_bytes()).hexdigest()) for p in planted]
        features = np.concatenate([subject.features[:], subject.extracting.features(examples)[:]])
        every = [*paths, *map(str, planted)]
        looks = look_at(every, subject.recipe.decoding, range(len(every)))
    candidates = pairs_of(nearest(features, features, NEAREST, centre_of(features)), ALIKE)
    candidates |= pairs_of(nearest(looks.tiny, looks.tiny, NEAREST), ALIKE_TINY)
    found = {copy.pair for copy in verify(candidates, looks.grey)}
    wanted = [(int(image), len(paths) + i) for i, image in enumerate(chosen)]
    natural = [pair for pair in found if pair[1] < len(paths)]
    for kind, name in enumerate(kinds):
        own = wanted[kind::3]
        yield {"planted": f"{len(own)} {name}", "found": f"{sum(pair in found for pair in own) / len(own):.3f}"}
    yield {"planted": f"{len(wanted)} in all", "found": f"{sum(pair in found for pair in wanted) / len(wanted):.3f}"}
    others = len(found) - len(natural) - sum(pair in found for pair in wanted)
    yield {"planted": f"other pairs with a planted copy: {others}; without: {len(natural)}", "found": ""}
    for one, other in natural:
        yield {"planted": f"{paths[one]} {paths[other]}", "found": "as it was"}


def plant(path: str, to: Path, kind: int, random: np.random.Generator) -> Path:
    with Image.open(path) as file:
        image = file.convert("RGB")
    width, height = image.size
    x, y = (int(random.integers(0, round(0.1 * side) + 1)) for side in image.size)
    if kind == 1:
        image = image.crop((x, y, x + round(0.9 * width), y + round(0.9 * height)))
    elif kind == 2:
        image = image.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    image.save(to, quality=92 if kind else 60)
    return to


def calibration(subject: Subject, truth: np.ndarray) -> Iterator[dict[str, str]]:
    figures = score(truth, answers(subject, truth), subject.dataset.class_names)
    yield {name: f"{figures[name]:.3f}" for name in ("accuracy", "ece", "log_loss")}


if __name__ == "__main__":
    main()
