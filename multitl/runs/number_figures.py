"""metrics.json of a run that predicts a number: see `cards.py`."""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta, Struct

from multitl.runs.cards import Count, Positive

Explained = Annotated[float, Meta(le=1)]  # below 0 where the mean is nearer
Errors = tuple[Positive, Positive]


class Baseline(Struct, frozen=True):
    """The errors of whoever always says `value`."""

    value: float
    mae: Positive
    rmse: Positive


class NumberFigures(Struct, frozen=True, kw_only=True):
    """What `number_metrics.score_numbers` gives of one split."""

    count: Count
    mae: Positive
    mae_ci: Errors
    rmse: Positive
    rmse_ci: Errors
    r2: Explained | None
    r2_ci: tuple[Explained, Explained] | None
    median_ae: Positive
    median_ae_ci: Errors
    bias: float
    always_mean: Baseline

    def __post_init__(self) -> None:
        numbers = (*self.mae_ci, *self.rmse_ci, *self.median_ae_ci, self.mae, self.rmse, self.bias)
        if not all(map(math.isfinite, numbers)):
            raise ValueError("figures that are not finite")
        if (self.r2 is None) != (self.r2_ci is None):
            raise ValueError("an interval without its figure")


class NumberMetrics(Struct, frozen=True):
    """metrics.json. test: None where the data has no test part."""

    test: NumberFigures | None
    validation: NumberFigures
