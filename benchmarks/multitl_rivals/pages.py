"""The page of benchmarks/recipes.py: a table a data set, a line a contender."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]

NAMES = {
    "quick": "multitl, `--unfreeze none`",
    "default": "multitl (`--budget 10m`)",
    "budget-2m": "multitl, `--budget 2m`",
    "budget-20m": "multitl, `--budget 20m`",
    "fastai": "fastai `fine_tune`",
    "expert": "LP-FT in PyTorch",
    "logistic": "LogisticRegressionCV",
}
FIGURES = ("accuracy", "f1_macro", "log_loss", "ece")  # of a row, in the order of HEAD
HEAD = (
    "| contender | seeds | accuracy | standard error | macro F1 | log loss | calibration error | CPU s | wall s |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def page(rows: Sequence[Row], missing: Mapping[str, str], made_by: str) -> str:
    """Markdown. rows: in the order of the page.  made_by: command, date, machine and versions, for people."""
    lines = [
        "# Recipes: `multitl finetune`, and what else one could have\n",
        "All with EfficientNet-Lite0's weights, the same splits and the same pixels. "
        "Figures are of the test images, means over seeds ± their standard deviation; standard error: of "
        "the accuracy, for a test set of this size. Calibration error: expected, 15 bins. CPU seconds: user and "
        "system, of the whole process, start and decoding included.\n",
        made_by,
    ]
    for name in dict.fromkeys(row["data"] for row in rows):
        lines.append(section([row for row in rows if row["data"] == name]))
    if missing:
        lines += ["\n## Left out\n", *(f"- {name}: {reason}" for name, reason in missing.items())]
    return "\n".join(lines)


def section(rows: Sequence[Row]) -> str:
    """The table of one data set."""
    counts = rows[0]["images"]
    parts = ", ".join(f"{counts[split]} {split}" for split in ("train", "validation", "test") if split in counts)
    lines = [f"\n## {rows[0]['data']}\n", f"{parts}; {rows[0]['size']} px\n", HEAD]
    for contender in dict.fromkeys(row["contender"] for row in rows):
        lines.append(line([row for row in rows if row["contender"] == contender]))
    return "\n".join(lines)


def line(rows: Sequence[Row]) -> str:
    """One contender on one data set: rows are its seeds."""
    cells = [spread([row[figure] for row in rows]) for figure in FIGURES]
    error = standard_error(statistics.mean(row["accuracy"] for row in rows), rows[0]["images"]["test"])
    costs = [f"{statistics.mean(row[cost] for row in rows):.0f}" for cost in ("cpu", "wall")]
    words = [NAMES[rows[0]["contender"]], str(len(rows)), cells[0], f"{error:.3f}", *cells[1:], *costs]
    return f"| {' | '.join(words)} |"


def spread(values: Sequence[float]) -> str:
    """ "0.942 ± 0.010": the mean and the standard deviation, which a single value has not."""
    text = f"{statistics.mean(values):.3f}"
    return f"{text} ± {statistics.stdev(values):.3f}" if len(values) > 1 else text


def standard_error(accuracy: float, images: int) -> float:
    """Of an accuracy in [0, 1] on so many test images, by the binomial distribution."""
    return math.sqrt(accuracy * (1 - accuracy) / images)
