"""The focal loss (Lin et al. 2017, arXiv:1708.02002) against its formula, in a compiled step of each backend."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from labelled_photos import save_small_backbone

import multitl
from multitl.cli.main import main
from multitl.errors import RecipeError
from multitl.recipes import Recipe
from multitl.training.phases import compile_step

RATE = 0.5


def focal(logits: np.ndarray, targets: np.ndarray, gamma: float, labels: str) -> np.ndarray:
    """(n,), float64."""
    if labels == "one":
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return -(targets * (1 - p) ** gamma * np.log(p)).sum(axis=1)
    p = 1 / (1 + np.exp(-logits))
    terms = targets * (1 - p) ** gamma * np.log(p) + (1 - targets) * p**gamma * np.log(1 - p)
    return -terms.sum(axis=1)


def gradient(loss_of, kernel: np.ndarray) -> np.ndarray:
    """By central differences, float64."""
    found = np.zeros_like(kernel)
    for place in np.ndindex(kernel.shape):
        step = np.zeros_like(kernel)
        step[place] = 1e-5
        found[place] = (loss_of(kernel + step) - loss_of(kernel - step)) / 2e-5
    return found


@pytest.mark.every_backend
@pytest.mark.parametrize("labels", ["one", "several"])
@pytest.mark.parametrize(
    ("loss", "gamma"), [("focal", 2.0), ("focal:0.5", 0.5), ("focal:0", 0.0), ("cross_entropy", 0.0)]
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_step_goes_down_the_formula(labels: str, loss: str, gamma: float, smoothing: float):
    """One step of plain descent from the same weights, so the same on all backends."""
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(8, 5)), random.normal(size=(5, 3))
    targets = np.eye(3)[random.integers(0, 3, 8)] if labels == "one" else (random.random((8, 3)) < 0.4) * 1.0
    weights = random.uniform(0.5, 2, 8)
    soft = targets * (1 - smoothing) + smoothing / (3 if labels == "one" else 2)

    def loss_of(values: np.ndarray) -> float:
        return float((focal(x @ values, soft, gamma, labels) * weights).mean())

    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(3, use_bias=False)(inputs))
    model.set_weights([kernel])
    recipe = Recipe(labels=labels, loss=loss, label_smoothing=smoothing, optimizer="sgd")
    step = compile_step(model, recipe)
    with step:
        told = step((x.astype("float32"),), targets.astype("float32"), weights.astype("float32"), learning_rate=RATE)
    assert keras.ops.convert_to_numpy(told)[0] == pytest.approx(loss_of(kernel), rel=1e-5)
    (after,) = model.get_weights()
    np.testing.assert_allclose((kernel - after) / RATE, gradient(loss_of, kernel), atol=2e-5)


@pytest.mark.every_backend
@pytest.mark.parametrize("labels", ["one", "several"])
@pytest.mark.parametrize("loss", ["focal:0.5", "focal", "focal:10"])
def test_what_is_certain_breaks_no_step(labels: str, loss: str):
    """Logits so far apart that probabilities are 0 and 1 in float32, right and wrong."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(2, use_bias=False)(inputs))
    model.set_weights([np.eye(2) * 200])
    step = compile_step(model, Recipe(labels=labels, loss=loss, optimizer="sgd"))
    x = np.array([[1, -1], [-1, 1]], "float32")
    with step:
        told = step((x,), np.array([[1, 0], [1, 0]], "float32"), np.ones(2, "float32"), learning_rate=0.1)
    assert np.isfinite(keras.ops.convert_to_numpy(told)).all() and np.isfinite(model.get_weights()[0]).all()


@pytest.mark.every_backend
def test_a_run_is_trained_by_it_and_resumed(photo_folder: Path, tmp_path: Path):
    """A head that is solved is the same; one that is trained, and fine-tuning, are not."""
    small = save_small_backbone(tmp_path / "small.keras")
    recipe = Recipe(backbone=f"file:{small}", image_size=32, batch_size=8, head_epochs=2, unfreeze="none")

    def history(out: str, **options) -> str:
        run = multitl.finetune(photo_folder, output=tmp_path / out, recipe=recipe, **options).output
        lines = (run / "history.csv").read_text().splitlines()
        return "\n".join(line.rpartition(",")[0] for line in lines)  # without the seconds

    assert history("solved") == history("solved-focal", loss="focal")
    deep = {"unfreeze": "last", "steps": 4, "learning_rate": 1e-3, "hidden": 8}
    assert history("plain", **deep) != history("focal", loss="focal:3", **deep)
    run = tmp_path / "focal"
    assert json.loads((run / "card.json").read_text())["recipe"]["loss"] == "focal:3"
    before = (run / "predictions.csv").read_bytes()
    (run / "predictions.csv").unlink()
    again = ["finetune", str(photo_folder), "--recipe", str(run / "recipe.toml"), "--out", str(run), "--resume"]
    assert main(again) == 0 and (run / "predictions.csv").read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "foacl", "focal:", "focal:-1", "focal:11", "focal:nan", "focal:1e1", "cross_entropy:2"]
)
def test_other_losses_are_refused(text: str):
    with pytest.raises(RecipeError, match="option loss cannot be"):
        Recipe(loss=text)
