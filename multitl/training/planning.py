"""What phase 2 tries next, and how much of it there is time for.

Decisions are functions of the recipe, of what was tried, and of a number of steps: the seconds of a budget become steps
once, when a step's time has been measured, so a run that is resumed goes on with the plan of one that was not. Where
the machine becomes slower than it was then, steps are left out, lest a trial has no end and is lost.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multitl.recipes import Recipe
from multitl.training.checkpoints import WON, Trial, TriedOut
from multitl.training.phases import steps_per_epoch

FIRST_RATE, RATIO = 7e-4, 3.0  # of the ladder of rates, downwards
LOWEST_RATE = 1e-4
ENOUGH_STEPS, ENOUGH_EPOCHS = 160, 4  # of a first trial: whichever is more
MOST_EPOCHS = 32  # of any trial: more often the same images are of no use
FEWEST_STEPS = 16  # fewer are no fine-tuning
STRETCH = 1.5  # a longer trial has to be so much longer
LEGS = 8  # of a trial
SAFETY = 0.9  # of the time that is left: steps do not all take the same
GRACE = 1.05  # of the budget, before a trial is given up


class OutOfTimeError(Exception):
    """The budget is spent."""


class Stopwatch:
    """Seconds of a run, against its budget.

    budget: seconds, or None for no limit.  before: what earlier processes spent on the same run.  now: a clock; of a
    group of processes the first one's, so that all decide alike.
    """

    def __init__(self, budget: float | None, before: float = 0.0, now: Callable[[], float] = time.perf_counter) -> None:
        self.budget, self.now = budget, now
        self._started, self._before = now(), before

    def spent(self) -> float:
        return self._before + self.now() - self._started

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

    def affordable(self, seconds: float, legs: int = LEGS) -> int:
        """How many steps there is time for, in so many legs of a trial that is then published."""
        rest = seconds - self.publishing - legs * self.examination
        return max(0, int(rest / self.step))

    def slower(self, times: float) -> Pace:
        return Pace(times * self.step, times * self.examination, times * self.publishing)


class Tempo:
    """How many steps there is time for, leg by leg: a machine may become slower."""

    def __init__(self, stopwatch: Stopwatch, pace: Pace | None) -> None:
        """pace: as it was measured; None where nothing hurries."""
        self._stopwatch, self._pace = stopwatch, pace
        self._leg = (0.0, 0)  # when the last one began, and how many steps it had

    def affordable(self) -> float:
        """Steps of another trial."""
        return self._pace.affordable(SAFETY * self._stopwatch.left()) if self._pace else math.inf

    def choose(self, start: int, stop: int, steps: int) -> Sequence[int]:
        """Which of a leg's steps are done: all, or as many that the trial's end, `steps`, is reached in time."""
        if self._pace is None:
            return range(start, stop)
        now = self._stopwatch.now()
        if start:
            began, count = self._leg
            self._pace = self._pace.slower((now - began) / (count * self._pace.step + self._pace.examination))
        legs = math.ceil((steps - start) / (stop - start))
        chosen = thin_out(start, stop, self._pace.affordable(self._stopwatch.left(), legs) / (steps - start))
        self._leg = (now, len(chosen))
        return chosen


def thin_out(start: int, stop: int, share: float) -> list[int]:
    """Of the numbers from `start` to `stop` - 1 that share, spread evenly, and the last one in any case."""
    count = min(stop - start, max(1, round(share * (stop - start))))
    return [start + (stop - start) * (index + 1) // count - 1 for index in range(count)]


def next_trial(recipe: Recipe, count: int, most: int | None, tried: Sequence[TriedOut]) -> Trial | None:
    """What to try after all of `tried`; None for nothing more.

    count: training images.  most: steps of all trials together; None: as many as it takes.

    The first trial is as long as those of so many images have to be, or as long as there is time. If it is not better
    than the head, its rate may be too high: lower ones are tried. If it is, twice as many steps are, again and again,
    as long as that helps. A rate or a length that the recipe gives is not looked for.
    """
    left = math.inf if most is None else most - sum(one["steps"] for one in tried)
    if not tried:
        return _first(recipe, count, left)
    has_won = any(one["outcome"] in WON for one in tried)
    return _longer(recipe, count, left, tried[-1]) if has_won else _slower(recipe, left, tried[-1])


def is_too_short(recipe: Recipe, count: int, most: int | None) -> bool:
    """Whether there is no time for a first trial and a longer one: better less of a network is trained for longer.

    count, most: see `next_trial`.
    """
    return most is not None and most < (recipe.steps or STRETCH * enough_steps(count, recipe.batch_size))


def enough_steps(count: int, batch_size: int) -> int:
    """How long a trial has to be to tell what its rate is worth."""
    return max(ENOUGH_STEPS, ENOUGH_EPOCHS * steps_per_epoch(count, batch_size))


def leg_of(steps: int, batches: int) -> int:
    """Steps between two examinations. batches: of one examination, which is to be the smaller part of the work."""
    return max(1, math.ceil(steps / LEGS), min(steps, batches))


def _first(recipe: Recipe, count: int, left: float) -> Trial | None:
    """One that is long enough, or takes all the time there is, if that is not enough for a second one."""
    steps = recipe.steps or enough_steps(count, recipe.batch_size)
    if not recipe.steps and left < (1 + STRETCH) * steps:
        steps = int(min(left, max(steps, MOST_EPOCHS * steps_per_epoch(count, recipe.batch_size))))
    if steps > left or (not recipe.steps and steps < FEWEST_STEPS):
        return None
    return _trial(recipe, recipe.learning_rate or FIRST_RATE, steps)


def _longer(recipe: Recipe, count: int, left: float, last: TriedOut) -> Trial | None:
    """Twice as many steps at the same rate, or as many as there is time for, if the last ones helped."""
    most = MOST_EPOCHS * steps_per_epoch(count, recipe.batch_size)
    steps = int(min(2 * last["steps"], left, most))
    if recipe.steps or last["outcome"] not in WON or steps < STRETCH * last["steps"]:
        return None
    return _trial(recipe, last["learning_rate"], steps)


def _slower(recipe: Recipe, left: float, last: TriedOut) -> Trial | None:
    """A rate lower on the ladder, for as long."""
    rate = last["learning_rate"] / RATIO
    if recipe.learning_rate or rate < LOWEST_RATE or last["steps"] > left:
        return None
    return _trial(recipe, rate, last["steps"])


def _trial(recipe: Recipe, rate: float, steps: int) -> Trial:
    return {"unfreeze": recipe.unfreeze, "learning_rate": float(f"{rate:.3g}"), "steps": steps, "left_out": 0}
