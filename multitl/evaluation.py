"""Judge and use a finished run: `multitl evaluate`, `multitl predict`, and what training shares with them.

Keras is imported only where a model is loaded, so that reading a run's files stays cheap.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from multitl.contracts import Preprocess, Split
from multitl.data import PixelReader, list_images, scan_for_evaluation
from multitl.errors import DataError, RunError
from multitl.images import UnreadableImage, read_pixels
from multitl.metrics import score
from multitl.runs import atomic_write, read_json
from multitl.threads import default_threads, map_batches

if TYPE_CHECKING:
    import keras

BATCH = 32  # one shape for every batch: XLA compiles once, and no figure depends on how images were grouped
UNFINISHED = "finish the run with --resume, or name the folder of a finished one"
PREDICTION_COLUMNS = ("split", "path", "label", "predicted", "confidence")


@dataclass(frozen=True)
class Run:
    """A finished run folder. `card` is its card.json; the model is loaded on first use."""

    folder: Path
    card: dict[str, Any]
    class_names: tuple[str, ...]
    preprocess: Preprocess

    @cached_property
    def model(self) -> keras.Model:
        """uint8 pixels (n, h, w, 3) -> probabilities (n, k), without optimizer state, loaded in Keras' safe mode."""
        return _load_model(self.folder / "model.keras", self)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What predictions.csv holds. labels: int (n,).  probabilities: float32 (n, k), columns as `class_names`."""

    class_names: tuple[str, ...]
    splits: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray

    def of(self, split: str) -> Predictions:
        """Only the images of one split."""
        rows = [row for row, name in enumerate(self.splits) if name == split]
        paths = tuple(self.paths[row] for row in rows)
        return Predictions(self.class_names, (split,) * len(rows), paths, self.labels[rows], self.probabilities[rows])


def load_run(run: str | os.PathLike[str]) -> Run:
    """Open a run folder. Raises RunError if it is missing, unfinished or damaged."""
    folder = Path(run)
    if not folder.is_dir():
        raise RunError(
            f"There is no run folder {folder}.",
            expected="a folder that multitl finetune made",
            received=str(folder),
            nearest=sorted(str(path.parent) for path in folder.parent.glob("*/card.json"))[:3],
            fix="multitl finetune DATA --out " + str(folder),
        )
    card = read_json(folder / "card.json", missing=UNFINISHED)
    try:
        if card["status"] != "complete":
            raise ValueError(f"status {card['status']!r}")
        return Run(folder, card, tuple(card["data"]["class_names"]), _preprocess(card["backbone"]["preprocess"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{folder / 'card.json'} does not describe a finished run.",
            expected="the card that multitl finetune writes",
            received=repr(error),
            fix=UNFINISHED,
        ) from error


def evaluate_run(run: str | os.PathLike[str], data: str | os.PathLike[str], split: Split = "test") -> dict[str, Any]:
    """Judge a run on labelled images: see `metrics.score` for the figures.

    data: as for `finetune`; of data with splits `split` is used, else every image. The run must know its classes.
    """
    opened = load_run(run)
    dataset = scan_for_evaluation(data, opened.class_names, split=split)
    reader = PixelReader([example.path for example in dataset.examples], opened.preprocess)
    count = len(dataset.examples)
    probabilities = predict_probabilities(opened.model, reader.batches(_index_batches(count)), count)
    return score(np.array([example.label for example in dataset.examples]), probabilities, opened.class_names)


def predict_images(run: str | os.PathLike[str], images: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Classify image files, or folders of them: see `multitl.predict`. Raises DataError if none can be read."""
    opened = load_run(run)
    paths = list_images(images)
    entries: list[dict[str, Any]] = []
    chunks = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    read = partial(_read_or_explain, preprocess=opened.preprocess)
    for chunk, contents in zip(chunks, map_batches(read, chunks, threads=default_threads(), ahead=2), strict=True):
        entries += _classify(opened, chunk, contents)
    if all("error" in entry for entry in entries):
        raise DataError(
            "None of the images can be read.",
            expected="at least one image file",
            received="; ".join(f"{entry['path']}: {entry['error']}" for entry in entries[:3]) or "no files",
            fix="name files that an image viewer opens, or a folder of them",
        )
    return entries


def predict_probabilities(model: keras.Model, batches: Iterable[np.ndarray], total: int) -> np.ndarray:
    """Run a classifier over batches of uint8 pixels (b, h, w, 3) -> float32 (total, k), rows summing to 1.

    Every batch is cut into, and filled up to, one fixed size, so an image's probabilities do not depend on how many
    others there are. A 16-bit model's rows are normalised in float64.
    """
    rows: np.ndarray | None = None
    done = 0
    for batch in batches:
        for start in range(0, len(batch), BATCH):
            values = _predict_padded(model, batch[start : start + BATCH])
            rows = np.empty((total, values.shape[1]), np.float32) if rows is None else rows
            rows[done : done + len(values)] = values / values.sum(axis=1, keepdims=True)
            done += len(values)
    if rows is None or done != total:
        raise ValueError(f"{total} images were announced, {done} came")
    return rows


def write_predictions(
    path: str | os.PathLike[str], rows: Iterable[tuple[str, str, str, np.ndarray]], class_names: Sequence[str]
) -> None:
    """Write predictions.csv. rows: split, path, true class name and probabilities (k,) of each image, in any order."""
    with atomic_write(path) as temporary, _open(temporary, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*PREDICTION_COLUMNS, *(f"p:{name}" for name in class_names)])
        for split, image, label, probabilities in rows:
            best = int(np.argmax(probabilities))
            texts = [f"{value:.9g}" for value in np.asarray(probabilities, np.float32)]  # 9 digits: float32 exactly
            writer.writerow([split, image, label, class_names[best], texts[best], *texts])


def read_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Read predictions.csv back. Raises RunError if it is missing or damaged."""
    try:
        with _open(Path(path), "r") as file:
            header, *rows = csv.reader(file)
        names = tuple(column.removeprefix("p:") for column in header[len(PREDICTION_COLUMNS) :])
        index = {name: i for i, name in enumerate(names)}
        probabilities = np.array([row[len(PREDICTION_COLUMNS) :] for row in rows], np.float32)
        labels = np.array([index[row[2]] for row in rows], np.int64)
        splits, paths = tuple(row[0] for row in rows), tuple(row[1] for row in rows)
        return Predictions(names, splits, paths, labels, probabilities.reshape(len(rows), len(names)))
    except (OSError, ValueError, KeyError, IndexError, csv.Error) as error:
        raise RunError(
            f"Cannot read {path}.", expected="the file that training wrote", received=repr(error), fix=UNFINISHED
        ) from error


def _open(path: Path, mode: str) -> IO[str]:
    """A CSV file that can hold any file name, also one that is not UTF-8."""
    return path.open(mode, newline="", encoding="utf-8", errors="surrogateescape")


def _predict_padded(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """At most BATCH images -> float64 (b, k)."""
    padding = np.repeat(pixels[:1], BATCH - len(pixels), axis=0)
    outputs = model.predict_on_batch(np.concatenate([pixels, padding]))
    return np.asarray(outputs).astype(np.float64)[: len(pixels)]


def _index_batches(count: int) -> Iterator[list[int]]:
    return (list(range(start, min(start + BATCH, count))) for start in range(0, count, BATCH))


def _read_or_explain(path: str, preprocess: Preprocess) -> np.ndarray | str:
    try:
        return read_pixels(path, preprocess)
    except UnreadableImage as error:
        return str(error)


def _classify(run: Run, paths: Sequence[str], contents: Sequence[np.ndarray | str]) -> list[dict[str, Any]]:
    """One entry a file: its verdict, or why it cannot be read. contents: pixels or the reason."""
    pixels = [content for content in contents if not isinstance(content, str)]
    rows = iter(predict_probabilities(run.model, [np.stack(pixels)], len(pixels)) if pixels else ())
    return [
        {"path": path, "error": content} if isinstance(content, str) else {"path": path, **_verdict(next(rows), run)}
        for path, content in zip(paths, contents, strict=True)
    ]


def _verdict(row: np.ndarray, run: Run) -> dict[str, Any]:
    best = int(row.argmax())
    return {
        "predicted": run.class_names[best],
        "confidence": float(row[best]),
        "probabilities": {name: float(value) for name, value in zip(run.class_names, row, strict=True)},
    }


def _preprocess(values: dict[str, Any]) -> Preprocess:
    """JSON has no tuples; `Preprocess` compares and hashes by them."""
    triples = {name: tuple(values[name]) for name in ("scale", "offset")}
    return Preprocess(**(values | triples))


def _load_model(path: Path, run: Run) -> keras.Model:
    import keras

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged archive raises whatever its first broken part raises
        raise _bad_model(path, f"{type(error).__name__}: {error}".splitlines()[0]) from error
    expected = [(None, run.preprocess.height, run.preprocess.width, 3)], (None, len(run.class_names))
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
