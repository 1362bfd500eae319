"""README.md of an artefact: a model card as the Hugging Face Hub reads it, for people and for what lists models.

Metadata in YAML, as huggingface_hub's `ModelCardData` has them, then what a model card says (Mitchell et al. 2019):
what it is for, what it learned from, how well it does, where it fails. All of it is in the run's card.json and
metrics.json already, so the same run gives the same text, whenever and wherever. A licence is not among the metadata:
whoever publishes a model says under which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from multitl.contracts import SPLITS
from multitl.judging.proportions import baselines, cautions
from multitl.runs.cards import Card, as_line

LIBRARIES = {  # format -> what the Hub calls the library that loads it
    "keras": "keras", "torch": "pytorch", "torch-export": "pytorch", "tfhub": "tensorflow", "savedmodel": "tensorflow",
    "onnx": "onnx", "openvino": "openvino", "litert": "litert", "litert-dynamic": "litert", "litert-int8": "litert",
    "stablehlo": "jax", "flax": "jax",
}  # fmt: skip
FIGURES: Mapping[str, Mapping[str, tuple[str, str]]] = {  # by what an image has: key of metrics.json -> type, name
    "one": {
        "accuracy": ("accuracy", "Accuracy"), "f1_macro": ("f1", "Macro F1"),
        "ece": ("expected_calibration_error", "Expected calibration error"), "log_loss": ("log_loss", "Log loss"),
    },
    "several": {
        "map": ("mean_average_precision", "Mean average precision"), "f1_macro": ("f1", "Macro F1"),
        "f1_micro": ("f1", "Micro F1"), "subset_accuracy": ("accuracy", "All labels of an image right"),
    },
    "number": {"mae": ("mae", "Mean absolute error"), "rmse": ("rmse", "Root mean squared error"), "r2": ("r2", "R2")},
}  # fmt: skip
USE = """\
## Use

```bash
python classify.py IMAGE ...
```

names the answer for each picture, and shows how the model is opened. Pictures become its pixels as `preprocess.json`
says; answers are in the order of `labels.txt`. `card.json` has the versions."""
MOST_ROWS = 100  # of classes that are listed
SAID = {"one": "one of these classes for every picture, of whatever it is", "number": "a number for every picture"}


def model_card(card: Card, metrics: Mapping[str, Any] | None, about: Mapping[str, Any]) -> str:
    """Markdown. metrics: of the run, by split; None of a network that was not trained here.  about: the artefact's
    card.
    """
    split = next((split for split in ("test", "validation") if metrics and metrics[split]), "")
    figures = metrics[split] if metrics and split else None
    parts = [
        _metadata(card, figures, split, about),
        f"# {plain(_title(card))}",
        _what(card, about),
        USE,
        _data(card),
        _evaluation(card, figures, split),
        _proof(about),
        _limits(card, figures, split) if card.class_names else "",
        _making(card),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _metadata(card: Card, figures: Mapping[str, Any] | None, split: str, about: Mapping[str, Any]) -> str:
    lines = [f"library_name: {LIBRARIES[about['port']['format']]}"]
    if card.recipe.labels != "number":
        lines.append("pipeline_tag: image-classification")
    if re.fullmatch(r"timm/[\w.-]+", card.backbone.name):  # which is the name of a model on the Hub as well
        lines.append(f"base_model: {text(card.backbone.name)}")
    lines += ["tags:", "- multitl", "- transfer-learning"]
    if figures:
        found = {key: hub for key, hub in FIGURES[card.recipe.labels].items() if figures.get(key) is not None}
        lines += ["metrics:", *(f"- {kind}" for kind in dict.fromkeys(kind for kind, _ in found.values()))]
        lines += ["model-index:", f"- name: {text(_title(card))}", "  results:", "  - task:"]
        kind = "image-regression" if card.recipe.labels == "number" else "image-classification"
        lines += [f"      type: {kind}", "    dataset:", f"      name: {text(_name(card))}", "      type: imagefolder"]
        lines += [f"      split: {split}", "    metrics:"]
        for key, (kind, name) in found.items():
            lines += [f"    - type: {kind}", f"      value: {figures[key]:.6g}", f"      name: {text(name)}"]
    return "\n".join(["---", *lines, "---"])


def _name(card: Card) -> str:
    """Of the data, without the folders around it."""
    return as_line(Path(card.data.path).name) or "images"


def _title(card: Card) -> str:
    backbone = as_line(card.backbone.name)
    return f"{backbone} fine-tuned on {_name(card)}" if card.head is None else backbone


def _what(card: Card, about: Mapping[str, Any]) -> str:
    height, width, channels = about["takes"]["shape"][1:]
    answers = {"one": f"the probabilities of {len(card.class_names):,} classes", "number": "a number",
               "several": f"the probabilities of {len(card.class_names):,} labels, each by itself"}  # fmt: skip
    return (
        f"{about['port']['summary']}. Takes {about['takes']['images']}, (n, {height}, {width}, {channels}); gives "
        f"{answers[card.recipe.labels]}."
    )


def _data(card: Card) -> str:
    if card.head is not None:
        return ""
    parts = [split for split in SPLITS if card.data.images.get(split)]
    lines = [f"## Training data\n\n{plain(_name(card))}: " + ", ".join(
        f"{card.data.images[split]:,} images for {split}" for split in parts) + "."]  # fmt: skip
    names = [name for name in card.class_names if any(name in card.data.counts.get(split, {}) for split in parts)]
    rows = [[plain(name), *(f"{card.data.counts[split].get(name, 0):,}" for split in parts)] for name in names]
    if rows and card.recipe.labels != "number":
        lines.append(_table(["", *parts], rows))
    lines += [f"- {plain(one)}" for one in card.data.warnings]
    return "\n\n".join(lines)


def _evaluation(card: Card, figures: Mapping[str, Any] | None, split: str) -> str:
    if not figures:
        return ""
    rows = [[name, f"{figures[key]:.3f}", _interval(figures.get(f"{key}_ci"))]
            for key, (_, name) in FIGURES[card.recipe.labels].items() if figures.get(key) is not None]  # fmt: skip
    judged = "which nothing was chosen by" if split == "test" else "which also chose between what was tried"
    parts = [
        f"## Evaluation\n\nOn {figures['count']:,} {split} images, {judged}; with 95 % bootstrap intervals.",
        _table(["", "", "interval"], rows),
    ]
    if card.recipe.labels == "one":
        simple = baselines(figures)
        parts.append(
            f"Always answering {plain(simple.majority)} would have an accuracy of {simple.majority_accuracy:.3f}, "
            f"guessing of {simple.chance:.3f}."
        )
        columns = ("precision", "recall", "f1")
        classes = [[plain(row["class"]), *(_share(row[name]) for name in columns), f"{row['support']:,}"]
                   for row in figures["per_class"]]  # fmt: skip
        parts.append(_table(["class", *columns, "images"], classes))
    return "\n\n".join(parts)


def _proof(about: Mapping[str, Any]) -> str:
    proof = about["proof"]
    return (
        f"The artefact was opened again by {plain(about['opened_by'])} and asked for {plain(proof['on'])}: its answers "
        f"differ from the original model's by at most {proof['max_rel']:.1g} of the largest one."
    )


def _limits(card: Card, figures: Mapping[str, Any] | None, split: str) -> str:
    said = SAID.get(card.recipe.labels, "labels out of these for every picture, of whatever it is")
    lines = [f"It says {said}.", "How it does on images of another kind, camera or time was not measured."]
    if figures and card.recipe.labels == "one":
        lines += cautions(figures, split)
    lines += card.warnings
    return "## Intended use and limits\n\nFor pictures like those above.\n\n" + "\n".join(
        f"- {plain(line)}" for line in lines
    )


def _making(card: Card) -> str:
    licence = as_line(card.backbone.licence) or "not known"
    trained = "the head alone" if not (card.trials and card.trials.kept) else f"{card.trained_parameters:,} parameters"
    lines = [f"Backbone: {plain(as_line(card.backbone.name))}; licence of its weights: {plain(licence)}."]
    if card.head is None:
        versions = ", ".join(f"{name} {version}" for name, version in card.backend.versions.items())
        machine = f"multitl {card.multitl} on {card.backend.name} ({versions}), seed {card.seed}, {card.created}"
        lines.append(f"Trained: {trained}, by {plain(machine)}.")
    return "## How it was made\n\n" + "\n".join(lines)


def _interval(ends: Sequence[float] | None) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rows = list(rows)
    kept = [*rows[:MOST_ROWS], *([[f"and {len(rows) - MOST_ROWS:,} more", *[""] * (len(head) - 1)]]
                                 if len(rows) > MOST_ROWS else [])]  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *kept))


def text(value: str) -> str:
    """A string of YAML: JSON's is one."""
    return json.dumps(value, ensure_ascii=False)


def plain(value: str) -> str:
    """Text of anyone's that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&])", r"\\\1", as_line(value))
