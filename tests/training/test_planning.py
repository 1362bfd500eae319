"""What is tried next, given what was tried: a function of numbers, and nothing of it depends on the clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitl.recipes import Recipe
from multitl.training.checkpoints import WON, Outcome, TriedOut
from multitl.training.planning import (
    FEWEST_STEPS,
    MOST_EPOCHS,
    OutOfTimeError,
    Pace,
    Stopwatch,
    Tempo,
    enough_steps,
    leg_of,
    next_trial,
    thin_out,
)

OUTCOMES: tuple[Outcome, ...] = ("better", "no worse", "within noise", "worse", "diverged")


def play(outcomes: list[Outcome], count: int = 300, most: int | None = None, **options) -> list[tuple[float, int]]:
    """The rates and lengths of the trials that follow each other if they end like this, the last outcome for ever."""
    recipe, tried = Recipe(**options), []
    while trial := next_trial(recipe, count, most, tried):
        outcome = outcomes[min(len(tried), len(outcomes) - 1)]
        tried.append(TriedOut(**trial, outcome=outcome, seconds=1.0, temperature=None, val_loss=None,
                              val_accuracy=None, gain=None, noise=None))  # fmt: skip
        assert len(tried) < 100
    return [(one["learning_rate"], one["steps"]) for one in tried]


def test_what_is_better_is_done_for_longer() -> None:
    assert play(["better"]) == [(7e-4, 160), (7e-4, 320)]  # 32 epochs of 10 steps
    assert play(["better", "no worse"], count=2000) == [(7e-4, 252), (7e-4, 504), (7e-4, 1008), (7e-4, 2016)]
    assert play(["better", "better", "worse"], count=2000) == [(7e-4, 252), (7e-4, 504), (7e-4, 1008)]


@pytest.mark.parametrize("outcome", ["within noise", "worse", "diverged"])
def test_what_does_not_beat_the_head_is_done_more_slowly(outcome: Outcome) -> None:
    assert play([outcome]) == [(7e-4, 160), (2.33e-4, 160)]
    assert play([outcome, "better", "worse"]) == [(7e-4, 160), (2.33e-4, 160), (2.33e-4, 320)]


def test_a_budget_shortens_the_first_trial_and_stretches_the_last() -> None:
    assert play(["better"], most=100) == [(7e-4, 100)]
    assert play(["better"], most=FEWEST_STEPS - 1) == []
    assert play(["better"], most=399) == [(7e-4, 320)]  # not 160 and 239, which are not half as many again
    assert play(["better"], most=420) == [(7e-4, 160), (7e-4, 260)]
    assert play(["better"], most=500, count=2000) == [(7e-4, 500)]
    assert play(["worse"], most=419, count=2000) == [(7e-4, 419)]


def test_what_the_recipe_gives_is_not_looked_for() -> None:
    assert play(["better"], learning_rate=0.01, steps=7) == [(0.01, 7)]
    assert play(["worse"], learning_rate=0.01, steps=7) == [(0.01, 7)]
    assert play(["worse"], learning_rate=0.01) == [(0.01, 160)]
    assert play(["better"], learning_rate=0.01) == [(0.01, 160), (0.01, 320)]
    assert play(["better"], steps=7) == [(7e-4, 7)]
    assert play(["worse"], steps=7) == [(7e-4, 7), (2.33e-4, 7)]
    assert play(["better"], steps=50, most=49) == []


@given(
    st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=9),
    st.integers(1, 10**5),
    st.none() | st.integers(0, 10**5),
)
def test_any_race_ends_within_its_steps(outcomes: list[Outcome], count: int, most: int | None) -> None:
    trials = play(outcomes, count, most)
    assert most is None or sum(steps for _, steps in trials) <= most
    longest = max(enough_steps(count, 32), MOST_EPOCHS * -(-count // min(32, count)))
    assert all(FEWEST_STEPS <= steps <= longest for _, steps in trials)
    assert len(set(trials)) == len(trials)  # nothing is tried twice


@given(st.integers(0, 1000), st.integers(1, 500), st.floats(0, 2))
def test_thinned_steps_are_spread_evenly(start: int, length: int, share: float) -> None:
    chosen = thin_out(start, start + length, share)
    assert len(chosen) == min(length, max(1, round(share * length)))
    assert chosen[-1] == start + length - 1 and chosen[0] >= start
    gaps = np.diff([start - 1, *chosen])
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


def test_a_machine_that_becomes_slower_leaves_steps_out() -> None:
    """Planned for 1 s a step, of which 200 take 2 s each: in the end the time is used, and no more."""
    now = [0.0]
    tempo = Tempo(Stopwatch(1000.0, now=lambda: now[0]), Pace(1.0, 2.0, 10.0))
    steps = int(tempo.affordable())
    assert steps == 874  # 900 less 10 and 8 looks
    done = []
    for start in range(0, steps, 110):
        stop = min(start + 110, steps)
        chosen = tempo.choose(start, stop, steps)
        done += chosen
        is_slow = 300 < now[0] < 700
        now[0] += (2 if is_slow else 1) * (len(chosen) + 2)
    assert done[:220] == list(range(220))  # as long as all is well
    assert 600 < len(done) < 780 and 850 < now[0] <= 990


def test_a_run_without_hurry_leaves_nothing_out() -> None:
    assert Tempo(Stopwatch(None), None).choose(5, 9, 100) == range(5, 9)


@given(st.integers(1, 10**4), st.integers(1, 100))
def test_examinations_are_the_smaller_part_of_a_trial(steps: int, batches: int) -> None:
    leg = leg_of(steps, batches)
    assert 1 <= leg <= max(steps, 1)
    assert leg >= min(steps, batches) and leg * 8 >= steps


def test_a_budget_becomes_steps_once_a_step_is_measured() -> None:
    pace = Pace(step=0.5, examination=1.0, publishing=10.0)
    assert pace.affordable(110) == 184 and pace.affordable(110, legs=2) == 196
    assert pace.affordable(5) == 0
    assert pace.slower(2).affordable(110) == 74


def test_the_stopwatch_counts_all_processes_and_rings_after_the_budget() -> None:
    now = [0.0]
    watch = Stopwatch(100.0, before=40.0, now=lambda: now[0])
    now[0] = 50.0
    assert watch.spent() == 90.0 and watch.left() == 10.0
    watch.check()
    now[0] = 66.0
    with pytest.raises(OutOfTimeError):
        watch.check()
    endless = Stopwatch(None, before=1e9)
    endless.check()
    assert endless.left() == float("inf")


def test_outcomes_that_win_are_outcomes() -> None:
    assert set(WON) < set(OUTCOMES)
