"""What a network is to say of an image: the one place that knows which goals there are.

A goal satisfies `multitl.contracts.Goal`; whatever differs between goals in training is in there.
"""

from __future__ import annotations

from multitl.contracts import Goal, Scale
from multitl.models import one_class, several_labels
from multitl.models.numbers import Numbers
from multitl.recipes import Recipe

GOALS: dict[str, Goal] = {"one": one_class, "several": several_labels, "number": Numbers()}


def goal_of(recipe: Recipe, scale: Scale | None = None) -> Goal:
    """By its option `labels`. scale: of numbers; without it they are not standardised."""
    return Numbers(*scale) if scale else GOALS[recipe.labels]
