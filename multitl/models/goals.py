"""What a network is to say of an image: the one place that knows which goals there are.

A goal is a module that satisfies `multitl.contracts.Goal`; whatever differs between goals in training is in there.
"""

from __future__ import annotations

from multitl.contracts import Goal
from multitl.models import one_class, several_labels
from multitl.recipes import Recipe

GOALS: dict[str, Goal] = {"one": one_class, "several": several_labels}


def goal_of(recipe: Recipe) -> Goal:
    """By its option `labels`."""
    return GOALS[recipe.labels]
