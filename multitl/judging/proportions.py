"""Figures put in proportion: what could be had without a model, and how little a handful of images can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multitl.judging.charts import wilson_interval

WIDE = 0.2  # of an interval: with more the figure says little


@dataclass(frozen=True)
class Baselines:
    """What needs no picture. majority: the class that most of the judged images are of, and what always naming it would
    give; chance: the accuracy of guessing, any class as likely as another.
    """

    majority: str
    majority_accuracy: float
    majority_f1_macro: float
    chance: float

    @property
    def best(self) -> float:
        """The higher accuracy."""
        return max(self.majority_accuracy, self.chance)


def baselines(metrics: Mapping[str, Any]) -> Baselines:
    """Of one judgement, as `metrics.score` gives it."""
    rows = metrics["per_class"]
    most = max(rows, key=lambda row: row["support"])
    present = sum(row["support"] > 0 for row in rows)
    share = most["support"] / metrics["count"]
    return Baselines(most["class"], share, 2 * share / (1 + share) / present, 1 / len(rows))


def cautions(metrics: Mapping[str, Any], part: str = "") -> list[str]:
    """What to know before believing the figures. part: what was judged, such as "test", if that has a name."""
    part = f"{part} " if part else ""
    found, known = [], baselines(metrics)
    low, high = wilson_interval(metrics["accuracy"], metrics["count"])
    if low <= known.best:
        how = f"always saying {known.majority}" if known.best == known.majority_accuracy else "guessing"
        found.append(
            f"The {part}accuracy, {metrics['accuracy']:.1%}, is not clearly above that of {how}, {known.best:.1%}: "
            "it does not show that anything was learned."
        )
    if high - low > WIDE:
        count = f"{metrics['count']} {part}image{'s' if metrics['count'] != 1 else ''}"
        found.append(
            f"{count} cannot tell much: the accuracy on many more may lie anywhere from {low:.0%} to {high:.0%} (95 %)."
        )
    return found
