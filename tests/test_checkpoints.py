"""The file an interrupted run leaves: complete, exact, and never a pickle."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from multitl.checkpoints import TrainingState, load_state, read_variables, save_state, write_variables
from multitl.errors import RunError


def state() -> TrainingState:
    arrays = [np.random.default_rng(i).normal(size=(3, i + 1)).astype("float32") for i in range(12)]
    row = {"phase": "head", "epoch": 1, "loss": 0.1}
    return TrainingState("finetune", 3, True, 0.25, 2, [row], arrays, arrays[:2], arrays[::-1])


def test_round_trip(tmp_path: Path) -> None:
    save_state(tmp_path / "c.npz", state())
    loaded, original = load_state(tmp_path / "c.npz"), state()
    for name in ("phase", "phase_epoch", "finished", "best_loss", "waited", "rows"):
        assert getattr(loaded, name) == getattr(original, name)
    for name in ("variables", "optimizer", "best"):
        for a, b in zip(getattr(loaded, name), getattr(original, name), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


def test_no_file_is_a_fresh_start(tmp_path: Path) -> None:
    assert load_state(tmp_path / "none.npz") == TrainingState()


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "pickle"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "c.npz"
    save_state(path, state())
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": whole[: len(whole) // 2], "text": b"hello", "pickle": b""}[damage])
    if damage == "pickle":
        np.savez(path, meta=np.array([{"a": object()}], dtype=object))
    with pytest.raises(RunError, match=r"damaged(.|\n)*--overwrite"):
        load_state(path)


@pytest.mark.every_backend
def test_variables_are_copied_and_put_back() -> None:
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    values = read_variables(layer.weights)
    layer.set_weights([value + 1 for value in values])
    write_variables(layer.weights, values)
    for a, b in zip(values, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_variables_of_another_model_are_refused() -> None:
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    with pytest.raises(RunError, match="another model"):
        write_variables(layer.weights, [np.zeros((4, 2)), np.zeros(2)])
