"""What phase 2 tries next, and how much of it there is time for.

Decisions are functions of the recipe, of what was tried, and of a number of steps: the seconds of a budget become steps
once, when a step's time has been measured, so a run that is resumed goes on with the plan of one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from multitl.recipes import Recipe
from multitl.training.checkpoints import Trial, TriedOut
from multitl.training.phases import steps_per_epoch

FIRST_RATE, RATIO = 5e-4, 3.0  # of the ladder of rates
LOWEST, HIGHEST = 1e-5, 1e-2
ENOUGH_STEPS, ENOUGH_EPOCHS = 160, 4  # of a trial: whichever is more
AMPLE = 3  # trials: with time for fewer, another rate is worth less than a longer trial
FEWEST_STEPS = 16  # fewer are no fine-tuning
STRETCH = 1.5  # a last trial has to be so much longer than the best one
LEGS = 8  # of a trial
SAFETY = 0.9  # of the time that is left: steps do not all take the same
GRACE = 1.05  # of the budget, before a trial is given up


class OutOfTimeError(Exception):
    """The budget is spent."""


class Stopwatch:
    """Seconds of a run, against its budget.

    budget: seconds, or None for no limit.  before: what earlier processes spent on the same run.
    """

    def __init__(self, budget: float | None, before: float = 0.0) -> None:
        self._started, self._before, self.budget = time.perf_counter(), before, budget

    def spent(self) -> float:
        return self._before + time.perf_counter() - self._started

    def left(self) -> float:
        return math.inf if self.budget is None else self.budget - self.spent()

    def check(self) -> None:
        """Raises OutOfTimeError once the budget is exceeded by more than what rounding of a plan explains."""
        if self.budget is not None and self.spent() > GRACE * self.budget:
            raise OutOfTimeError


@dataclass(frozen=True)
class Pace:
    """Seconds of one step, of one look at the validation images, and of making the run folder complete."""

    step: float
    examination: float
    publishing: float

    def affordable(self, seconds: float) -> int:
        """How many steps there is time for, of a trial that is then published."""
        rest = SAFETY * (seconds - self.publishing) - LEGS * self.examination
        return max(0, int(rest / self.step))


def next_trial(recipe: Recipe, count: int, most: int | None, tried: Sequence[TriedOut]) -> Trial | None:
    """What to try after all of `tried`; None for nothing more.

    count: training images.  most: steps of all trials together; None: as many as it takes.

    The first trial is as long as trials of so many images have to be, or as long as there is time. Then come other
    rates of the ladder, as far as they do better, and then the best one's for twice as long, as long as that is better.
    A rate or a length that the recipe gives is not looked for.
    """
    left = math.inf if most is None else most - sum(one["steps"] for one in tried)
    if not tried:
        return _first(recipe, recipe.steps or enough_steps(count, recipe.batch_size), left)
    best, length = _best(tried), tried[0]["steps"]
    rate = None if recipe.learning_rate or length > left else _next_rate(tried, best)
    longer = _longer(recipe, tried, best, left)
    if longer and left < AMPLE * length:
        return longer
    return _trial(recipe, rate, length) if rate else longer


def enough_steps(count: int, batch_size: int) -> int:
    """How long a trial has to be to tell what its rate is worth."""
    return max(ENOUGH_STEPS, ENOUGH_EPOCHS * steps_per_epoch(count, batch_size))


def leg_of(steps: int, batches: int) -> int:
    """Steps between two examinations. batches: of one examination, which is to be the smaller part of the work."""
    return max(1, math.ceil(steps / LEGS), min(steps, batches))


def _first(recipe: Recipe, length: int, left: float) -> Trial | None:
    """One long trial rather than two short ones: length gains more than the last factor of the rate."""
    if not recipe.steps:
        length = int(left) if left < 2 * length else length
    if length > left or length < min(FEWEST_STEPS, recipe.steps or FEWEST_STEPS):
        return None
    return _trial(recipe, recipe.learning_rate or FIRST_RATE, length)


def _longer(recipe: Recipe, tried: Sequence[TriedOut], best: TriedOut | None, left: float) -> Trial | None:
    """The best trial for twice as long, or as long as there is time; nothing if going on longer did not help before."""
    if recipe.steps or best is None or best["steps"] < max(one["steps"] for one in tried):
        return None
    steps = int(min(2 * best["steps"], left))
    return _trial(recipe, best["learning_rate"], steps) if steps >= STRETCH * best["steps"] else None


def _trial(recipe: Recipe, rate: float, steps: int) -> Trial:
    return {"unfreeze": recipe.unfreeze, "learning_rate": float(f"{rate:.3g}"), "steps": steps}


def _best(tried: Sequence[TriedOut]) -> TriedOut | None:
    """The last one that was better than all before it."""
    return next((one for one in reversed(tried) if one["outcome"] == "better"), None)


def _next_rate(tried: Sequence[TriedOut], best: TriedOut | None) -> float | None:
    """A neighbour on the ladder of the best rate so far: upwards first, or downwards if nothing was better yet."""
    if max(one["steps"] for one in tried) > tried[0]["steps"]:
        return None  # rates have been compared
    known = [one["learning_rate"] for one in tried]
    around = best["learning_rate"] if best else min(known)
    wanted = [around * RATIO, around / RATIO] if best else [around / RATIO]
    for rate in wanted:
        if LOWEST <= rate <= HIGHEST and not any(math.isclose(rate, one, rel_tol=0.1) for one in known):
            return rate
    return None
