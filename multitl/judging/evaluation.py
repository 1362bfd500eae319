"""Judge and use a finished run: `multitl evaluate` and `multitl predict`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from multitl.contracts import Dataset, Split, Unreadable
from multitl.data.depths import Looks
from multitl.data.pixels import PixelReader, read_files
from multitl.data.scanning import scan_for_evaluation
from multitl.data.tables import AS_USUAL, Reading
from multitl.errors import DataError
from multitl.judging.opening import check_predict, lenient, load_run, with_costs
from multitl.models.goals import goal_of
from multitl.models.inference import BATCH, compile_forward, predict_padded, predict_pixels
from multitl.runs.cards import Card
from multitl.system.messages import say, warn
from multitl.system.progress import progress_bar

MOST_TOLD = 20  # files that were left out, in the terminal


class Answering(Protocol):
    """What can classify: a run, or several heads of one network. network: pixels (n, h, w, 3) -> (n, k)."""

    @property
    def card(self) -> Card: ...

    @property
    def network(self) -> keras.Model: ...

    def tell(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """What is said of images, of what the network gives for them (n, k)."""


def evaluate_run(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    split: Split | None = None,
    reading: Reading = AS_USUAL,
    costs: str | os.PathLike[str] = "",
    max_unreadable: float | None = None,
) -> dict[str, Any]:
    """Judge a run on labelled images: see `metrics.score` for the figures, or of several labels an image
    `label_metrics.score_labels`.

    data: as for `finetune`; of data with splits `split` (None: test) is used, else every image. The run must know its
    classes. Files that cannot be read are left out and named on stderr; too many of them raise DataError.
    reading: of a table; columns that it does not name are called as those that the run was trained with.
    costs: see `with_costs`.  max_unreadable: a share, 0 to 1 (None: as the run was trained).
    """
    opened = with_costs(load_run(run), costs)
    recipe = lenient(opened.card.recipe, max_unreadable)
    opened.model  # noqa: B018  (a damaged model is found before the long part)
    with progress_bar() as bar:
        task = bar.add_task("reading  ", total=None, note="")
        dataset = scan_for_evaluation(
            data, opened.card.class_names, split=split or "test", max_unreadable=recipe.max_unreadable,
            decoding=opened.card.preprocess.decoding, reading=reading.as_trained(recipe),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
        tell_oddities(dataset)
        task = bar.add_task("judging  ", total=len(dataset.examples), note="")
        reader = PixelReader(dataset.examples, opened.card.preprocess, memory_limit=0)
        outputs = predict_pixels(compile_forward(opened.model), reader, lambda done: bar.advance(task, done))
    goal = goal_of(recipe)
    truth = goal.truth_of(dataset.examples, len(opened.card.class_names))
    return opened.judge.score(truth, goal.exact(outputs))


def predict_images(
    run: str | os.PathLike[str], images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
) -> list[dict[str, Any]]:
    """Classify image files, or folders of them: see `multitl.predict`. Raises DataError if none can be read."""
    return list(classify(*check_predict(run, images)))


def classify(run: Answering, paths: Sequence[str], *, is_watched: bool = True) -> Iterator[dict[str, Any]]:
    """For each path in order what `multitl.predict` gives, as soon as it is known: however many there are, memory holds
    a few batches. Raises DataError at the end if none could be read.

    is_watched: with a progress bar.
    """
    forward = compile_forward(run.network)
    looks, reasons = Looks(), list[str]()
    contents = zip(paths, read_files(paths, run.card.preprocess, looks), strict=True)
    with progress_bar(is_shown=is_watched) as bar:
        task = bar.add_task("classify ", total=len(paths), note="")
        while batch := list(itertools.islice(contents, BATCH)):
            pixels = [content for _, content in batch if not isinstance(content, Unreadable)]
            said = iter(run.tell(predict_padded(forward, np.stack(pixels))) if pixels else ())
            for path, content in batch:
                if isinstance(content, Unreadable):
                    reasons.append(f"{path}: {content.reason}")
                    yield {"path": path, "error": content.reason}
                else:
                    yield {"path": path, **next(said)}
            bar.advance(task, len(batch))
    for warning in looks.warnings(run.card.preprocess.decoding, of_a_run=True):
        warn(warning)
    if len(reasons) == len(paths):
        raise DataError(
            "None of the images can be read.",
            expected="at least one image file",
            received="; ".join(reasons[:3]),
            fix="name files that an image viewer opens, or a folder of them",
        )


def tell_oddities(dataset: Dataset) -> None:
    """What is odd about the data, and the files left out."""
    for warning in dataset.warnings:
        warn(warning)
    tell_left_out(dataset.unreadable)


def tell_left_out(unreadable: Iterable[Unreadable]) -> None:
    """A line for each file, but for very many."""
    files = list(unreadable)
    for file in files[:MOST_TOLD]:
        say(f"left out: {file.path}: {file.reason}")
    if len(files) > MOST_TOLD:
        say(f"left out: {len(files) - MOST_TOLD:,} more")
