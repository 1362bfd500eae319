"""RUN/report.html: one page that shows how good a run is, where it fails and how to make it again.

The page is a function of the run folder's files and of the pictures they name. It loads nothing and runs no script (its
own Content-Security-Policy forbids both), and everything that came from a user is escaped.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2

from multitl.adapters import FILE
from multitl.contracts import Decoding
from multitl.data.images import UnreadableImage, jpeg_uri, thumbnail_jpeg
from multitl.errors import RunError
from multitl.judging.charts import CoverageChart, CurveChart, draw_coverage, draw_curves, draw_reliability
from multitl.judging.conformal import describe_sets
from multitl.judging.costs import cost_matrix
from multitl.judging.findings import (
    MOST_PAIRS,
    Picture,
    Trust,
    classes_by_f1,
    confused_pairs,
    confusion,
    coverage,
    error_bound_without_mistakes,
    lowest,
    overconfidence,
    telling_pictures,
    trust_above,
    typical_pictures,
)
from multitl.judging.histories import MEND, History, read_history
from multitl.judging.image_map import draw_map
from multitl.judging.label_findings import LabelPicture, describe_labels
from multitl.judging.merits import FIGURES, TITLES
from multitl.judging.metrics import Judged, judge, reliability
from multitl.judging.number_findings import NumberPicture, describe_numbers
from multitl.judging.picture_maps import draw_maps, read_maps
from multitl.judging.predictions import Predictions, read_predictions
from multitl.judging.proportions import baselines, cautions
from multitl.recipes import Recipe
from multitl.runs.cards import HEAD_TITLES, Card, read_card
from multitl.runs.heatmaps import ImageMaps
from multitl.runs.label_figures import read_figures
from multitl.standalone.decisions import decide
from multitl.system.writing import write_text

PAGES = {"one": "report.html.j2", "several": "labels.html.j2", "number": "numbers.html.j2"}  # by what an image has
_OF_CLASSES = {"loss": "log loss", "right": "accuracy", "minimised": "cross-entropy", "given": "probabilities"}
_OF_NUMBERS = {"loss": "squared error", "right": "variance explained", "minimised": "squared error", "given": "numbers"}
TERMS = {"one": _OF_CLASSES, "several": _OF_CLASSES, "number": _OF_NUMBERS}  # what figures of training are called
MOST_CLASSES = 50  # in the confusion matrix and the table of classes
MOST_PICTURES = 12
TRUST_LEVELS = (0.95, 0.8, 0.5)
THUMBNAIL_SIDE, SMALL = 224, 160  # pixels; shown at half of that, sharp on fine screens
BACKEND_TITLES = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
PHASE_TITLES = {"head": "head only", "finetune": "fine-tuning"}


def write_report(run_folder: str | os.PathLike[str]) -> Path:
    """Make RUN/report.html from the files of a finished run; returns its path.

    Raises RunError if a file is missing or damaged. A picture that is gone is replaced by a placeholder.
    """
    folder = Path(run_folder)
    found = describe_run(folder)
    page = make_environment().get_template(PAGES[found["card"].recipe.labels]).render(found)
    # A file name may hold bytes that are not UTF-8; they become question marks.
    write_text(folder / "report.html", page.encode("utf-8", "replace").decode("utf-8"))
    return folder / "report.html"


def describe_run(folder: Path) -> dict[str, Any]:
    """All that the template shows, by name."""
    card = read_card(folder, MEND)
    metrics = read_figures(folder, card, MEND)
    history, predictions = read_history(folder / "history.csv"), read_predictions(folder / "predictions.csv")
    split = "test" if metrics["test"] else "validation"
    try:
        insist_on_all(card, metrics, predictions)
        classes = partial(_judgement, maps=read_maps(folder, split, MEND))
        kinds: dict[str, Callable[..., dict[str, Any]]]
        kinds = {"one": classes, "several": _label_judgement, "number": _number_judgement}
        return {"card": card, "split": split, "metrics": metrics[split], "validation": metrics["validation"]} | (
            _header(card) | kinds[card.recipe.labels](metrics[split], predictions.of(split), card, split)
            | _training(history, card) | _data(card) | _making(card)
        )  # fmt: skip
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise RunError(
            f"The files in {folder} do not belong together.",
            expected="card.json, metrics.json, history.csv and predictions.csv of one run",
            received=repr(error),
            fix=MEND,
        ) from error


def insist_on_all(card: Card, metrics: dict[str, Any], predictions: Predictions) -> None:
    """Raises ValueError for other classes, or where predictions.csv was cut off between two lines."""
    rows, name = ("per_class", "class") if card.recipe.labels == "one" else ("per_label", "label")
    named = [tuple(row[name] for row in figures[rows]) for figures in metrics.values() if figures and rows in figures]
    if {card.class_names} != {predictions.class_names, *named}:
        raise ValueError("files of different classes")
    for split, figures in metrics.items():
        if figures and (found := len(predictions.of(split).paths)) != figures["count"]:
            raise ValueError(f"{found} predictions for {figures['count']} {split} images")


def _header(card: Card) -> dict[str, Any]:
    full = card.backbone.name
    source, _, name = full.partition(":" if full.startswith(FILE) else "/")
    counts = card.data.counts
    return {
        "backbone_source": source,
        "backbone_name": name or source,
        "data_name": Path(card.data.path).name or card.data.path,
        "backend_title": BACKEND_TITLES[card.backend.name],
        "image_count": sum(card.data.images.values()) or sum(sum(by_class.values()) for by_class in counts.values()),
        "total_seconds": sum(card.seconds.values()),
        "head_titles": HEAD_TITLES,
        "terms": TERMS[card.recipe.labels],
        "ranked_by": TITLES[FIGURES[card.recipe.labels]],
    }


def _label_judgement(metrics: dict[str, Any], predictions: Predictions, card: Card, split: str) -> dict[str, Any]:
    """Of several labels an image."""
    found = describe_labels(metrics, predictions, card.thresholds, split, MOST_PICTURES)
    return found | {"most_classes": MOST_CLASSES, "pictures": [_shown(picture, card) for picture in found["pictures"]]}


def _number_judgement(metrics: dict[str, Any], predictions: Predictions, card: Card, split: str) -> dict[str, Any]:
    """Of a number an image."""
    found = describe_numbers(metrics, predictions, split, MOST_PICTURES)
    return found | {"pictures": [_shown(picture, card) for picture in found["pictures"]]}


def _judgement(
    metrics: dict[str, Any], predictions: Predictions, card: Card, split: str, maps: Mapping[int, ImageMaps]
) -> dict[str, Any]:
    """Of one class an image. maps: of the pictures, by their places."""
    costs = cost_matrix(card.recipe.costs, card.class_names)
    judged, sets = judge(predictions.labels, predictions.probabilities.astype(float), costs), card.plausible
    sets = sets if split == "test" else None  # of the validation images they hold what they were made to hold
    trusted = _trusted(judged)
    pictures, are_mistakes = telling_pictures(predictions, MOST_PICTURES, costs)
    return {
        "answers": "the validation images",
        "kind": "class",
        "baselines": baselines(metrics),
        "cautions": cautions(metrics, split),
        "right": int(judged.correct.sum()),
        "error_bound": error_bound_without_mistakes(len(judged.label)),
        "confusion": confusion(metrics, MOST_CLASSES),
        "pairs": confused_pairs(metrics, MOST_PAIRS),
        "image_map": draw_map(predictions, decide(predictions.probabilities, costs)),
        "typical": [
            (name, shorten_path(path, Path(card.data.path)), picture_uri(path, card.preprocess.decoding, SMALL))
            for name, path in typical_pictures(predictions)
        ],
        "classes": classes_by_f1(metrics),
        "most_classes": MOST_CLASSES,
        "overconfidence": overconfidence(judged),
        "sets": describe_sets(predictions.labels, predictions.probabilities, sets.least) if sets else None,
        "promised": sets.coverage if sets else None,
        "reliability": draw_reliability(reliability(judged), len(judged.label)),
        "trusted": trusted,
        "coverage": _draw_coverage(judged, trusted),
        "pictures": [
            _shown(one, card) | {"maps": draw_maps(one.path, maps.get(one.place), card.preprocess)} for one in pictures
        ],
        "map_error": max((one.error for image in maps.values() for one in image.maps), default=None),
        "are_mistakes": are_mistakes,
        "seen": {(one.true, one.predicted): place for place, one in reversed(list(enumerate(pictures)))}
        if are_mistakes
        else {},
    }


def _shown(picture: Picture | LabelPicture | NumberPicture, card: Card) -> dict[str, Any]:
    uri = picture_uri(picture.path, card.preprocess.decoding)
    return dataclasses.asdict(picture) | {"path": shorten_path(picture.path, Path(card.data.path)), "uri": uri}


def _trusted(judged: Judged) -> list[Trust]:
    """The levels of confidence that tell something: each takes in more images than the one before."""
    by_share = {trust.share: trust for level in reversed(TRUST_LEVELS) if (trust := trust_above(judged, level))}
    return list(reversed(by_share.values()))


def _draw_coverage(judged: Judged, trusted: Sequence[Trust]) -> CoverageChart:
    points = [(trust.share, trust.accuracy) for trust in coverage(judged)]
    return draw_coverage(points, [(t.share, t.accuracy, f"{t.confidence:.0%}") for t in trusted])


def _training(history: History, card: Card) -> dict[str, Any]:
    """The way to what was kept: the head's training, and the trial that won."""
    kept = card.trials.kept if card.trials else 0
    shown = history.of({0, kept})
    figures, best = shown.figures, len(shown.steps) - 1 if kept else lowest(shown.figures["val_loss"])
    phases = [PHASE_TITLES.get(phase, phase) for phase in shown.phases]
    charts: dict[str, CurveChart] = {}
    if phases:
        for title, name in (("Loss", "loss"), (TERMS[card.recipe.labels]["right"].capitalize(), "accuracy")):
            series = {"training": figures[name], "validation": figures[f"val_{name}"]}
            charts[title] = draw_curves(series, phases, shown.steps, best, is_share=name == "accuracy")
    at_best = {name: values[best] for name, values in figures.items()} if best is not None else {}
    return {
        "charts": charts,
        "best_step": None if best is None else shown.steps[best],
        "at_best": at_best,
        "phases": phases,
        "kept": card.trials.tried[kept - 1] if card.trials and kept else None,
    }


def _data(card: Card) -> dict[str, Any]:
    """Rows of the table of counts: class name and its images in each split, in the card's order of classes."""
    counts = {split: by_class for split, by_class in card.data.counts.items() if sum(by_class.values())}
    names = card.class_names
    rows = [(name, [by_class.get(name, 0) for by_class in counts.values()]) for name in names]
    return {
        "count_splits": list(counts),
        "count_rows": rows,
        "count_totals": [card.data.images.get(split, sum(by_class.values())) for split, by_class in counts.items()],
        "largest_class": max((sum(row) for _, row in rows), default=1) or 1,
    }


def _making(card: Card) -> dict[str, Any]:
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    options = [
        (name, value, value != fields[name].default, fields[name].metadata["help"])
        for name, value in dataclasses.asdict(card.recipe).items()
    ]
    command = ["multitl", "finetune", card.data.path, "--recipe", "recipe.toml", *_what_won(card)]
    return {
        "preprocess": dataclasses.asdict(card.preprocess),
        "options": options,
        "command": shlex.join([*command, "--backend", card.backend.name, "--out", "again"]),
    }


def _what_won(card: Card) -> list[str]:
    """Options with which nothing is looked for: the trial that won, alone, gives the same weights again, or about the
    same where steps had to be left out."""
    if not card.trials or not card.trials.tried:
        return []
    if not card.trials.kept:
        return ["--unfreeze", "none"]
    won = card.trials.tried[card.trials.kept - 1]
    how = ["--unfreeze", won.unfreeze] if card.recipe.unfreeze == "auto" else []
    steps = str(won.steps - won.left_out)
    return [*how, "--learning-rate", f"{won.learning_rate:g}", "--steps", steps, "--budget", "none"]


def shorten_path(path: str, root: Path) -> str:
    """Relative to the data (a folder, or a table of paths beside its images) where it lies in there."""
    for folder in (root, root.parent):
        if Path(path).is_relative_to(folder):
            return str(Path(path).relative_to(folder))
    return path


def picture_uri(path: str, decoding: Decoding, side: int = THUMBNAIL_SIDE) -> str | None:
    """A data URI of at most `side` pixels, or None if the picture is gone."""
    try:
        return jpeg_uri(thumbnail_jpeg(path, side, decoding))
    except UnreadableImage:
        return None


@cache
def make_environment() -> jinja2.Environment:
    """Of every page: what is put in is escaped, a name that is not given is an error. It keeps what it compiled."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("multitl.judging"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": show_percent,
        "interval": show_interval,
        "date": show_date,
        "duration": show_duration,
        "count": lambda value: f"{value:,}",
    }
    return environment


def show_percent(share: float, digits: int = 1) -> str:
    """0.963 -> "96.3%". Only a true 1 is shown as 100%, and only a true 0 as 0%."""
    unit = 10.0**-digits
    value = share * 100
    if 0 < value < 100:
        value = min(max(value + 1e-9, unit), 100 - unit)  # 1e-9: half of a unit is rounded up, as by hand
    return f"{value:.{digits}f}%" if value not in (0, 100) else f"{value:.0f}%"


def show_interval(interval: tuple[float, float]) -> str:
    """(0.92, 0.99) -> "92.0–99.0%"."""
    low, high = (show_percent(end) for end in interval)
    return f"{low.removesuffix('%')}–{high}"


def show_date(text: str) -> str:
    """ISO 8601 -> "23 November 2026, 20:44 UTC"; anything else as it is."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".strip()


def show_duration(seconds: float) -> str:
    """48.2 -> "48 s", 312 -> "5 min 12 s", 7500 -> "2 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = math.floor(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
