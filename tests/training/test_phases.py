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
from multitl.recipes import Recipe
from multitl.training.checkpoints import TrainingState, load_state, read_variables, save_state
from multitl.training.phases import Phase, compile_model, epoch_order, mutable_variables, run_phase

COUNT, CLASSES = 50, 3
LABELS = np.arange(COUNT) % CLASSES
FEATURES = (np.random.default_rng(0).normal(0, 1, (COUNT, 6)) + 2 * np.eye(6)[LABELS]).astype("float32")
ONE_HOT = np.eye(CLASSES, dtype="float32")[LABELS]


def make_phase(recipe: Recipe, val_losses=None, features=FEATURES, seen: list | None = None) -> Phase:
    """A head on features; `val_losses` scripts what validation says, epoch by epoch."""
    head = build_head(FEATURES, CLASSES, recipe)
    script = iter(val_losses or [1 / epoch for epoch in range(1, 1000)])

    def batches(order, epoch):
        for indices in order:
            if seen is not None:
                seen.append((epoch, indices))
            yield features[indices], ONE_HOT[indices], np.ones(len(indices), "float32")

    epochs, rate = recipe.head_epochs, recipe.head_learning_rate
    return Phase("head", head, COUNT, epochs, rate, batches, lambda: (next(script), 0.5))


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
        run_phase(resumed, recipe, state, lambda state, seen=seen: seen.append(state.phase_epoch))
        assert seen == list(range(epoch + 1, 5))  # nothing is repeated
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
    assert [row["epoch"] for row in state.rows] == [1, 2, 3, 4, 5]


@pytest.mark.every_backend
def test_a_worse_second_phase_leaves_the_first_ones_weights() -> None:
    recipe, state = Recipe(head_epochs=2), TrainingState(phase="before", best_loss=0.01, rows=[{"epoch": 1}])
    phase = make_phase(recipe, [0.5, 0.4])
    before = phase.model.get_weights()
    run_phase(phase, recipe, state, lambda s: None)
    for a, b in zip(before, phase.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [row["epoch"] for row in state.rows] == [1, 2, 3]  # epochs count through both phases


@pytest.mark.every_backend
def test_divergence_is_an_error_that_names_the_option() -> None:
    recipe = Recipe(head_epochs=2)
    phase = make_phase(recipe, features=np.full_like(FEATURES, np.nan))
    with pytest.raises(RunError, match=r"Training diverged(.|\n)*--head-learning-rate"):
        run_phase(phase, recipe, TrainingState(), lambda s: None)


def diverging(recipe: Recipe, val_losses: list[float] | None = None, features=FEATURES, *, at: int = 0) -> Phase:
    """A second phase. at: epoch from which the images are NaN; 0: never."""

    def batches(order, epoch):
        bad = np.full_like(features, np.nan) if at and epoch >= at else features
        return ((bad[indices], ONE_HOT[indices], np.ones(len(indices), "float32")) for indices in order)

    return replace(make_phase(recipe, val_losses), name="finetune", batches=batches)


def after_head() -> TrainingState:
    """What a head phase of two epochs leaves."""
    rows = [{"phase": "head", "epoch": 1, "val_loss": 0.9}, {"phase": "head", "epoch": 2, "val_loss": 0.6}]
    return TrainingState("head", 2, True, best_loss=0.6, rows=rows)


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("val_losses", "at", "kept_epochs"),
    [
        pytest.param(None, 3, 0, id="at-once"),
        pytest.param([0.5, 0.4, 0.3], 5, 2, id="after-better-epochs"),
        pytest.param([0.8, 0.7, 0.65], 5, 0, id="after-worse-epochs"),
        pytest.param([0.5, float("nan"), 0.3], 0, 1, id="validation"),
        pytest.param([0.5, float("inf"), 0.3], 0, 1, id="validation-inf"),
    ],
)
def test_fine_tuning_that_diverges_ends_with_the_best_weights_before(val_losses, at: int, kept_epochs: int) -> None:
    recipe, state, saved = Recipe(head_epochs=6, patience=0), after_head(), []
    phase = diverging(recipe, val_losses, at=at)
    weights = [read_variables(mutable_variables(phase.model))]
    run_phase(phase, recipe, state, lambda state: saved.append(copy.deepcopy(state)) or weights.append(state.best))
    for a, b in zip(read_variables(mutable_variables(phase.model)), weights[kept_epochs], strict=True):
        np.testing.assert_array_equal(a, b)
    (warning,) = state.warnings
    assert "diverged" in warning and "--learning-rate" in warning
    assert state.finished and state.phase == "finetune"
    assert all(np.isfinite(row["val_loss"]) for row in state.rows)

    again, seen = diverging(recipe, val_losses, at=at), []  # resumed from what was saved last
    run_phase(again, recipe, saved[-1], lambda state: seen.append(state))
    assert not seen and len(saved[-1].warnings) == 1
    for a, b in zip(read_variables(again.model.variables), read_variables(phase.model.variables), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.every_backend
def test_fine_tuning_that_diverges_at_once_without_a_head_is_an_error() -> None:
    recipe = Recipe(head_epochs=2)
    with pytest.raises(RunError, match=r"Training diverged(.|\n)*--learning-rate"):
        run_phase(diverging(recipe, at=1), recipe, TrainingState(), lambda s: None)


@pytest.mark.every_backend
def test_a_head_whose_validation_loss_is_no_number_is_an_error() -> None:
    recipe = Recipe(head_epochs=3)
    with pytest.raises(RunError, match=r"validation loss is nan in epoch 2(.|\n)*--head-learning-rate"):
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


@pytest.mark.every_backend
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_schedule_warms_up_and_ends_at_zero(optimizer: str) -> None:
    head = build_head(FEATURES, CLASSES, Recipe())
    compile_model(head, Recipe(optimizer=optimizer, warmup=0.2), 0.1, steps=50)
    rates = []
    for _ in range(50):
        rates.append(float(keras.ops.convert_to_numpy(head.optimizer.learning_rate)))
        head.train_on_batch(FEATURES, ONE_HOT)
    assert rates[0] == 0 and np.argmax(rates) == 10 and max(rates) == pytest.approx(0.1, rel=1e-5)
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert float(keras.ops.convert_to_numpy(head.optimizer.learning_rate)) == pytest.approx(0, abs=1e-8)


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
