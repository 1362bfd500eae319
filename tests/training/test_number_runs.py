"""Runs that predict a number, on each backend: figures, answers, the report, and what leaves."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from labelled_photos import save_small_backbone
from numbered_photos import make_numbered
from sklearn import metrics as sklearn_metrics

import multitl
from multitl.cli.main import main
from multitl.contracts import Result
from multitl.errors import PortError
from multitl.judging.predictions import read_predictions
from multitl.models.numbers import Numbers
from multitl.recipes import Recipe
from multitl.training.phases import compile_step

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "predict-a-number.md"
RECIPE = Recipe(
    labels="number", label_column="width", image_size=32, batch_size=8, unfreeze="last", steps=6, learning_rate=1e-3
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_numbered(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = save_small_backbone(tmp_path_factory.mktemp("backbones") / "small.keras")
    return replace(RECIPE, backbone=f"file:{path}")


@pytest.fixture(scope="module")
def result(photos: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The head alone, which is solved."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return multitl.finetune(photos / "photos.csv", output=out, recipe=replace(recipe, unfreeze="none"))


@pytest.mark.every_backend
def test_figures_are_those_of_the_saved_model(photos: Path, result: Result) -> None:
    """By scikit-learn, from predictions.csv and from model.keras, in the user's units."""
    card = json.loads((result.output / "card.json").read_text())
    found = read_predictions(result.output / "predictions.csv").of("test")
    said, test = found.probabilities[:, 0], result.metrics["test"]
    assert test["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(found.labels, said))
    assert test["rmse"] == pytest.approx(sklearn_metrics.root_mean_squared_error(found.labels, said))
    assert test["r2"] == pytest.approx(sklearn_metrics.r2_score(found.labels, said))
    assert test["r2"] > 0.8 and test["mae"] < test["always_mean"]["mae"] / 2
    with (photos / "photos.csv").open() as file:
        true = {str(photos / row["path"]): float(row["width"]) for row in csv.DictReader(file)}
    trained = [true[path] for path in true if path not in {*read_predictions(result.output / "predictions.csv").paths}]
    np.testing.assert_allclose(card["scale"], [np.mean(trained), np.std(trained)])
    assert test["always_mean"]["value"] == pytest.approx(np.mean(trained))
    rows = {row["path"]: row["value"] for row in multitl.predict(result.output, photos)}
    np.testing.assert_allclose([rows[path] for path in found.paths], said, rtol=1e-5)
    np.testing.assert_array_equal([true[path] for path in found.paths], found.labels)
    page = (result.output / "report.html").read_text()
    assert "Mean absolute error" in page and "Largest errors" in page and page.count('class="dots"') == 2
    assert "accuracy" not in page.partition("<details")[0].lower() and "always says" in page
    assert "MAE" in repr(result) and "MAE" in repr(multitl.load(result.output))


@pytest.mark.every_backend
def test_fine_tuning_is_judged_and_resumed(photos: Path, recipe: Recipe, tmp_path: Path) -> None:
    """The answers are those of the saved model, and a lost file is made again."""
    options = {"output": tmp_path / "run", "recipe": replace(recipe, head_epochs=0, steps=60, learning_rate=1e-2)}
    done = multitl.finetune(photos / "photos.csv", **options)
    (tried,) = json.loads((done.output / "card.json").read_text())["trials"]["tried"]
    validation, scale = done.metrics["validation"], json.loads((done.output / "card.json").read_text())["scale"]
    assert tried["val_loss"] == pytest.approx((validation["rmse"] / scale[1]) ** 2, rel=1e-3)
    assert tried["temperature"] == 1 and validation["r2"] > 0.3
    assert multitl.evaluate(done.output, photos / "photos.csv")["count"] == 60
    before = (done.output / "predictions.csv").read_bytes()
    (done.output / "predictions.csv").unlink()
    again = multitl.finetune(photos / "photos.csv", **options, resume=True)
    assert again.metrics == done.metrics and (again.output / "predictions.csv").read_bytes() == before


def test_trials_are_compared_with_the_head_by_squared_errors(photos: Path, recipe: Recipe, tmp_path: Path) -> None:
    """A rate at which nothing moves changes no number: its gain is none."""
    still = replace(recipe, learning_rate=1e-12, steps=1)
    done = multitl.finetune(photos / "photos.csv", output=tmp_path / "run", recipe=still)
    trials = json.loads((done.output / "card.json").read_text())["trials"]
    assert trials["tried"][0]["gain"] == pytest.approx(0, abs=1e-4)


@pytest.mark.every_backend
def test_the_step_minimises_the_error_of_huber() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    random = np.random.default_rng(0)
    x, numbers = random.normal(size=(8, 5)).astype("float32"), random.normal(0, 2, (8, 1)).astype("float32")
    weights = random.uniform(0.5, 2, 8).astype("float32")
    errors = np.abs(np.asarray(model.predict_on_batch(x), "float64") - numbers)[:, 0]
    losses = np.where(errors <= 1, errors**2, 2 * errors - 1)
    assert (errors > 1).any() and (errors < 1).any()
    with compile_step(model, RECIPE) as step:
        told = step((x,), numbers, weights, learning_rate=0.0)
    loss, explained = keras.ops.convert_to_numpy(told)
    assert loss == pytest.approx(np.mean(losses * weights), rel=1e-5)
    assert explained == pytest.approx(max(0, 1 - np.mean(errors**2) / numbers.var()), abs=1e-5)


def test_the_scale_is_taken_off_and_put_back() -> None:
    goal, truth = Numbers(100.0, 5.0), np.array([90.0, 100.0, 112.5])
    targets = goal.targets_of(truth, 1)
    np.testing.assert_allclose(targets[:, 0], [-2, 0, 2.5])
    np.testing.assert_allclose(goal.activate(targets)[:, 0], truth)
    np.testing.assert_allclose(np.asarray(goal.last_layer()(targets))[:, 0], truth)
    loss, explained = goal.log_loss_and_accuracy(truth, np.array([[95.0], [100.0], [112.5]]))
    assert loss == pytest.approx(1 / 3) and explained == pytest.approx(
        sklearn_metrics.r2_score(truth, [95.0, 100.0, 112.5])
    )


def test_a_number_is_answered_on_the_terminal_and_in_tables(
    photos: Path, result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    some = [str(photos / "000.png"), str(photos / "007.png")]
    known = [row["value"] for row in multitl.predict(result.output, some)]
    assert main(["predict", str(result.output), *some, str(broken), "--csv", str(tmp_path / "numbers.csv")]) == 0
    with (tmp_path / "numbers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows[:2]] == pytest.approx(known) and rows[2]["error"]
    assert list(rows[0]) == ["path", "value", "familiarity", "error"]
    capsys.readouterr()
    assert main(["predict", str(result.output), *some, "--json"]) == 0
    assert [row["value"] for row in json.loads(capsys.readouterr().out)] == pytest.approx(known)
    assert main(["predict", str(result.output), *some, str(broken)]) == 0
    assert f"{known[0]:.6g}" in capsys.readouterr().out
    assert main(["evaluate", str(result.output), str(photos / "photos.csv"), "--label-column", "width"]) == 0
    shown = capsys.readouterr().out
    assert all(title in shown for title in ("mean absolute error", "R2", "always 1"))


def test_classify_says_what_predict_says(photos: Path, result: Result) -> None:
    some = [str(photos / "000.png"), str(photos / "007.png")]
    command = [sys.executable, str(result.output / "classify.py"), *some]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout.splitlines()
    for line, row in zip(lines, multitl.predict(result.output, some), strict=True):
        path, name, value = line.split("\t")
        assert (path, name) == (row["path"], "value") and float(value) == pytest.approx(row["value"], abs=1e-3)


def test_a_port_gives_the_numbers_and_torch_is_refused(result: Result, tmp_path: Path) -> None:
    ported = multitl.port(result.output, "onnx", tmp_path / "onnx")
    assert ported.card["gives"] == {"value": [None, 1]} and ported.card["proof"]["accuracy_after"] > 0.8
    assert ported.card["proof"]["top1"] == 1 and ported.card["proof"]["max_rel"] < 1e-4
    with pytest.raises(PortError, match=r"torch cannot carry a number"):
        multitl.port(result.output, "torch", tmp_path / "torch")


def test_several_seeds_are_told_together(photos: Path, recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    options = ["--backbone", recipe.backbone, "--image-size", "32", "--unfreeze", "none", "--labels", "number"]
    assert main(["finetune", str(photos / "photos.csv"), "--label-column", "width", *options, "--repeats", "2",
                 "--out", str(out)]) == 0  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["mean"]) == {"mae", "rmse", "r2"} and summary["mean"]["mae"] > 0


def test_the_how_to(photos: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands as they stand, on our photos."""
    assert len(HOW_TO.read_text().splitlines()) <= 25
    (block,) = re.findall(r"```bash\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("photos.csv").write_bytes((photos / "photos.csv").read_bytes())
    Path("new-photos").symlink_to(photos)
    quick = ["--images", str(photos), "--backbone", recipe.backbone, "--image-size", "32", "--unfreeze", "none"]
    for line in block.splitlines():
        words = line.split()[1:]
        more = {"finetune": quick, "evaluate": quick[:2]}.get(words[0], [])
        assert main([*words, *more]) == 0
    assert len(Path("numbers.csv").read_text().splitlines()) == 61
