"""The same run with several seeds: how much a figure owes to luck."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from multitl.contracts import Result
from multitl.recipes import Recipe
from multitl.system.writing import write_json

SUMMARY = "summary.json"
FIGURES = ("accuracy", "f1_macro", "log_loss", "ece")
LABEL_FIGURES = ("map", "f1_macro", "subset_accuracy", "log_loss")  # where an image may have several labels
NUMBER_FIGURES = ("mae", "rmse", "r2")


def repeat(run: Callable[[Recipe, Path], Result], recipe: Recipe, folder: Path, times: int) -> dict[str, Any]:
    """Runs with the seeds from the recipe's on, each in FOLDER/seed-K, and FOLDER/summary.json of their figures.

    run: makes one, in the folder that it is given.  times: at least 1.

    The seed cuts the parts that the data do not bring, and draws the shots, so the spread is that of splits and
    training together. The figures are of test where there is one. Gives what is in the summary: runs, mean,
    standard_deviation (of the sample; 0 of a single run), by figure.
    """
    rows = [_describe(one.seed, run(one, place)) for one, place in plan(recipe, folder, times)]
    names = [
        name for name in dict.fromkeys(FIGURES + LABEL_FIGURES + NUMBER_FIGURES) if all(name in row for row in rows)
    ]
    columns = {name: [row[name] for row in rows] for name in names}
    summary = {
        "runs": rows,
        "mean": {name: statistics.fmean(values) for name, values in columns.items()},
        "standard_deviation": {
            name: statistics.stdev(values) if times > 1 else 0.0 for name, values in columns.items()
        },
    }
    write_json(folder / SUMMARY, summary)
    return summary


def plan(recipe: Recipe, folder: Path, times: int) -> list[tuple[Recipe, Path]]:
    """The recipe and the folder of each run."""
    recipes = [dataclasses.replace(recipe, seed=recipe.seed + number) for number in range(times)]
    return [(one, folder / f"seed-{one.seed}") for one in recipes]


def _describe(seed: int, result: Result) -> dict[str, Any]:
    split = "test" if result.metrics["test"] else "validation"
    figures = result.metrics[split]
    about = {"seed": seed, "folder": result.output.name, "split": split, "count": figures["count"]}
    names = LABEL_FIGURES if "per_label" in figures else NUMBER_FIGURES if "mae" in figures else FIGURES
    return about | {name: figures[name] for name in names if figures[name] is not None}
