"""A run in a line, and in a small piece of HTML for a notebook; both of its files alone: no model is loaded."""

from __future__ import annotations

from typing import Any

from multitl.contracts import describe_answers, describe_figures
from multitl.judging.findings import confusion
from multitl.judging.label_findings import labels_by_precision
from multitl.judging.opening import Run
from multitl.judging.reporting import make_environment
from multitl.runs import label_figures
from multitl.runs.cards import as_line

MOST_CLASSES = 10  # in the confusion matrix
MOST_NAMES = 20


def read_figures(run: Run) -> dict[str, Any] | None:
    """metrics.json; None of a network that was not trained here. Raises RunError for a damaged file."""
    return label_figures.read_figures(run.folder, run.card) if run.card.head is None else None


def summarise(run: Run, metrics: dict[str, Any] | None) -> str:
    """One line for people: where it lies, how good it is, what it is made of."""
    names = run.card.class_names
    what = describe_answers(names, metrics) if metrics else f"{len(names):,} classes" if names else "no classifier"
    facts = [what, as_line(run.card.backbone.name)]
    figures = [describe_figures(metrics)] if metrics else []
    return f"<multitl run {as_line(str(run.folder))}: {', '.join(figures + facts)}>"


def summarise_as_html(run: Run, metrics: dict[str, Any] | None) -> str:
    """The same with the classes and, of a run, the confusion matrix; no script, and every name is escaped."""
    split = "test" if metrics and metrics["test"] else "validation"
    figures = metrics[split] if metrics else None
    return make_environment().get_template("run.html.j2").render(
        folder=str(run.folder), card=run.card, split=split, metrics=figures, most_names=MOST_NAMES,
        confusion=confusion(figures, MOST_CLASSES) if figures and "confusion_matrix" in figures else None,
        labels=labels_by_precision(figures)[:MOST_CLASSES] if figures and "per_label" in figures else [],
    )  # fmt: skip
