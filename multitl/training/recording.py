"""The end of a run: save the classifier and prove the file, judge the predictions, write the card.

The card, then the report are written last; a run folder that has a card is complete.
"""

from __future__ import annotations

import datetime
import io
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np

from multitl.contracts import SPLITS, Backend, Dataset, Goal, Pretrained, Result, Scale, Split
from multitl.errors import RunError
from multitl.files.csv_cells import write_row
from multitl.judging.judges import judge_of
from multitl.judging.predictions import Judged
from multitl.judging.reporting import write_report
from multitl.models.goals import GOALS
from multitl.models.initialisers import numpy_initialisers
from multitl.models.insides import parts_of
from multitl.models.keras_archives import write_keras_archive
from multitl.models.together import Together
from multitl.recipes import Recipe
from multitl.runs.cards import as_line, checked
from multitl.runs.folders import finished_result
from multitl.runs.images import write_images
from multitl.runs.promises import FILES, REPORT, hash_files
from multitl.system.writing import atomic_write, read_json, write_json, write_text
from multitl.training.targets import truth_of
from multitl.version import __version__

# on probabilities; float32 in practice is below 1e-5
TOLERANCE = {"auto": 1e-3, "float32": 1e-3, "tf32": 1e-3, "bfloat16": 3e-2, "float16": 3e-2, "mixed": 3e-2}


Ask: TypeAlias = Callable[[keras.Model, np.ndarray], np.ndarray]


def save_model(
    folder: Path, classifier: keras.Model, pixels: np.ndarray, expected: np.ndarray, precision: str,
    goal: Goal | Together = GOALS["one"], heads: Sequence[str] = (), ask: Ask | None = None,
) -> float:  # fmt: skip
    """Write model.keras, load it again as a user would, and compare its probabilities with those of training.

    pixels: uint8 (n, height, width, 3).  expected: (n, classes), of several heads side by side.  heads: their names,
    by which the model has outputs, if it has several.  ask: gives the loaded model's outputs for the pixels, and may
    look at more than these; by default Keras' own way.  Returns the largest absolute difference, of numbers
    in deviations of the training images'.
    Raises RunError if the file does not give the same answers.
    """
    _forget_training(classifier)
    with atomic_write(folder / "model.keras") as path:
        write_keras_archive(classifier, path)
        with numpy_initialisers(seed=None):  # by plain Keras: the file is this process' own
            loaded = keras.models.load_model(path, compile=False)
        outputs = ask(loaded, pixels) if ask else loaded.predict_on_batch(pixels)
        given = goal.as_targets(
            np.concatenate([np.asarray(outputs[name]) for name in heads], axis=1) if heads else np.asarray(outputs)
        )
        difference = float(np.abs(given - goal.as_targets(expected)).max())
        if difference > TOLERANCE[precision]:
            raise RunError(
                "The saved model does not give the answers of the trained one, so it was not kept.",
                expected=f"probabilities within {TOLERANCE[precision]:g}",
                received=f"a difference of {difference:.2g}",
                fix="run again with --resume; if it happens again, please report it with the output of multitl doctor",
            )
    return difference


def _forget_training(classifier: keras.Model) -> None:
    """Leave optimizers out of the file: Keras names a backend's own class, which the other backends cannot import."""
    for part in parts_of(classifier):
        if isinstance(part, keras.Model):
            part.compiled, part.optimizer = False, None


def judge(
    folder: Path, dataset: Dataset, probabilities: Mapping[Split, np.ndarray], recipe: Recipe,
    thresholds: Sequence[float] = (), scale: Scale | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write metrics.json and predictions.csv for the judged splits, and images.csv; a split without images is null.

    thresholds, scale: see `judges.judge_of`.
    """
    metrics: dict[str, Any] = {"test": None, "validation": None}
    rows, judge = list[Judged](), judge_of(recipe, dataset.class_names, thresholds, scale)
    for split, values in probabilities.items():
        examples, truth = dataset.split(split), truth_of(dataset, recipe, split)
        metrics[split] = judge.score(truth, values)
        rows += [(split, e.path, true, row) for e, true, row in zip(examples, truth, values, strict=True)]
    judge.write(folder / "predictions.csv", rows)
    write_images(folder, dataset.examples, dataset.class_names)
    write_json(folder / "metrics.json", metrics)
    return metrics


def make_card(
    data: str | os.PathLike[str],
    dataset: Dataset,
    pretrained: Pretrained,
    recipe: Recipe,
    backend: Backend,
    sha256: str,
) -> dict[str, Any]:
    """Everything needed to know what this model is and to make it again; docs/reference/run-folder.md has the keys."""
    return describe_machine(backend) | {
        "backbone": describe_backbone(pretrained, sha256),
        "data": _describe_data(data, dataset),
        "recipe": asdict(recipe),
        "seed": recipe.seed,
    }


def describe_machine(backend: Backend) -> dict[str, Any]:
    """The first keys of every card: what made it, when, on what."""
    return {
        "multitl": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "status": "complete",
        "backend": {
            "name": backend.name,
            "versions": {"keras": keras.__version__} | backend.versions(),
            "devices": backend.devices(),
        },
    }


def finish(folder: Path, card: dict[str, Any], names: tuple[str, ...] = FILES) -> Result:
    """Write the card, the report that is made from it, and the card again with the report's checksum.

    names: of the files that the card promises.
    """
    files = hash_files(folder, names)
    write_json(folder / "card.json", checked(card | {"files": files}))
    write_report(folder)
    write_json(folder / "card.json", checked(card | {"files": files | hash_files(folder, (REPORT,))}))
    return finished_result(folder)


def remake_report(folder: Path) -> Result:
    """Of a finished run whose other files are as its card says."""
    return finish(folder, read_json(folder / "card.json", missing=""), present_files(folder))


def present_files(folder: Path) -> tuple[str, ...]:
    """Of those that a card promises: an older version, whose run is gone on with, has written fewer."""
    return tuple(name for name in FILES if (folder / name).exists())


def write_history(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """history.csv, a line for each judgement."""
    text = io.StringIO()
    names = ["phase", "trial", "step", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"]
    write_row(text, names)
    for row in rows:
        write_row(text, [row[name] for name in names])
    write_text(folder / "history.csv", text.getvalue())


def describe_backbone(pretrained: Pretrained, sha256: str) -> dict[str, Any]:
    """What is known of a backbone; of a translated one also how exact it is, and which tensor went where."""
    origin = pretrained.origin
    return {
        "name": as_line(pretrained.name),
        "weights": origin.weights,
        "file_sha256": origin.file_sha256,
        "weights_sha256": sha256,
        "parameters": pretrained.backbone.count_params(),
        "licence": origin.licence,
        "url": origin.url,
        "preprocess": asdict(pretrained.preprocess),
        "stages": [asdict(stage) for stage in pretrained.stages],
        "parity": asdict(pretrained.parity) if pretrained.parity else None,
        "feature_map": pretrained.feature_map,
        "tensors": [asdict(weight) for weight in pretrained.weights],
        "classifier": [asdict(weight) for weight in pretrained.classifier],
        "unused": list(pretrained.unused),
    }


def _describe_data(data: str | os.PathLike[str], dataset: Dataset) -> dict[str, Any]:
    names = dataset.class_names
    counts = {
        split: Counter(names[label] for example in dataset.split(split) for label in example.labels) for split in SPLITS
    }
    return {
        "path": str(Path(data).resolve()),
        "fingerprint": dataset.fingerprint,
        "class_names": list(names),
        "counts": {split: {name: counts[split][name] for name in names} for split in SPLITS},
        "images": {split: len(dataset.split(split)) for split in SPLITS},
        "unreadable": [asdict(file) for file in dataset.unreadable],
        "warnings": list(dataset.warnings),
    }
