"""The maps of an image as `multitl explain` tells them: of which classes they are, and what is said of each.

Loads no framework: what an artefact shows is told likewise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from multitl.contracts import VALUE

MOST_LABELS = 3  # of those that an image was given, where it may have several


def shown_places(names: Sequence[str], answer: Mapping[str, Any]) -> list[int]:
    """Places of the classes that an image was given; where it was given none of several labels, the likeliest.

    answer: of a `Judge`.
    """
    if VALUE in answer:
        return [0]
    given = answer["predicted"]
    labels = [given] if isinstance(given, str) else given[:MOST_LABELS]
    likeliest = max(answer["probabilities"], key=answer["probabilities"].__getitem__)
    return [names.index(name) for name in labels or [likeliest]]


def roles_of(predicted: Sequence[int], true: Sequence[int], asked: Sequence[int]) -> dict[int, list[str]]:
    """Place of a class -> why it is shown."""
    roles: dict[int, list[str]] = {}
    for role, places in (("predicted", predicted), ("true", true[:MOST_LABELS]), ("asked", asked)):
        for place in places:
            roles.setdefault(place, []).append(role)
    return roles


def map_row(
    name: str, roles: Sequence[str], output: float, kind: str, values: np.ndarray, *,
    logit: float | None = None, bias: float | None = None, error: float | None = None, elsewhere: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """output: of the class, a probability or a number.  values: (h, w).  The others: see `Heatmap`."""
    return {
        "class": name, "shown_as": list(roles), "probability" if name != VALUE else VALUE: output, "kind": kind,
        "logit": logit, "bias": bias, "error": error, "elsewhere": elsewhere, "map": values,
    }  # fmt: skip


def in_json(one: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `map_row` without an array."""
    return {**one, "map": one["map"].tolist()}
