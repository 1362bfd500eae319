"""Finished runs beside each other: `multitl compare`. Of their files alone; no model is loaded.

Every pair is compared on the images that both were judged on, which are known by their paths.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import string
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from multitl.errors import RunError, shorten
from multitl.judging.costs import cost_matrix
from multitl.judging.histories import MEND, History, read_history
from multitl.judging.opening import Run, load_run
from multitl.judging.pairs import Answers, Duel, compare_pair, figures_of, holm
from multitl.judging.predictions import Predictions, read_predictions
from multitl.judging.reporting import insist_on_all
from multitl.runs.cards import Card
from multitl.runs.images import read_images
from multitl.runs.label_figures import read_figures
from multitl.standalone.decisions import decide

MOST_RUNS = 8  # more lines than that are not told apart
COMPARISON = "compare.json"


@dataclass(frozen=True, eq=False)
class Entry:
    """A run that is compared. letter: what it is called in tables.  name: of its folder; the whole path if two runs
    have folders of one name.  predictions: of `split`, sorted by path, with the classes in the first run's order.
    figures: name -> its value and 95 % interval, None where there is none.
    """

    letter: str
    name: str
    run: Run
    split: str
    predictions: Predictions
    answers: Answers
    figures: dict[str, tuple[float, list[float]] | None]
    history: History

    @property
    def card(self) -> Card:
        return self.run.card

    @cached_property
    def rows(self) -> dict[str, int]:
        """Path of an image -> its place in `answers`."""
        return {path: row for row, path in enumerate(self.predictions.paths)}


@dataclass(frozen=True, eq=False)
class Pair:
    """Two runs on the images that both were judged on. relabelled: more images, whose labels differ.

    p_adjusted: `duel.p_value`, where there are several pairs made larger by Holm's method.
    """

    first: Entry
    second: Entry
    duel: Duel
    relabelled: int
    p_adjusted: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """kind: the recipe's `labels`.  common: paths of images that all runs were judged on, with the same labels."""

    kind: str
    split: str
    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]
    common: tuple[str, ...]

    @property
    def options(self) -> dict[str, list[Any]]:
        """What differs in the recipes: option -> each run's value."""
        recipes = [dataclasses.asdict(entry.card.recipe) for entry in self.entries]
        values = {name: [recipe[name] for recipe in recipes] for name in recipes[0]}
        return {name: row for name, row in values.items() if any(value != row[0] for value in row)}

    def about(self) -> dict[str, Any]:
        """compare.json."""
        return {
            "labels": self.kind,
            "split": self.split,
            "class_names": list(self.entries[0].predictions.class_names),
            "images": len(self.common),
            "runs": [_about_entry(entry) for entry in self.entries],
            "pairs": [_about_pair(pair) for pair in self.pairs],
            "options": self.options,
        }


def compare_runs(folders: Sequence[str | os.PathLike[str]], seed: int = 0) -> Comparison:
    """Read and compare finished runs, in this order. Raises RunError for runs that cannot be compared, and says why."""
    runs = _open(folders)
    kind = runs[0].card.recipe.labels
    read = [(run, read_predictions(run.folder / "predictions.csv")) for run in runs]
    metrics = [_figures(run, predictions) for run, predictions in read]
    split = "test" if all(figures["test"] for figures in metrics) else "validation"
    entries = tuple(
        _entry(letter, name, run, split, _sorted(found, runs[0].card.class_names), figures[split], seed)
        for letter, name, (run, found), figures in zip(
            string.ascii_uppercase, _names(runs), read, metrics, strict=False
        )
    )
    duels = [(first, second, *_duel(first, second, seed)) for first, second in itertools.combinations(entries, 2)]
    adjusted = holm([duel.p_value for _, _, duel, _ in duels])
    pairs = tuple(
        Pair(first, second, duel, relabelled, p_value)
        for (first, second, duel, relabelled), p_value in zip(duels, adjusted, strict=True)
    )
    common = [path for path in entries[0].predictions.paths if _is_common(path, entries)]
    return Comparison(kind, split, entries, pairs, tuple(common))


def _open(folders: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """Raises RunError for runs that say different kinds of things, or of different classes."""
    places = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    if not 2 <= len(places) <= MOST_RUNS or len(places) < len(folders):
        raise RunError(
            "These runs cannot be compared." if len(places) > 1 else "One run has nothing to be compared with.",
            expected=f"the folders of 2 to {MOST_RUNS} runs, each once",
            received=shorten((os.fspath(one) for one in folders), most=MOST_RUNS + 1) or "none",
            fix="multitl compare RUN RUN [RUN...]",
        )
    runs = [load_run(folder) for folder in folders]
    first = runs[0]
    for run in runs:
        if run.card.head is not None:
            raise RunError(
                f"{run.folder} is no run: multitl translate made it, and it was not judged.",
                expected="folders of finished runs",
                received=str(run.folder),
                fix=f"multitl finetune DATA --backbone {run.card.backbone.name}",
            )
        if run.card.recipe.labels != first.card.recipe.labels:
            raise RunError(
                f"{first.folder} and {run.folder} answer different questions.",
                expected=f"runs with labels = {first.card.recipe.labels!r}",
                received=f"labels = {run.card.recipe.labels!r}",
                fix="compare runs of one kind: a class, several labels, or a number an image",
            )
        if set(run.card.class_names) != set(first.card.class_names):
            ours, theirs = (set(one.card.class_names) for one in (first, run))
            raise RunError(
                f"{first.folder} and {run.folder} know different classes.",
                expected="runs of the same classes",
                received=f"only the first knows {shorten(sorted(ours - theirs)) or 'none'}; "
                f"only the second {shorten(sorted(theirs - ours)) or 'none'}",
                fix="train both on data of the same classes, or judge each with multitl evaluate",
            )
    return runs


def _names(runs: Sequence[Run]) -> list[str]:
    names = [run.folder.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run.folder) for name, run in zip(names, runs, strict=True)]


def _figures(run: Run, predictions: Predictions) -> dict[str, Any]:
    metrics = read_figures(run.folder, run.card, MEND)
    try:
        insist_on_all(run.card, metrics, predictions)
    except (KeyError, ValueError) as error:
        raise RunError(
            f"The files in {run.folder} do not belong together.",
            expected="card.json, metrics.json and predictions.csv of one run",
            received=repr(error),
            fix=MEND,
        ) from error
    return metrics


def _sorted(found: Predictions, class_names: Sequence[str]) -> Predictions:
    """By path, so that no order moves an interval, and with the classes in this order."""
    rows = sorted(range(len(found.paths)), key=lambda row: found.paths[row])
    columns = [found.class_names.index(name) for name in class_names]
    labels = found.labels[rows]
    if labels.ndim == 2:
        labels = labels[:, columns]
    elif labels.dtype.kind == "i":
        labels = np.argsort(columns)[labels]
    return Predictions(
        tuple(class_names), tuple(found.splits[row] for row in rows), tuple(found.paths[row] for row in rows), labels,
        found.probabilities[rows][:, columns],
    )  # fmt: skip


def _entry(
    letter: str, name: str, run: Run, split: str, found: Predictions, judged: dict[str, Any], seed: int
) -> Entry:
    """judged: of the split, in metrics.json, whose intervals are those that the report shows."""
    predictions = found.of(split)
    answers = _answers(run.card, predictions)
    figures = figures_of(answers, seed)
    for figure in figures:
        if judged.get(f"{figure}_ci"):
            figures[figure] = judged[figure], judged[f"{figure}_ci"]
    history = read_history(run.folder / "history.csv")
    return Entry(letter, name, run, split, predictions, answers, figures, history)


def _answers(card: Card, found: Predictions) -> Answers:
    kind, values = card.recipe.labels, found.probabilities
    if kind == "one":
        given = decide(values, cost_matrix(card.recipe.costs, found.class_names))
    elif kind == "several":
        by_name = dict(zip(card.class_names, card.thresholds, strict=True))
        given = values >= np.array([by_name[name] for name in found.class_names])
    else:
        given = values[:, 0].astype("float64")
    return Answers(kind, found.labels, given, values.astype("float64"))


def _duel(first: Entry, second: Entry, seed: int) -> tuple[Duel, int]:
    """And how many images both were judged on whose labels differ."""
    shared = [(row, second.rows[path]) for path, row in first.rows.items() if path in second.rows]
    same = [(one, two) for one, two in shared if np.array_equal(first.answers.truth[one], second.answers.truth[two])]
    if not same:
        raise RunError(
            f"{first.run.folder} and {second.run.folder} were not judged on the same images.",
            expected=f"{first.split} images in both, known by their paths and with the same labels",
            received=f"{len(first.rows)} and {len(second.rows)}, of which {len(shared)} have the same path"
            f"{_trained_on(first, second)}",
            fix="train both on the same data with the same --seed; or judge each on other images with multitl evaluate",
        )
    ours, theirs = zip(*same, strict=True)
    return compare_pair(first.answers.of(ours), second.answers.of(theirs), seed), len(shared) - len(same)


def _trained_on(first: Entry, second: Entry) -> str:
    """How many of the first's images the second was trained on, where that is written down."""
    ours, theirs = (read_images(entry.run.folder) for entry in (first, second))
    judged = {one.content for one in ours or () if one.split == first.split}
    count = sum(one.content in judged for one in theirs or () if one.split == "train")
    return f"; the second was trained on {count} of the first's" if count else ""


def _is_common(path: str, entries: Sequence[Entry]) -> bool:
    if any(path not in entry.rows for entry in entries):
        return False
    truths = [entry.answers.truth[entry.rows[path]] for entry in entries]
    return all(np.array_equal(truths[0], truth) for truth in truths)


def _about_entry(entry: Entry) -> dict[str, Any]:
    card = entry.card
    shown = {name: found and {"value": found[0], "interval": list(found[1])} for name, found in entry.figures.items()}
    return {
        "letter": entry.letter,
        "name": entry.name,
        "folder": str(entry.run.folder.resolve()),
        "created": card.created,
        "backbone": card.backbone.name,
        "backend": card.backend.name,
        "data": card.data.path,
        "parameters": card.backbone.parameters,
        "seconds": sum(card.seconds.values()),
        "images": len(entry.predictions.paths),
        "figures": shown,
    }


def _about_pair(pair: Pair) -> dict[str, Any]:
    names = {"first": pair.first.letter, "second": pair.second.letter, "relabelled": pair.relabelled}
    return names | dataclasses.asdict(pair.duel) | {"p_adjusted": pair.p_adjusted}
