"""Judge and use a finished run: `multitl evaluate` and `multitl predict`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from multitl.contracts import Dataset, Preprocess, Split, Unreadable
from multitl.data.depths import Looks
from multitl.data.pixels import PixelReader, read_files
from multitl.data.scanning import list_images, scan_for_evaluation
from multitl.data.tables import AS_USUAL, Reading
from multitl.errors import DataError, RunError, WeightsError
from multitl.judging.metrics import score
from multitl.models.inference import BATCH, as_probabilities, compile_forward, predict_padded, predict_pixels
from multitl.models.model_files import load_saved_model
from multitl.runs.cards import Card, read_card
from multitl.system.progress import console, progress_bar


@dataclass(frozen=True)
class Run:
    """The folder of a finished run or a translated network; the model is loaded on first use."""

    folder: Path
    card: Card

    @cached_property
    def model(self) -> keras.Model:
        """uint8 pixels (n, h, w, 3) -> probabilities (n, k), without optimizer state."""
        return _load_model(self)


def load_run(run: str | os.PathLike[str]) -> Run:
    """Open a run folder. Raises RunError if it is missing, unfinished or damaged."""
    folder = Path(run)
    if not os.path.isdir(folder):  # noqa: PTH112  (never raises)
        raise RunError(
            f"There is no run folder {folder}.",
            expected="a folder that multitl finetune made",
            received=str(folder),
            nearest=sorted(str(path.parent) for path in folder.parent.glob("*/card.json"))[:3],
            fix="multitl finetune DATA --out " + str(folder),
        )
    return Run(folder, read_card(folder))


def evaluate_run(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    split: Split | None = None,
    reading: Reading = AS_USUAL,
) -> dict[str, Any]:
    """Judge a run on labelled images: see `metrics.score` for the figures.

    data: as for `finetune`; of data with splits `split` (None: test) is used, else every image. The run must know its
    classes. Files that cannot be read are left out and named on stderr; too many of them raise DataError.
    reading: of a table; columns that it does not name are called as those that the run was trained with.
    """
    opened = load_run(run)
    recipe = opened.card.recipe
    opened.model  # noqa: B018  (a damaged model is found before the long part)
    with progress_bar() as bar:
        task = bar.add_task("reading  ", total=None, note="")
        dataset = scan_for_evaluation(
            data, opened.card.class_names, split=split or "test", max_unreadable=recipe.max_unreadable,
            decoding=opened.card.preprocess.decoding, reading=reading.or_else(recipe.path_column, recipe.label_column),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
        bar.console.print("".join(_oddities(dataset)), markup=False, soft_wrap=True, end="")
        task = bar.add_task("judging  ", total=len(dataset.examples), note="")
        reader = PixelReader(dataset.examples, opened.card.preprocess, memory_limit=0)
        outputs = predict_pixels(compile_forward(opened.model), reader, lambda done: bar.advance(task, done))
    labels = np.array([example.label for example in dataset.examples])
    return score(labels, as_probabilities(outputs), opened.card.class_names, opened.card.seed)


def predict_images(
    run: str | os.PathLike[str], images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
) -> list[dict[str, Any]]:
    """Classify image files, or folders of them: see `multitl.predict`. Raises DataError if none can be read."""
    opened = load_run(run)
    paths, forward = list_images(images), compile_forward(opened.model)
    reasons: dict[int, str] = {}
    rows: list[np.ndarray] = []
    looks = Looks()
    for pixels in _readable_batches(paths, opened.card.preprocess, reasons, looks):
        rows += list(as_probabilities(predict_padded(forward, pixels)))
    for warning in looks.warnings(opened.card.preprocess.decoding, of_a_run=True):
        console().print(f"warning: {warning}", markup=False, soft_wrap=True)
    if not rows:
        raise DataError(
            "None of the images can be read.",
            expected="at least one image file",
            received="; ".join(f"{paths[index]}: {reason}" for index, reason in list(reasons.items())[:3]),
            fix="name files that an image viewer opens, or a folder of them",
        )
    left = iter(rows)
    return [
        {"path": path, "error": reasons[index]} if index in reasons else {"path": path, **_verdict(next(left), opened)}
        for index, path in enumerate(paths)
    ]


def _readable_batches(
    paths: Sequence[str], preprocess: Preprocess, reasons: dict[int, str], looks: Looks
) -> Iterator[np.ndarray]:
    """Batches of the files that can be read; of the others the reason is put down under the file's index."""
    pixels: list[np.ndarray] = []
    for index, content in enumerate(read_files(paths, preprocess, looks)):
        if isinstance(content, Unreadable):
            reasons[index] = content.reason
            continue
        pixels.append(content)
        if len(pixels) == BATCH:
            yield np.stack(pixels)
            pixels = []
    if pixels:
        yield np.stack(pixels)


def _verdict(row: np.ndarray, run: Run) -> dict[str, Any]:
    best = int(row.argmax())
    return {
        "predicted": run.card.class_names[best],
        "confidence": float(row[best]),
        "probabilities": {name: float(value) for name, value in zip(run.card.class_names, row, strict=True)},
    }


def _oddities(dataset: Dataset) -> list[str]:
    """Lines for stderr: what is odd about the data, and the files left out."""
    return [f"warning: {warning}\n" for warning in dataset.warnings] + [
        f"left out: {file.path}: {file.reason}\n" for file in dataset.unreadable
    ]


def _load_model(run: Run) -> keras.Model:
    path = run.folder / "model.keras"
    try:
        model = load_saved_model(path)
    except WeightsError as error:
        raise _bad_model(path, error.received) from error
    expected = [(None, run.card.preprocess.height, run.card.preprocess.width, 3)], (None, len(run.card.class_names))
    received = [tuple(tensor.shape) for tensor in model.inputs], tuple(model.output_shape)
    if received != expected:
        raise _bad_model(path, f"a model of inputs {received[0]} and output {received[1]}")
    return model


def _bad_model(path: Path, received: str) -> RunError:
    return RunError(
        f"The model {path} cannot be used.",
        expected="the file that training wrote, for the classes and image size in card.json",
        received=received,
        fix="run multitl finetune again with --overwrite; stored features are kept",
    )
