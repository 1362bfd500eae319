"""What a model answers before it leaves, and to which images: the reference of every proof."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from multitl.contracts import Preprocess, Unreadable
from multitl.data.pixels import read_files
from multitl.data.scanning import list_images, scan_for_evaluation
from multitl.data.tables import AS_USUAL
from multitl.errors import DataError
from multitl.judging.opening import Run
from multitl.judging.predictions import read_predictions
from multitl.models.goals import goal_of
from multitl.models.inference import BATCH, compile_forward, predict_batches
from multitl.system.latency import latencies
from multitl.system.progress import progress_bar
from multitl.translation.parity import probe_images

MOST = 500  # images
MADE_UP = 16
CALIBRATION = 100  # images, as LiteRT's guide has it


@dataclass(frozen=True, eq=False)
class Reference:
    """pixels: uint8 (n, height, width, 3).  labels: the truth, as `contracts.Goal` has it, or None where nobody knows.
    outputs: (n, ...).

    calibration: uint8 (m, height, width, 3), other images of the same kind where there are any.  origin,
    calibrated_on: where both come from, for people.  milliseconds: of a single image, median.  are_photos: False for
    images that were made up.
    """

    pixels: np.ndarray
    labels: np.ndarray | None
    outputs: np.ndarray
    origin: str
    are_photos: bool
    calibration: np.ndarray
    calibrated_on: str
    milliseconds: float


@dataclass(frozen=True, eq=False)
class _Images:
    pixels: np.ndarray
    labels: np.ndarray | None
    origin: str


def make_reference(
    run: Run, images: str | os.PathLike[str] | None, calibration: str | os.PathLike[str] | None
) -> Reference:
    """The answers of a saved model.

    images: labelled images as for `evaluate`, or any images; None for those that the run was judged on, or made-up
    ones of a network that has not been trained here.  calibration: images to choose ranges by; None for the run's
    validation images, or else for the same images.
    Raises DataError where none of the images can be read.
    """
    chosen = _given(run, images) if images is not None else _judged(run, ("test", "validation"))
    are_photos = chosen is not None
    chosen = chosen or _made_up(run.card.preprocess)
    others = _given(run, calibration) if calibration is not None else _judged(run, ("validation",))
    others = others or chosen
    outputs = _answers(run, chosen.pixels)
    return Reference(
        pixels=chosen.pixels,
        labels=chosen.labels,
        outputs=outputs,
        origin=chosen.origin,
        are_photos=are_photos,
        calibration=others.pixels[:CALIBRATION],
        calibrated_on=others.origin,
        milliseconds=float(np.median(latencies(run.model.predict_on_batch, chosen.pixels[:1]))),
    )


def _answers(run: Run, pixels: np.ndarray) -> np.ndarray:
    """What the model says, (n, ...)."""
    forward, outputs = compile_forward(run.model), list[np.ndarray]()
    with progress_bar() as bar:
        task = bar.add_task("answers  ", total=len(pixels), note="")
        for values in predict_batches(forward, _in_batches(pixels)):
            outputs.append(values)
            bar.advance(task, len(values))
    return np.concatenate(outputs)


def _judged(run: Run, splits: tuple[str, ...]) -> _Images | None:
    """The first of the splits that the run's predictions.csv knows images of."""
    path = run.folder / "predictions.csv"
    if not path.is_file():
        return None
    predictions = read_predictions(path)
    for split in splits:
        if (known := predictions.of(split)).paths:
            order = _some(len(known.paths))
            paths, labels = [known.paths[index] for index in order], known.labels[order]
            return _read(paths, labels, run.card.preprocess, f"the run's {split} images")
    return None


def _given(run: Run, data: str | os.PathLike[str]) -> _Images:
    try:
        recipe, decoding = run.card.recipe, run.card.preprocess.decoding
        reading = AS_USUAL.as_trained(recipe)
        examples = scan_for_evaluation(
            data, run.card.class_names, max_unreadable=1.0, decoding=decoding, reading=reading
        ).examples
        truth = goal_of(recipe).truth_of(examples, len(run.card.class_names))
        paths, labels = [one.path for one in examples], truth
    except DataError:  # of other classes or none: images all the same
        paths, labels = list_images(data), None
    order = _some(len(paths))
    known = None if labels is None else labels[order]
    return _read([paths[index] for index in order], known, run.card.preprocess, f"images of {data}")


def _some(count: int) -> np.ndarray:
    """At most MOST indices, the same ones every time, in order."""
    return np.sort(np.random.default_rng(0).permutation(count)[:MOST])


def _read(paths: list[str], labels: np.ndarray | None, preprocess: Preprocess, origin: str) -> _Images:
    contents = list(enumerate(read_files(paths, preprocess)))
    readable = {index: content for index, content in contents if not isinstance(content, Unreadable)}
    if not readable:
        raise DataError(
            f"None of {origin} can be read.",
            expected="at least one image to compare answers on",
            received="; ".join(f"{one.path}: {one.reason}" for _, one in contents[:3] if isinstance(one, Unreadable)),
            fix="name images with --images",
        )
    return _Images(np.stack(list(readable.values())), None if labels is None else labels[list(readable)], origin)


def _made_up(preprocess: Preprocess) -> _Images:
    images = probe_images(preprocess.shape, count=MADE_UP)
    pixels = (images * 48 + 128).clip(0, 255).astype("uint8")
    return _Images(pixels, None, f"{MADE_UP} made-up images")


def _in_batches(pixels: np.ndarray) -> list[np.ndarray]:
    return [pixels[first : first + BATCH] for first in range(0, len(pixels), BATCH)]
