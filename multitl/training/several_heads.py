"""Several heads on one backbone: the features of an image are computed once, and each head is solved by its own goal.

Each head is a run of its own in OUTPUT/heads/NAME, so all that can be done with a run can be done with a head; OUTPUT
itself has one network with an output for each, the figures of all, and a page that leads to their reports.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from multitl.contracts import Backend, Result, describe_figures
from multitl.data.columns import Target, list_targets, write_tables
from multitl.errors import RunError
from multitl.judging.opening import load_run
from multitl.judging.several_heads import write_heads_report
from multitl.models.initialisers import numpy_initialisers
from multitl.models.joint import join
from multitl.models.keras_archives import write_keras_archive
from multitl.recipes import Recipe
from multitl.runs.head_runs import FOLDER, HEADS, check_heads, run_of
from multitl.runs.locks import locked, run_lock
from multitl.system.messages import say
from multitl.system.writing import atomic_write, write_json
from multitl.training.asked import run_folder
from multitl.training.finetuning import finetune
from multitl.translation.parity import probe_images

PROVED = 4  # images that the joined network answers for
TOLERANCE = 1e-3  # of an answer's largest


@dataclass(frozen=True)
class HeadsResult:
    """What `finetune_heads` hands back. results: of each head by its name."""

    output: Path
    results: Mapping[str, Result]
    model_path: Path
    report_path: Path

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        return {name: result.metrics for name, result in self.results.items()}


def finetune_heads(
    data: str | os.PathLike[str], targets: Sequence[Target], *, backend: Backend, output: str | os.PathLike[str] | None,
    recipe: Recipe, overwrite: bool, resume: bool,
) -> HeadsResult:  # fmt: skip
    """See `multitl.finetune_heads`."""
    folder = run_folder(data, output, recipe, backend.name)
    with locked(run_lock(folder), folder):
        check_heads(folder, recipe, overwrite=overwrite, resume=resume)
        recipes = {target.name: recipe_of(target, recipe) for target in targets}  # what is wrong with one is found now
        listings = list_targets(data, targets, recipe)
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        kinds = {target.name: target.labels for target in targets}
        write_json(folder / HEADS, {"kinds": kinds, "finished": False})
        tables = write_tables(listings, folder / FOLDER, recipe, is_cut=True)
        results = {}
        for target in targets:
            say(f"head {target.name}: {target.labels}")
            results[target.name] = finetune(
                tables[target.name], backend=backend, output=run_of(folder, target.name),
                recipe=recipes[target.name], overwrite=overwrite, resume=resume,
            )  # fmt: skip
        _save_joined(folder, results)
        made = HeadsResult(folder, results, folder / "model.keras", folder / "report.html")
        write_json(folder / "metrics.json", made.metrics)
        write_heads_report(folder, [(name, describe_figures(one)) for name, one in made.metrics.items()])
        write_json(folder / HEADS, {"kinds": kinds, "finished": True})
    return made


def recipe_of(target: Target, recipe: Recipe) -> Recipe:
    """A head's own: it is read from a table of its own, and only classes have weights. Raises RecipeError."""
    own = replace(recipe, labels=target.labels, label_column="label", path_column="path", images="", label_separator="")
    return own if target.labels == "one" else replace(own, class_weights="none")


def _save_joined(folder: Path, results: Mapping[str, Result]) -> None:
    """One network of all heads. Raises RunError if the file does not give what the heads' own networks give."""
    runs = {name: load_run(result.output) for name, result in results.items()}
    joined = join({name: run.model for name, run in runs.items()})
    height, width = next(iter(runs.values())).card.preprocess.height, next(iter(runs.values())).card.preprocess.width
    pixels = (probe_images((height, width, 3), PROVED) * 48 + 128).clip(0, 255).astype("uint8")
    with atomic_write(folder / "model.keras") as path:
        write_keras_archive(joined, path)
        with numpy_initialisers(seed=None):  # by plain Keras: the file is this process' own
            given = keras.models.load_model(path, compile=False).predict_on_batch(pixels)
        for name, run in runs.items():
            own = np.asarray(run.model.predict_on_batch(pixels))
            difference = float(np.abs(np.asarray(given[name]) - own).max() / np.abs(own).max())
            if not difference <= TOLERANCE:
                raise RunError(
                    "The joined network does not give the answers of its heads, so it was not kept.",
                    expected=f"the same within {TOLERANCE:g}",
                    received=f"a difference of {difference:.2g} of the head {name}",
                    fix="run again with --resume; if it happens again, please report it",
                )
