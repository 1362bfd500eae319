"""A folder with several heads on one backbone, judged and used: the backbone is passed once for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from multitl.contracts import Split, describe_figures
from multitl.data.columns import Target, images_of, list_targets, scan_targets_to_judge
from multitl.data.pixels import PixelReader
from multitl.data.tables import Reading
from multitl.judging.evaluation import classify, tell_oddities
from multitl.judging.opening import Run, check_predict, lenient, load_run
from multitl.judging.reporting import make_environment
from multitl.models.goals import goal_of
from multitl.models.inference import compile_forward, predict_pixels
from multitl.models.joint import side_by_side
from multitl.models.model_files import load_saved_model
from multitl.models.together import Together
from multitl.recipes import Recipe
from multitl.runs.cards import Card
from multitl.runs.head_runs import read_heads, run_of
from multitl.system.progress import progress_bar
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

    @cached_property
    def network(self) -> keras.Model:
        """uint8 pixels (n, h, w, 3) -> the outputs of all heads side by side."""
        return side_by_side(self.saved, list(self.runs))

    @cached_property
    def saved(self) -> keras.Model:
        """uint8 pixels (n, h, w, 3) -> the output of each head by its name."""
        return load_saved_model(self.folder / "model.keras")

    @property
    def models(self) -> dict[str, keras.Model]:
        """The same with the output of one head, for each by its name."""
        return {name: keras.Model(self.saved.input, self.saved.output[name], name="classifier") for name in self.runs}

    @cached_property
    def goals(self) -> Together:
        """Of all heads, in order."""
        goals = tuple(goal_of(run.card.recipe) for run in self.runs.values())
        return Together(goals, tuple(len(run.card.class_names) for run in self.runs.values()))

    def exact(self, outputs: np.ndarray) -> np.ndarray:
        """As `Goal.exact`, each head's by its own goal."""
        return self.goals.exact(outputs)

    def tell(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """What each head says of each image, by its name."""
        said = [[run.judge.answer(row) for row in part]
                for run, part in zip(self.runs.values(), self.goals.parts(self.exact(rows)), strict=True)]  # fmt: skip
        return [dict(zip(self.runs, one, strict=True)) for one in zip(*said, strict=True)]


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
    folder: str | os.PathLike[str], data: str | os.PathLike[str], split: Split, reading: Reading,
    max_unreadable: float | None = None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """The figures of each head, on the images that have its target; the network sees each image once."""
    heads = load_heads(folder)
    trained = lenient(Recipe.read(heads.folder / "recipe.toml"), max_unreadable)
    recipe = replace(trained, images=reading.images, path_column=reading.path_column or trained.path_column)
    targets = [Target(name, kind) for name, kind in read_heads(heads.folder).kinds.items()]
    names = {name: run.card.class_names for name, run in heads.runs.items()}
    heads.network  # noqa: B018  (a damaged model is found before the long part)
    with progress_bar() as bar:
        task = bar.add_task("reading  ", total=None, note="")
        datasets = scan_targets_to_judge(
            list_targets(data, targets, recipe, judges=True), names, split, recipe,
            lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
        for dataset in datasets.values():
            tell_oddities(dataset)
        images = images_of(datasets).examples
        task = bar.add_task("judging  ", total=len(images), note="")
        reader = PixelReader(images, heads.card.preprocess, memory_limit=0)
        outputs = predict_pixels(compile_forward(heads.network), reader, lambda done: bar.advance(task, done))
    places = {example.path: place for place, example in enumerate(images)}
    figures = {}
    for name, said in zip(datasets, heads.goals.parts(heads.exact(outputs)), strict=True):
        run, examples = heads.runs[name], datasets[name].examples
        truth = goal_of(run.card.recipe).truth_of(examples, len(names[name]))
        figures[name] = run.judge.score(truth, said[[places[example.path] for example in examples]])
    return figures


def write_heads_report(
    folder: Path, title: str, metrics: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]
) -> None:
    """FOLDER/report.html: each head's figures, which lead to its own report, and how they were trained together.

    metrics: by head.  about: heads.json, see `head_runs.Heads`.
    """
    alone, trials = about["alone"], about["trials"]
    lines = [
        (name, describe_figures(figures), describe_figures(alone[name]) if name in alone else "")
        for name, figures in metrics.items()
    ]
    page = make_environment().get_template("heads.html.j2")
    text = page.render(name=title, lines=lines, trials=trials, weights=about["weights"])
    write_text(folder / "report.html", text.encode("utf-8", "replace").decode("utf-8"))
