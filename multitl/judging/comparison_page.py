"""compare.html: runs beside each other. It loads nothing and runs no script, like a run's report."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from multitl.judging.charts import LineChart, draw_lines
from multitl.judging.comparison import COMPARISON, Comparison, Entry, Pair, compare_runs
from multitl.judging.histories import History
from multitl.judging.pairs import LESS_IS_BETTER, Difference
from multitl.judging.reporting import (
    BACKEND_TITLES,
    MOST_PICTURES,
    TERMS,
    make_environment,
    picture_uri,
    shorten_path,
    show_interval,
    show_percent,
)
from multitl.recipes import Recipe
from multitl.runs.folders import check_results_folder
from multitl.runs.locks import locked, run_lock
from multitl.system.writing import write_json, write_text

PAGE = "compare.html"
TITLES = {
    "accuracy": "Accuracy", "f1_macro": "Macro F1", "log_loss": "Log loss", "map": "Mean average precision",
    "subset_accuracy": "All labels right", "mae": "Mean absolute error", "rmse": "Root mean squared error", "r2": "R²",
}  # fmt: skip
SHARES, WITHOUT_UNIT = ("accuracy", "f1_macro", "map", "subset_accuracy"), ("log_loss", "r2")
RIGHT = {"one": "right", "several": "all labels right", "number": "nearer"}
TESTS = {"one": "McNemar’s exact test", "several": "McNemar’s exact test", "number": "Exact sign test"}


@dataclass(frozen=True)
class Said:
    """What a run said of a picture. share: how sure it was, where there is one class.  is_right: None of numbers."""

    letter: str
    text: str
    share: float | None
    is_right: bool | None


def compare(
    folders: Iterable[str | os.PathLike[str]], output: str | os.PathLike[str] | None = None, *, overwrite: bool = False
) -> Comparison:
    """See `multitl.compare`."""
    runs = list(folders)
    place = Path(output or default_folder(runs))
    with locked(run_lock(place), place):
        check_results_folder(
            place, COMPARISON, "comparison", overwrite=overwrite, received=str(place),
            fix="add --overwrite to compare again, or choose another --out",
        )  # fmt: skip
        found = compare_runs(runs)
        write_json(place / COMPARISON, found.about())
        command = shlex.join(["multitl", "compare", *(os.fspath(run) for run in runs), "--out", str(place)])
        page = make_environment().get_template("compare.html.j2").render(_shown(found, command))
        write_text(place / PAGE, page.encode("utf-8", "replace").decode("utf-8"))
    return found


def default_folder(folders: Sequence[str | os.PathLike[str]]) -> Path:
    """Of a comparison, called after the first two runs."""
    return Path("runs/compare-" + "-".join(Path(run).resolve().name for run in folders[:2]))


def _shown(found: Comparison, command: str) -> dict[str, Any]:
    """All that the template shows, by name."""
    first = found.entries[0].card
    names = {Path(entry.card.data.path).name for entry in found.entries}
    return {
        "found": found,
        "titles": TITLES,
        "less": LESS_IS_BETTER,
        "shares": SHARES,
        "right": RIGHT[found.kind],
        "test": TESTS[found.kind],
        "backend_titles": BACKEND_TITLES,
        "data_name": names.pop() if len(names) == 1 else "",
        "class_count": len(first.class_names),
        "cautions": _cautions(found),
        "findings": [_sentence(pair, found.kind) for pair in found.pairs],
        "reaches": _reaches(found.pairs),
        "charts": _curves(found),
        "pictures": _pictures(found),
        "options": [(name, values, *_about_option(name)) for name, values in found.options.items()],
        "versions": [_machine(entry) for entry in found.entries],
        "command": command,
        "show_figure": show_figure,
        "show_change": show_change,
    }


def show_figure(name: str, value: float, interval: Sequence[float] | None = None) -> str:
    """ "96.3% (92.0–99.0%)"."""
    if name in SHARES:
        return show_percent(value) + (f" ({show_interval((interval[0], interval[1]))})" if interval else "")
    digits = ".3f" if name in WITHOUT_UNIT else ".4g"
    return f"{value:{digits}}" + (f" ({interval[0]:{digits}} to {interval[1]:{digits}})" if interval else "")


def show_change(name: str, one: Difference) -> str:
    """ "+2.5 points (−0.3 to 5.2)"."""
    factor, digits, unit = (100, ".1f", " points") if name in SHARES else (1, ".3g", "")
    digits = ".3f" if name in WITHOUT_UNIT else digits
    low, high = (f"{end * factor:{digits}}" for end in one.interval)
    return f"{one.difference * factor:+{digits}}{unit} ({low} to {high})".replace("-", "−")


def _sentence(pair: Pair, kind: str) -> dict[str, Any]:
    """What the first of the figures says of a pair: who is better, by how much."""
    name, one = next(iter(pair.duel.differences.items()), ("", None))
    if one is None:
        return {"pair": pair, "better": None, "name": "", "change": ""}
    gain = -one.difference if name in LESS_IS_BETTER else one.difference
    better = (pair.second if gain > 0 else pair.first) if one.is_clear else None
    return {"pair": pair, "better": better, "name": TITLES[name], "change": show_change(name, one)}


def _cautions(found: Comparison) -> list[str]:
    said = []
    if found.split == "validation":
        said.append(
            "Not every run has test images, so all figures come from the validation images, which also chose what was "
            "kept: expect a little less on new ones."
        )
    sizes = {len(entry.rows) for entry in found.entries}
    counts = {pair.duel.images for pair in found.pairs}
    if sizes != counts:
        said.append(
            f"The runs were not judged on the same images. Figures of one run are on all of its {found.split} images, "
            "as in its report; differences are on those that both were judged on."
        )
    for pair in found.pairs:
        if pair.relabelled:
            said.append(
                f"{pair.relabelled:,} images have one label in {pair.first.letter} and another in "
                f"{pair.second.letter}: they are left out of that pair."
            )
    return said


def _reaches(pairs: Sequence[Pair]) -> dict[str, float]:
    """Figure -> the farthest that an interval lies from zero, over all pairs: they are drawn to one scale."""
    ends: dict[str, float] = {}
    for pair in pairs:
        for name, one in pair.duel.differences.items():
            ends[name] = max(ends.get(name, 1e-12), *map(abs, one.interval))
    return ends


def _curves(found: Comparison) -> dict[str, LineChart]:
    """Validation figures over the steps of what was kept; none where all heads were solved."""
    ways = {entry: _kept(entry) for entry in found.entries}
    if all(len(history.steps) < 2 for history in ways.values()):
        return {}
    charts = {}
    for figure, term in (("val_loss", "loss"), ("val_accuracy", "right")):
        series = {
            f"{entry.letter}  {entry.name}": list(zip(_steps(history), history.figures[figure], strict=True))
            for entry, history in ways.items()
        }
        chart = draw_lines(series, is_share=figure == "val_accuracy" and found.kind != "number")
        if chart:
            charts[f"Validation {TERMS[found.kind][term]}"] = chart
    return charts


def _kept(entry: Entry) -> History:
    trials = entry.card.trials
    return entry.history.of({0, trials.kept if trials else 0})


def _steps(history: History) -> list[float]:
    """From the head's first step on, those of the trial after it."""
    of_head = max((step for step, trial in zip(history.steps, history.trials, strict=True) if not trial), default=0)
    return [float(step + (of_head if trial else 0)) for step, trial in zip(history.steps, history.trials, strict=True)]


def _pictures(found: Comparison) -> list[dict[str, Any]]:
    """The images that the runs answer most differently, the most different first."""
    rows = np.array([[entry.rows[path] for entry in found.entries] for path in found.common], dtype=int)
    if not len(rows):
        return []
    given = np.stack([entry.answers.given[rows[:, place]] for place, entry in enumerate(found.entries)])
    said = np.stack([entry.answers.probabilities[rows[:, place]] for place, entry in enumerate(found.entries)])
    differs = (given != given[0]).reshape(len(given), len(rows), -1).any(axis=(0, 2))
    spread = np.where(differs, np.ptp(said, axis=0).max(axis=1), -1.0)
    order = [int(image) for image in np.argsort(-spread, kind="stable")[:MOST_PICTURES] if differs[image]]
    return [_picture(found, found.common[image], rows[image].tolist()) for image in order]


def _picture(found: Comparison, path: str, rows: Sequence[int]) -> dict[str, Any]:
    first = found.entries[0]
    truth = first.answers.truth[rows[0]]
    return {
        "path": shorten_path(path, Path(first.card.data.path)),
        "uri": picture_uri(path, first.card.preprocess.decoding),
        "resize": first.card.preprocess.resize,
        "true": _text(found.kind, truth, first.predictions.class_names),
        "said": [_said(found.kind, entry, row) for entry, row in zip(found.entries, rows, strict=True)],
    }


def _said(kind: str, entry: Entry, row: int) -> Said:
    answers = entry.answers
    text = _text(kind, answers.given[row], entry.predictions.class_names)
    share = float(answers.probabilities[row, answers.given[row]]) if kind == "one" else None
    return Said(entry.letter, text, share, None if kind == "number" else bool(answers.right[row]))


def _text(kind: str, answer: Any, names: Sequence[str]) -> str:
    if kind == "one":
        return names[answer]
    if kind == "several":
        return ", ".join(compress(names, answer)) or "none"
    return f"{answer:.4g}"


def _about_option(name: str) -> tuple[Any, str]:
    field = Recipe.__dataclass_fields__[name]
    return field.default, field.metadata["help"]


def _machine(entry: Entry) -> str:
    card = entry.card
    versions = ", ".join(f"{name} {version}" for name, version in card.backend.versions.items())
    return f"multitl {card.multitl}, {versions}"
