"""The race: who wins, what is kept, what a run that was stopped goes on with, and what happens when nothing works."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from multitl.errors import RunError
from multitl.models.heads import build_head
from multitl.recipes import Recipe
from multitl.training.checkpoints import TrainingState, load_state, read_variables, save_state
from multitl.training.phases import Phase, mutable_variables
from multitl.training.planning import Stopwatch
from multitl.training.trials import Examination, Race, brier_scores, compare

COUNT, CLASSES = 48, 3
LABELS = np.arange(COUNT) % CLASSES
FEATURES = (np.random.default_rng(0).normal(0, 1, (COUNT, 6)) + 2 * np.eye(6)[LABELS]).astype("float32")
ONE_HOT = np.eye(CLASSES, dtype="float32")[LABELS]
RECIPE = Recipe(batch_size=16, dropout=0.3, hidden=4, l2=1e-4, budget="none")
pytestmark = pytest.mark.every_backend


def make_race(
    recipe: Recipe = RECIPE, says: Callable[[np.ndarray], np.ndarray] = lambda probabilities: probabilities, *,
    save: Callable[[TrainingState], None] = lambda state: None, budget: float | None = None, bad_step: int = 0,
) -> Race:  # fmt: skip
    """A small network on features. says: what its probabilities are taken for.  bad_step: whose features are NaN."""
    model, steps = build_head(FEATURES, CLASSES, recipe), [0]

    def batches(draws):
        for draw in draws:
            steps[0] += 1
            features = FEATURES[draw.indices] * (np.nan if steps[0] == bad_step else 1)
            yield (features,), ONE_HOT[draw.indices], np.ones(len(draw.indices), "float32")

    def predict() -> np.ndarray:
        return says(np.asarray(keras.ops.softmax(keras.ops.convert_to_tensor(model.predict_on_batch(FEATURES)))))

    examination = Examination(predict, LABELS)
    phase = Phase("finetune", model, COUNT, 0, 1, 0.0, batches, examination)
    return Race(phase, [model.get_layer("logits")], examination, recipe, Stopwatch(budget), 0.0, 1.0, save)


def head_state(scores: float | np.ndarray = 2.0) -> TrainingState:
    """With a head whose images have these Brier scores."""
    return TrainingState("finetune", rows=[row_of_head()], head=[np.zeros(1)], scores=[np.full(COUNT, scores)])


def row_of_head() -> Any:
    figures = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"), 0.5)
    return {"phase": "head", "trial": 0, "step": 0, **figures}


def weights(race: Race) -> list[np.ndarray]:
    return read_variables(mutable_variables(race.phase.model))


def assert_same(some: list[np.ndarray], others: list[np.ndarray]) -> None:
    for a, b in zip(some, others, strict=True):
        np.testing.assert_array_equal(a, b)


def test_trials_that_win_are_yielded_with_their_weights_in_the_model() -> None:
    recipe, state = Recipe(batch_size=16, budget="none"), head_state()
    race = make_race(recipe)
    seen = []
    for tried in race.run(state):
        assert_same(weights(race), state.best)
        seen.append((tried["learning_rate"], tried["steps"], tried["outcome"]))
    # 48 images in batches of 16: 160 steps are more than 32 epochs already
    assert seen == [(7e-4, 160, "better")]
    assert state.finished and state.kept == 1 and state.trial is None
    assert not state.variables and not state.optimizer
    assert [row["step"] for row in state.rows[1:]] == list(range(20, 161, 20))
    assert_same(weights(race), state.best)


def test_every_trial_starts_from_the_same_weights_and_takes_its_own_steps() -> None:
    """A trial that others came before ends as one that is alone: what a recipe without a budget then makes again."""
    recipe = Recipe(batch_size=16, budget="none", dropout=0.3, hidden=4, l2=1e-4)
    state = head_state(0.0)  # nobody can win
    race = make_race(recipe)
    start = weights(race)
    assert list(race.run(state)) == []
    assert [one["outcome"] for one in state.tried] == ["worse"] * 2
    assert_same(weights(race), start)
    for one in state.tried:
        alone = Recipe(batch_size=16, budget="none", dropout=0.3, hidden=4, l2=1e-4,
                       learning_rate=one["learning_rate"], steps=one["steps"])  # fmt: skip
        again = head_state(0.0)
        list(make_race(alone).run(again))
        assert [(t["val_loss"], t["temperature"]) for t in again.tried] == [(one["val_loss"], one["temperature"])]


def test_what_was_too_sure_is_kept_with_its_temperature() -> None:
    def exaggerate(probabilities: np.ndarray) -> np.ndarray:
        probabilities = probabilities.copy()
        probabilities[:9] = np.roll(np.eye(CLASSES)[LABELS[:9]], 1, axis=1) * 0.998 + 0.001  # sure, and wrong
        return probabilities

    state = head_state()
    race = make_race(Recipe(batch_size=16, budget="none", steps=30, learning_rate=0.05), exaggerate)
    before = {}
    for row_save in [race.run(state)]:
        for tried in row_save:
            before = tried
    assert before["temperature"] > 1.5
    logits = race.phase.model.predict_on_batch(FEATURES)
    assert np.abs(np.asarray(logits)).max() < 20
    assert before["val_loss"] < state.rows[-1]["val_loss"]  # which is of the network as it was trained


@pytest.mark.parametrize("stop_after", [1, 3, 8, 9, 12])
def test_a_race_that_was_stopped_ends_as_one_that_was_not(tmp_path, stop_after: int) -> None:
    """Stopped by whatever is no Exception, after any leg; dropout's random state has to travel too."""
    whole = head_state(0.5)
    race = make_race()
    list(race.run(whole))
    assert len(whole.tried) > 1

    class Kill(BaseException):
        pass

    saved = []

    def save(state: TrainingState) -> None:
        saved.append(state)
        save_state(tmp_path, copy.deepcopy(state))
        if len(saved) == stop_after:
            raise Kill

    with pytest.raises(Kill):
        list(make_race(save=save).run(head_state(0.5)))
    state = load_state(tmp_path)
    again = make_race()
    list(again.run(state))
    assert_same(weights(again), weights(race))
    strip = lambda lines: [{k: v for k, v in line.items() if k != "seconds"} for line in lines]  # noqa: E731
    assert strip(state.rows) == strip(whole.rows) and strip(state.tried) == strip(whole.tried)
    assert state.kept == whole.kept and state.finished


def test_one_that_diverges_is_followed_by_a_slower_one() -> None:
    state = head_state()
    race = make_race(bad_step=7)
    wins = list(race.run(state))
    assert [one["outcome"] for one in state.tried] == ["diverged", "better"]
    assert [one["learning_rate"] for one in wins] == [2.33e-4]
    assert not state.warnings and all(np.isfinite(row["val_loss"]) for row in state.rows)
    assert all(np.isfinite(weight).all() for weight in weights(race))


def test_a_given_rate_that_diverges_leaves_the_head_with_a_warning() -> None:
    state = head_state()
    race = make_race(Recipe(batch_size=16, budget="none", learning_rate=1e-3), bad_step=7)
    start = weights(race)
    assert list(race.run(state)) == []
    assert_same(weights(race), start)
    assert "diverged at the learning rate 0.001" in state.warnings[0] and "--learning-rate" in state.warnings[0]


def test_a_given_rate_that_diverges_without_a_head_is_an_error() -> None:
    race = make_race(Recipe(batch_size=16, budget="none", learning_rate=1e-3), bad_step=7)
    with pytest.raises(RunError, match=r"Training diverged(.|\n)*--learning-rate"):
        list(race.run(TrainingState("finetune")))


def test_a_budget_for_no_step_leaves_the_head_with_a_warning() -> None:
    state = head_state()
    assert list(make_race(Recipe(batch_size=16, budget="1s"), budget=1e-3).run(state)) == []
    assert state.finished and state.kept == 0 and not state.tried
    assert "no time for fine-tuning" in state.warnings[0] and "--budget" in state.warnings[0]
    saved = list[bool]()
    again = make_race(Recipe(batch_size=16, budget="1s"))
    again = replace(again, save=lambda state: saved.append(state.finished))
    assert list(again.run(state)) == [] and len(state.warnings) == 1  # a lost file is made again: nothing is tried
    assert saved == [True]
    with pytest.raises(RunError, match=r"no time for fine-tuning(.|\n)*--budget none"):
        list(make_race(Recipe(batch_size=16, budget="1s"), budget=1e-3).run(TrainingState("finetune")))


def test_a_trial_that_takes_longer_than_planned_is_given_up() -> None:
    state = head_state()
    state.budget_steps = 500  # as if steps had been faster
    race = make_race(Recipe(batch_size=16, budget="1s"), budget=1e-3)
    start = weights(race)
    assert list(race.run(state)) == []
    assert [one["outcome"] for one in state.tried] == ["out of time"] and state.finished
    assert_same(weights(race), start)
    state = TrainingState("finetune", budget_steps=500)
    with pytest.raises(RunError, match=r"no time for fine-tuning(.|\n)*--budget none"):
        list(make_race(Recipe(batch_size=16, budget="1s"), budget=1e-3).run(state))


def test_a_trial_that_runs_out_of_time_is_judged_as_far_as_it_came() -> None:
    """The third leg of eight is too long: the weights of the second are better than the head."""
    state = head_state()
    race = make_race(Recipe(batch_size=16, steps=80, learning_rate=1e-2, budget="1h"), budget=3600.0)
    batches, seen = race.phase.batches, []

    def stall(draws):
        for batch in batches(draws):
            seen.append(len(draws))
            if len(seen) > 1 + 3 + 25:  # the measurement's, and into the third leg
                race.stopwatch.budget = -1.0
            yield batch

    whole: list[list[np.ndarray]] = []
    other = make_race(
        Recipe(batch_size=16, steps=80, learning_rate=1e-2, budget="none"),
        save=lambda state: whole.append(state.variables),
    )
    list(other.run(head_state()))
    race = replace(race, phase=replace(race.phase, batches=stall))
    ends = []
    for tried in race.run(state):
        ends.append(tried)
        for now, then in zip(weights(race), whole[1], strict=True):
            np.testing.assert_allclose(now * tried["temperature"], then, rtol=1e-5)
    assert [(one["outcome"], one["left_out"]) for one in ends] == [("better", 60)]
    assert [row["step"] for row in state.rows[1:]] == [10, 20] and state.finished


def test_the_measurement_of_a_step_leaves_no_trace() -> None:
    """With a budget and without one the trial is the same."""
    ends = []
    for budget in (None, 1e6):
        state = head_state()
        race = make_race(Recipe(batch_size=16, steps=20, learning_rate=1e-2, dropout=0.3), budget=budget)
        list(race.run(state))
        ends.append(weights(race))
    assert_same(*ends)


def test_compare() -> None:
    random = np.random.default_rng(0)
    before, noise = random.uniform(0.5, 1, 400), random.normal(0, 0.2, 400)
    noise -= noise.mean()
    assert compare(before, [], is_head=True) == ("better", None, None)
    for is_head, gain, outcome in (
        (True, 0.02, "better"), (True, 0.005, "within noise"), (True, -0.005, "within noise"), (True, -0.02, "worse"),
        (False, 0.005, "better"), (False, -0.005, "no worse"), (False, -0.02, "worse"),
    ):  # fmt: skip
        found, mean, error = compare(before - gain + noise, [before], is_head=is_head)
        assert (found, round(mean, 6)) == (outcome, gain)
        assert error == pytest.approx(0.01, rel=0.1)


def test_brier_scores() -> None:
    probabilities = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.25, 0.25]])
    np.testing.assert_allclose(brier_scores(np.eye(3)[[0, 0, 0]], probabilities), [0, 2, 0.25 + 2 / 16])
