"""The loop: its order of images, its schedule, early stopping, best weights, divergence, and exact resumption."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitl.errors import RunError
from multitl.models.heads import build_head
from multitl.models.insides import seeds_of
from multitl.recipes import Recipe
from multitl.training import phases
from multitl.training.checkpoints import TrainingState, load_state, read_variables, save_state
from multitl.training.phases import (
    Phase,
    compile_model,
    compile_step,
    draws,
    epoch_order,
    learning_rate_at,
    run_phase,
    steps_per_epoch,
    train_steps,
)

COUNT, CLASSES = 50, 3
LABELS = np.arange(COUNT) % CLASSES
FEATURES = (np.random.default_rng(0).normal(0, 1, (COUNT, 6)) + 2 * np.eye(6)[LABELS]).astype("float32")
ONE_HOT = np.eye(CLASSES, dtype="float32")[LABELS]


def make_phase(recipe: Recipe, val_losses=None, features=FEATURES, seen: list | None = None) -> Phase:
    """A head on features, judged after each epoch; `val_losses` scripts what validation says."""
    head = build_head(FEATURES, CLASSES, recipe)
    script = iter(val_losses or [1 / epoch for epoch in range(1, 1000)])

    def batches(draws):
        for draw in draws:
            if seen is not None:
                seen.append(draw)
            yield (features[draw.indices],), ONE_HOT[draw.indices], np.ones(len(draw.indices), "float32")

    epoch, rate = steps_per_epoch(COUNT, recipe.batch_size), recipe.head_learning_rate
    return Phase("head", head, COUNT, recipe.head_epochs * epoch, epoch, rate, batches, lambda: (next(script), 0.5))


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 5), st.integers(0, 5))
def test_every_image_comes_in_full_batches(count: int, batch_size: int, seed: int, epoch: int) -> None:
    order = epoch_order(count, batch_size, seed, epoch)
    assert {len(batch) for batch in order} == {min(batch_size, count)}
    assert set(np.concatenate(order)) == set(range(count))
    assert len(order) == -(-count // min(batch_size, count))
    for batch, again in zip(order, epoch_order(count, batch_size, seed, epoch), strict=True):
        np.testing.assert_array_equal(batch, again)


def test_epochs_and_seeds_shuffle_differently() -> None:
    orders = [tuple(np.concatenate(epoch_order(50, 10, seed, epoch))) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9


@pytest.mark.every_backend
def test_interrupted_and_resumed_takes_the_same_steps(tmp_path) -> None:
    """Stop after every possible epoch; dropout's random state must travel too."""
    recipe = Recipe(head_epochs=4, dropout=0.5, hidden=4, batch_size=16)
    whole, saved = TrainingState(), []
    phase = make_phase(recipe)
    run_phase(phase, recipe, whole, lambda state: saved.append(copy.deepcopy(state)))
    expected = read_variables(phase.model.variables)
    assert len(saved) == 4

    for epoch, snapshot in enumerate(saved, start=1):
        save_state(tmp_path / f"{epoch}", snapshot)
        state = load_state(tmp_path / f"{epoch}")
        resumed, seen = make_phase(recipe, [1 / e for e in range(epoch + 1, 99)]), []
        run_phase(resumed, recipe, state, lambda state, seen=seen: seen.append(state.step))
        assert seen == [4 * each for each in range(epoch + 1, 5)]  # nothing is repeated
        for a, b in zip(read_variables(resumed.model.variables), expected, strict=True):
            np.testing.assert_array_equal(a, b)
        strip = [{k: v for k, v in row.items() if k != "seconds"} for row in state.rows]
        assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in whole.rows]


@pytest.mark.every_backend
def test_best_weights_come_back_and_patience_stops() -> None:
    recipe = Recipe(head_epochs=10, patience=3, batch_size=16)
    phase, state, snapshots = make_phase(recipe, [0.5, 0.2, 0.4, 0.3, 0.9, 0.1]), TrainingState(), []
    run_phase(phase, recipe, state, lambda s: snapshots.append(s.variables))
    assert len(state.rows) == 5 and state.finished  # the best was epoch 2; three more did not beat it
    assert state.best_loss == 0.2
    for best, now in zip(snapshots[1], read_variables(phase.model.variables)[: len(snapshots[1])], strict=True):
        np.testing.assert_array_equal(best, now)


@pytest.mark.every_backend
def test_no_patience_runs_to_the_end() -> None:
    recipe, state = Recipe(head_epochs=5, patience=0), TrainingState()
    run_phase(make_phase(recipe, [1.0] * 9), recipe, state, lambda s: None)
    assert [row["step"] for row in state.rows] == [2, 4, 6, 8, 10]


@pytest.mark.every_backend
def test_divergence_is_an_error_that_names_the_option() -> None:
    recipe = Recipe(head_epochs=2)
    phase = make_phase(recipe, features=np.full_like(FEATURES, np.nan))
    with pytest.raises(RunError, match=r"Training diverged(.|\n)*--head-learning-rate"):
        run_phase(phase, recipe, TrainingState(), lambda s: None)


@pytest.mark.every_backend
def test_a_head_whose_validation_loss_is_no_number_is_an_error() -> None:
    recipe = Recipe(head_epochs=3)
    with pytest.raises(RunError, match=r"validation loss is nan after 4 steps(.|\n)*--head-learning-rate"):
        run_phase(make_phase(recipe, [0.5, float("nan")]), recipe, TrainingState(), lambda s: None)


@pytest.mark.every_backend
def test_of_a_finished_phase_only_the_best_weights_are_saved(tmp_path) -> None:
    """From them alone it is made again, bit for bit, and nothing is trained."""
    recipe, state = Recipe(head_epochs=3, dropout=0.5), TrainingState()
    phase = make_phase(recipe, [0.5, 0.2, 0.9])
    run_phase(phase, recipe, state, lambda state: save_state(tmp_path, state))
    loaded = load_state(tmp_path)
    assert loaded.finished and loaded.best and not loaded.variables and not loaded.optimizer
    again, seen = make_phase(recipe), []
    run_phase(again, recipe, loaded, seen.append)
    assert not seen
    for a, b in zip(read_variables(again.model.variables), read_variables(phase.model.variables), strict=True):
        np.testing.assert_array_equal(a, b)


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 40), st.integers(0, 40))
def test_a_stretch_of_steps_is_part_of_endless_epochs(count: int, batch_size: int, start: int, more: int) -> None:
    length = steps_per_epoch(count, batch_size)
    found = list(draws(count, batch_size, 7, range(start, start + more)))
    assert len(found) == more
    for step, one in enumerate(found, start):
        assert one.epoch == step // length + 1
        np.testing.assert_array_equal(one.indices, epoch_order(count, batch_size, 7, one.epoch)[step % length])


def test_schedule_warms_up_and_ends_at_zero() -> None:
    rates = [learning_rate_at(step, 50, 0.1, Recipe(warmup=0.2)) for step in range(51)]
    assert rates[0] == pytest.approx(0.01) and rates[9] == rates[10] == 0.1
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[50] == pytest.approx(0, abs=1e-12)
    assert {learning_rate_at(step, 50, 0.1, Recipe(schedule="constant")) for step in range(50)} == {0.1}
    assert learning_rate_at(0, 1, 0.1, Recipe(warmup=0.9)) == 0.1


@pytest.mark.every_backend
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_each_step_is_made_at_its_own_rate(optimizer: str) -> None:
    """Without a program compiled anew: the same steps, each in a model compiled for its rate alone, end equally."""
    recipe = Recipe(optimizer=optimizer, head_epochs=1, batch_size=COUNT, weight_decay=0.0)
    phase = replace(make_phase(recipe), steps=3, leg=3)
    start = phase.model.get_weights()
    run_phase(phase, recipe, TrainingState(), lambda state: None)
    alone, optimizer_state = make_phase(recipe).model, None
    alone.set_weights(start)
    for step, draw in enumerate(draws(COUNT, COUNT, recipe.seed, range(3))):
        compile_model(alone, recipe, learning_rate_at(step, 3, phase.learning_rate, recipe))
        variables = alone.optimizer.variables
        for variable, value in zip(variables, optimizer_state or [], strict=optimizer_state is not None):
            if variable is not alone.optimizer._learning_rate:
                variable.assign(value)
        alone.train_on_batch(FEATURES[draw.indices], ONE_HOT[draw.indices])
        optimizer_state = read_variables(variables)
    for a, b in zip(phase.model.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.every_backend
def test_each_process_drops_something_else_and_goes_back() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5)])
    (seed,) = seeds_of(model)
    (before,) = read_variables([seed])
    with phases._own_draws(model, 3):
        (within,) = read_variables([seed])
        assert int(within[0]) == int(before[0]) + 3 * phases.APART
    assert read_variables([seed])[0].tolist() == before.tolist()


@pytest.mark.every_backend
def test_an_epochs_figures_are_means_over_all_its_batches() -> None:
    recipe = Recipe(head_epochs=1, head_learning_rate=1e-12, batch_size=COUNT // 5, l2=0.0, schedule="constant")
    phase, state = make_phase(recipe), TrainingState()
    logits = np.asarray(phase.model.predict_on_batch(FEATURES)).astype("float64")
    run_phase(phase, recipe, state, lambda s: None)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert state.rows[0]["loss"] == pytest.approx(-log_probabilities[np.arange(COUNT), LABELS].mean(), rel=1e-5)
    assert state.rows[0]["accuracy"] == pytest.approx((logits.argmax(axis=1) == LABELS).mean(), abs=1e-6)


@pytest.mark.every_backend
def test_the_loss_is_the_documented_objective() -> None:
    """One batch: mean cross-entropy with label smoothing plus lambda times the squared norm."""
    recipe = Recipe(l2=0.01, label_smoothing=0.1, batch_size=COUNT, head_epochs=1)
    phase, state = make_phase(recipe), TrainingState()
    logits = np.asarray(phase.model.predict_on_batch(FEATURES)).astype("float64")
    squared = sum(float(np.square(w, dtype="float64").sum()) for w in phase.model.get_weights())
    run_phase(phase, recipe, state, lambda s: None)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    smooth = 0.9 * ONE_HOT + 0.1 / CLASSES
    expected = -(smooth * log_probabilities).sum(axis=1).mean() + 0.01 * squared
    assert state.rows[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.every_backend
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_unbiased_variances_are_of_the_parts_that_were_seen(accumulate: int) -> None:
    """As PyTorch has them, n / (n - 1), part by part."""
    inputs = keras.Input((2,))
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    values = np.random.default_rng(0).normal(3, 2, (8, 2)).astype("float32")
    one_hot, weights = np.eye(2, dtype="float32")[np.arange(8) % 2], np.ones(8, "float32")
    recipe = Recipe(batch_size=8, accumulate=accumulate)
    phase = Phase("finetune", model, 8, 2, 1, 0.0, lambda draws: (((values,), one_hot, weights) for _ in draws),
                  lambda: (0.0, 0.0), unbiased_variance=True)  # fmt: skip
    train_steps(phase, compile_step(model, recipe), recipe, range(2))
    moving = np.ones(2)
    for part in np.split(values, accumulate) * 2:
        moving = 0.9 * moving + 0.1 * part.var(axis=0, ddof=1)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model.get_layer("norm").moving_variance), moving, rtol=1e-4)
