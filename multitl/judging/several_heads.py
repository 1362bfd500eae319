"""A folder with several heads on one backbone, judged and used: the backbone is passed once for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from multitl.contracts import Split
from multitl.data.columns import Target, list_targets, write_tables
from multitl.data.tables import Reading
from multitl.judging.evaluation import classify, evaluate_run
from multitl.judging.opening import Run, check_predict, load_run
from multitl.judging.reporting import make_environment
from multitl.models.goals import goal_of
from multitl.models.joint import side_by_side
from multitl.models.model_files import load_saved_model
from multitl.recipes import Recipe
from multitl.runs.cards import Card
from multitl.runs.head_runs import read_heads, run_of
from multitl.system.scratch import temporary_folder
from multitl.system.writing import write_text


@dataclass(frozen=True)
class HeadRuns:
    """The runs of all heads, which `classify` takes for one."""

    folder: Path
    runs: Mapping[str, Run]

    @property
    def card(self) -> Card:
        """Of the first head: backbone and images are those of all."""
        return next(iter(self.runs.values())).card

    @property
    def judge(self) -> HeadRuns:
        return self

    @cached_property
    def model(self) -> keras.Model:
        """uint8 pixels (n, h, w, 3) -> the outputs of all heads side by side."""
        return side_by_side(load_saved_model(self.folder / "model.keras"), list(self.runs))

    def exact(self, outputs: np.ndarray) -> np.ndarray:
        """As `Goal.exact`, each head's by its own goal."""
        exact = [goal_of(run.card.recipe).exact(part) for run, part in self._parts(outputs)]
        return np.concatenate(exact, axis=1)

    def answer(self, probabilities: np.ndarray) -> dict[str, Any]:
        """What each head says of an image, by its name."""
        parts = self._parts(probabilities[None])
        return {name: run.judge.answer(part[0]) for name, (run, part) in zip(self.runs, parts, strict=True)}

    def _parts(self, outputs: np.ndarray) -> list[tuple[Run, np.ndarray]]:
        sizes = [len(run.card.class_names) for run in self.runs.values()]
        return list(zip(self.runs.values(), np.split(outputs, np.cumsum(sizes)[:-1], axis=1), strict=True))


def load_heads(folder: str | os.PathLike[str]) -> HeadRuns:
    """Open a folder with several heads. Raises RunError if it is unfinished or damaged."""
    place = Path(folder)
    return HeadRuns(place, {name: load_run(run_of(place, name)) for name in read_heads(place).kinds})


def predict_heads(
    folder: str | os.PathLike[str], images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
) -> list[dict[str, Any]]:
    """For each image path and, by the name of each head, what `multitl.predict` would give of that head alone."""
    heads = load_heads(folder)
    _, paths = check_predict(next(iter(heads.runs.values())), images)
    return list(classify(heads, paths))


def evaluate_heads(
    folder: str | os.PathLike[str], data: str | os.PathLike[str], split: Split, reading: Reading
) -> dict[str, dict[str, Any]]:
    """The figures of each head, on the images that have its target."""
    heads = load_heads(folder)
    targets = [Target(name, kind) for name, kind in read_heads(heads.folder).kinds.items()]
    recipe = Recipe(images=reading.images, path_column=reading.path_column)
    with temporary_folder() as scratch:
        tables = write_tables(list_targets(data, targets, recipe), scratch, recipe, is_cut=False)
        own = Reading(path_column="path", label_column="label")
        return {name: evaluate_run(heads.runs[name], table, split, own) for name, table in tables.items()}


def write_heads_report(folder: Path, lines: Sequence[tuple[str, str]]) -> None:
    """FOLDER/report.html: a line for each head, which leads to its own report. lines: name and figures in words."""
    page = make_environment().get_template("heads.html.j2").render(name=folder.resolve().name, lines=lines)
    write_text(folder / "report.html", page.encode("utf-8", "replace").decode("utf-8"))
