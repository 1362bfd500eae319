"""The file an interrupted run leaves: complete, exact, never a pickle, and never taken if it is damaged."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multitl.errors import RunError
from multitl.files import sealed_arrays
from multitl.files.sealed_arrays import read_sealed, write_sealed
from multitl.training import checkpoints
from multitl.training.checkpoints import (
    CHECKPOINT,
    PREVIOUS,
    Row,
    TrainingState,
    Trial,
    TriedOut,
    load_state,
    read_variables,
    save_state,
    write_variables,
)

ARRAYS = [np.random.default_rng(i).normal(size=(3, i + 1)).astype("float32") for i in range(12)]


def row(step: int = 1) -> Row:
    return Row(
        phase="head", trial=0, step=step, loss=0.1, accuracy=0.5, val_loss=1 / 3, val_accuracy=1.0, learning_rate=1e-7,
        seconds=0.25,
    )  # fmt: skip


TRIAL = Trial(unfreeze="last:2", learning_rate=1e-3, steps=160, left_out=7)
TRIED = TriedOut(
    **TRIAL, outcome="within noise", seconds=2.5, temperature=1.5, val_loss=0.5, val_accuracy=0.25, gain=-0.1, noise=0.2
)


def state(steps: int = 3) -> TrainingState:
    return TrainingState(
        "finetune", steps, True, 0.25, 2, kept=1, budget_steps=500, seconds=1.5, trial=TRIAL, tried=[TRIED],
        rows=[row(step) for step in range(1, steps + 1)], warnings=["too fast"],
        variables=ARRAYS, optimizer=ARRAYS[:2], best=ARRAYS[::-1], head=ARRAYS[3:5], scores=ARRAYS[:1],
    )  # fmt: skip


def assert_equal(loaded: TrainingState, original: TrainingState) -> None:
    plain = {name: [] for name in checkpoints.ARRAYS}
    assert replace(loaded, **plain) == replace(original, **plain)
    for name in plain:
        for a, b in zip(getattr(loaded, name), getattr(original, name), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


def test_round_trip(tmp_path: Path) -> None:
    save_state(tmp_path, state())
    assert_equal(load_state(tmp_path), state())


def test_no_file_is_a_fresh_start(tmp_path: Path) -> None:
    assert load_state(tmp_path) == TrainingState()


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    middle = len(whole) // 2
    if how == "pipe":
        path.unlink()
        os.mkfifo(path)
        return
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes({"empty": b"", "truncated": whole[:middle], "text": b"hello", "flipped": flipped}[how])


@pytest.mark.parametrize("how", ["empty", "truncated", "text", "flipped", "pipe"])
def test_in_place_of_a_damaged_file_the_one_before_is_taken(tmp_path: Path, how: str) -> None:
    save_state(tmp_path, state(2))
    save_state(tmp_path, state(3))
    damage(tmp_path / CHECKPOINT, how)
    assert_equal(load_state(tmp_path), state(2))
    save_state(tmp_path, state(3))  # the damaged one is not kept in place of the good one
    assert_equal(load_state(tmp_path), state(3))
    damage(tmp_path / CHECKPOINT, how)
    assert_equal(load_state(tmp_path), state(2))


@pytest.mark.parametrize("how", ["empty", "truncated", "text", "flipped", "pipe"])
def test_damage_without_another_file_is_an_error(tmp_path: Path, how: str) -> None:
    save_state(tmp_path, state())
    damage(tmp_path / CHECKPOINT, how)
    with pytest.raises(RunError, match=r"damaged(.|\n)*--overwrite"):
        load_state(tmp_path)
    save_state(tmp_path, state(2))
    save_state(tmp_path, state(3))
    for name in (CHECKPOINT, PREVIOUS):
        damage(tmp_path / name, how)
    with pytest.raises(RunError, match="damaged"):
        load_state(tmp_path)


def test_what_cannot_be_read_just_now_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save_state(tmp_path, TrainingState("head", rows=[row(step)]))
    with monkeypatch.context() as patch:
        patch.setattr(sealed_arrays, "read_regular", Mock(side_effect=OSError(errno.ESTALE, "Stale file handle")))
        with pytest.raises(RunError, match="cannot be read: Stale file handle"):
            load_state(tmp_path)
    assert (tmp_path / CHECKPOINT).is_file() and load_state(tmp_path).rows == [row(2)]


def test_killed_between_the_two_files(tmp_path: Path) -> None:
    save_state(tmp_path, state(2))
    (tmp_path / CHECKPOINT).rename(tmp_path / PREVIOUS)
    assert_equal(load_state(tmp_path), state(2))


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "body"}, {"phase": 3}, {"step": -1}, {"step": 10**30}, {"step": 1.5},
        {"finished": "yes"}, {"best_loss": "low"}, {"waited": None}, {"rows": [{}]}, {"rows": [[]]},
        {"rows": [dict(row()) | {"phase": "=cmd()"}]}, {"rows": [dict(row()) | {"step": 0.5}]},
        {"kept": -1}, {"kept": 2}, {"trial": {}}, {"trial": dict(TRIAL) | {"steps": -1}}, {"tried": [dict(TRIAL)]},
        {"tried": [dict(TRIED) | {"outcome": "won"}]}, {"budget_steps": 0.5},
        {"rows": [dict(row()) | {"val_loss": None}]}, {"warnings": [1]}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_well_sealed_file_that_makes_no_sense_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    save_state(tmp_path, state())
    arrays, about = read_sealed(tmp_path / CHECKPOINT)
    write_sealed(tmp_path / CHECKPOINT, arrays, json.dumps(json.loads(about) | change).encode())
    with pytest.raises(RunError, match="damaged"):
        load_state(tmp_path)


@pytest.mark.parametrize("about", [b"", b"[]", b"null", b"\xff", b"[" * 10**5, b'{"phase":' * 10**5])
def test_text_that_is_no_state_is_refused(tmp_path: Path, about: bytes) -> None:
    write_sealed(tmp_path / CHECKPOINT, {}, about)
    with pytest.raises(RunError, match="damaged"):
        load_state(tmp_path)


@pytest.mark.parametrize("name", ["variables/12", "best/0"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, name: str, value: float) -> None:
    save_state(tmp_path, state())
    arrays, about = read_sealed(tmp_path / CHECKPOINT)
    write_sealed(tmp_path / CHECKPOINT, arrays | {name: np.array([1, value], "float32")}, about)
    with pytest.raises(RunError, match="not all of its weights are finite"):
        load_state(tmp_path)


@pytest.mark.parametrize("name", ["variables/13", "variables/-1", "best", "x"])
def test_arrays_that_belong_nowhere_are_refused(tmp_path: Path, name: str) -> None:
    save_state(tmp_path, state())
    arrays, about = read_sealed(tmp_path / CHECKPOINT)
    write_sealed(tmp_path / CHECKPOINT, arrays | {name: np.zeros(1)}, about)
    with pytest.raises(RunError, match="nobody knows"):
        load_state(tmp_path)


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_change_of_a_byte_is_loaded(tmp_path: Path, data: st.DataObject) -> None:
    """One flip once lost all variables: they were counted by their names, which the flip changed."""
    save_state(tmp_path, state())
    (tmp_path / PREVIOUS).unlink(missing_ok=True)
    whole = (tmp_path / CHECKPOINT).read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
    (tmp_path / CHECKPOINT).write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
    with pytest.raises(RunError, match="damaged"):
        load_state(tmp_path)


def test_a_checkpoint_of_an_older_version_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.npz").write_bytes(b"PK")
    with pytest.raises(RunError, match=r"older version(.|\n)*--overwrite"):
        load_state(tmp_path)


@pytest.mark.every_backend
def test_variables_are_copied_and_put_back() -> None:
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    values = read_variables(layer.weights)
    layer.set_weights([value + 1 for value in values])
    write_variables(layer.weights, values)
    for a, b in zip(values, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.every_backend
def test_variables_of_every_kind_are_put_back() -> None:
    """Random state and the optimizer's counters are no floats."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    for variables in (model.variables, model.optimizer.variables):
        write_variables(variables, read_variables(variables))


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "values",
    [
        [np.zeros((4, 2), "float32"), np.zeros(2, "float32")],
        [np.zeros((3, 2), "float32")],
        [np.zeros((3, 2), "float32"), np.zeros(2, "float64")],
        [np.zeros((3, 2), "int32"), np.zeros(2, "float32")],
    ],
    ids=["shape", "number", "width", "kind"],
)
def test_variables_of_another_model_are_refused(values: list[np.ndarray]) -> None:
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    with pytest.raises(RunError, match="another model"):
        write_variables(layer.weights, values)
