"""metrics.json of a run whose images may have several labels, and of any run: see `cards.py`."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from msgspec import Struct

from multitl.runs.cards import UNFINISHED, Card, ClassName, Count, Positive, Share, read_figures_of, read_metrics
from multitl.runs.number_figures import NumberMetrics

Interval = tuple[Share, Share]


class LabelFigures(Struct, frozen=True, kw_only=True):
    """Of one label: see `label_metrics.score_labels`."""

    label: ClassName
    threshold: Share
    average_precision: Share | None
    roc_auc: Share | None
    f1: Share
    precision: Share
    recall: Share
    support: Count
    hits: Count
    false_alarms: Count
    misses: Count
    rightly_without: Count


class SplitFigures(Struct, frozen=True, kw_only=True):
    """What `label_metrics.score_labels` gives of one split."""

    count: Count
    map: Share | None
    map_ci: Interval | None
    f1_macro: Share
    f1_macro_ci: Interval
    f1_micro: Share
    f1_micro_ci: Interval
    subset_accuracy: Share
    subset_accuracy_ci: Interval
    hamming_loss: Share
    hamming_loss_ci: Interval
    roc_auc: Share | None
    log_loss: Positive
    per_label: tuple[LabelFigures, ...]

    def __post_init__(self) -> None:
        if any(one.hits + one.false_alarms + one.misses + one.rightly_without != self.count for one in self.per_label):
            raise ValueError("a label with another number of images")


class LabelMetrics(Struct, frozen=True):
    """metrics.json. test: None where the data has no test part."""

    test: SplitFigures | None
    validation: SplitFigures


def read_figures(folder: str | os.PathLike[str], card: Card, missing: str = UNFINISHED) -> dict[str, Any]:
    """metrics.json of a run with this card, by split; None for a split without images. Raises RunError."""
    if card.recipe.labels == "one":
        return read_metrics(folder, missing)
    kind: type[Struct] = NumberMetrics if card.recipe.labels == "number" else LabelMetrics
    found = read_figures_of(folder, kind, missing)
    return msgspec.json.decode(msgspec.json.encode(found))
