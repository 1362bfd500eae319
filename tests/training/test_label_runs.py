"""Runs whose images may have several labels, on each backend: figures, answers, the report, and what leaves."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from labelled_photos import COLOURS, make_labelled, save_small_backbone
from sklearn import metrics as sklearn_metrics

import multitl
from multitl.cli.main import main
from multitl.contracts import Result
from multitl.errors import PortError
from multitl.judging.predictions import read_predictions
from multitl.models import several_labels
from multitl.porting.formats import FORMATS
from multitl.recipes import Recipe
from multitl.training.phases import compile_step

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "several-labels.md"
RECIPE = Recipe(labels="several", image_size=32, batch_size=8, unfreeze="last", steps=6, learning_rate=1e-3)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled(tmp_path_factory.mktemp("photos"))


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
    """By scikit-learn, from predictions.csv and from model.keras; of fine-tuning as well."""
    card = json.loads((result.output / "card.json").read_text())
    found = read_predictions(result.output / "predictions.csv").of("test")
    given = found.probabilities >= np.array(card["thresholds"])
    test = result.metrics["test"]
    assert test["map"] == pytest.approx(sklearn_metrics.average_precision_score(found.labels, found.probabilities))
    assert test["subset_accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(found.labels, given))
    assert result.class_names == ("blue", "green", "red") and test["map"] > 0.7
    rows = {row["path"]: row for row in multitl.predict(result.output, photos)}
    for path, values, labels in zip(found.paths, found.probabilities, given, strict=True):
        np.testing.assert_allclose(list(rows[path]["probabilities"].values()), values, atol=1e-5)
        assert set(rows[path]["predicted"]) == {name for name, has in zip(COLOURS, labels, strict=True) if has}
    assert card["data"]["counts"]["train"].keys() == COLOURS.keys() and sum(card["data"]["images"].values()) == 48
    page = (result.output / "report.html").read_text()
    assert "Mean average precision" in page and "ROC" in page and "Confusion" not in page


@pytest.mark.every_backend
def test_fine_tuning_is_judged_and_resumed_to_the_byte(photos: Path, recipe: Recipe, tmp_path: Path) -> None:
    """Cut off in the middle of a trial, it ends with the answers of a run that was not."""

    def stop(row: dict[str, Any]) -> None:
        if row["step"] == 3:
            raise KeyboardInterrupt

    deep = replace(recipe, head_epochs=0)
    done = multitl.finetune(photos / "bits.csv", output=tmp_path / "whole", recipe=deep)
    (tried,) = json.loads((done.output / "card.json").read_text())["trials"]["tried"]
    assert done.metrics["validation"]["log_loss"] == pytest.approx(tried["val_loss"], rel=1e-3)
    judged = multitl.evaluate(done.output, photos / "photos.csv")
    assert judged["count"] == 48 and len(judged["per_label"]) == 3
    with pytest.raises(KeyboardInterrupt):
        multitl.finetune(photos / "bits.csv", output=tmp_path / "cut", recipe=deep, on_epoch=stop)
    again = multitl.finetune(photos / "bits.csv", output=tmp_path / "cut", recipe=deep, resume=True)
    assert again.metrics == done.metrics
    name = "predictions.csv"
    assert (again.output / name).read_bytes() == (done.output / name).read_bytes()


@pytest.mark.every_backend
def test_the_step_minimises_the_sum_of_binary_cross_entropies() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(8, 5)).astype("float32"), (random.random((8, 3)) < 0.4).astype("float32")
    weights = random.uniform(0.5, 2, 8).astype("float32")
    logits = np.asarray(model.predict_on_batch(x), "float64")
    p = 1 / (1 + np.exp(-logits))
    soft = 0.9 * labels + 0.05
    losses = -(soft * np.log(p) + (1 - soft) * np.log(1 - p)).sum(axis=1)
    step = compile_step(model, replace(RECIPE, label_smoothing=0.1))
    with step:
        told = step((x,), labels, weights, learning_rate=0.0)
    loss, accuracy = keras.ops.convert_to_numpy(told)
    assert loss == pytest.approx(np.mean(losses * weights), rel=1e-5)
    assert accuracy == pytest.approx(np.mean((p > 0.5) == labels))
    plain, share = several_labels.log_loss_and_accuracy(labels > 0, p)
    assert share == pytest.approx(accuracy) and plain == pytest.approx(
        -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).sum(axis=1).mean()
    )


def test_a_text_is_answered_on_the_terminal_and_in_tables(
    photos: Path, result: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = [str(photos / "000.png"), str(photos / "007.png")]
    assert main(["predict", str(result.output), *some, "--csv", str(tmp_path / "labels.csv")]) == 0
    with (tmp_path / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    rightly = {name: set(row["predicted"].split("|")) - {""} for name, row in zip("ab", rows, strict=True)}
    assert rightly == {
        name: set(row["predicted"]) for name, row in zip("ab", multitl.predict(result.output, some), strict=True)
    }
    capsys.readouterr()
    assert main(["predict", str(result.output), *some, "--top", "2"]) == 0
    assert "likeliest" in capsys.readouterr().out
    assert main(["evaluate", str(result.output), str(photos / "bits.csv")]) == 0
    shown = capsys.readouterr().out
    assert all(title in shown for title in ("mean average precision", "Hamming loss", "ROC AUC", "threshold", "green"))


def test_classify_says_what_predict_says(photos: Path, result: Result) -> None:
    some = [str(photos / "000.png"), str(photos / "007.png")]
    command = [sys.executable, str(result.output / "classify.py"), *some]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout.splitlines()
    for line, row in zip(lines, multitl.predict(result.output, some), strict=True):
        path, *found = line.split("\t")
        assert path == row["path"] and found[::2] == row["predicted"]


def test_a_port_keeps_the_thresholds_and_torch_is_refused(result: Result, tmp_path: Path) -> None:
    ported = multitl.port(result.output, "onnx", tmp_path / "onnx")
    card = json.loads((result.output / "card.json").read_text())
    assert ported.card["thresholds"] == card["thresholds"] and ported.card["proof"]["accuracy_after"] > 0.8
    assert json.loads((tmp_path / "onnx" / "preprocess.json").read_text())["thresholds"] == card["thresholds"]
    with pytest.raises(PortError, match=r"torch cannot carry several labels"):
        multitl.port(result.output, "torch", tmp_path / "torch")


@pytest.mark.slow
@pytest.mark.every_backend
@pytest.mark.parametrize("name", ["litert", "torch-export", "onnx", "litert-dynamic", "litert-int8", "savedmodel"])
def test_sigmoids_leave_with_the_labels_of_the_run(name: str, photos: Path, result: Result, tmp_path: Path) -> None:
    """Written, opened by their own runtime and compared; the program that goes with them gives the same labels."""
    proof = multitl.port(result.output, name, tmp_path / name).card["proof"]
    assert FORMATS[name].bits < 32 or proof["max_rel"] < 1e-5
    some = [str(photos / f"{number:03}.png") for number in (0, 1, 7, 23)]
    command = [sys.executable, str(tmp_path / name / "classify.py"), *some]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout.splitlines()
    for line, row in zip(lines, multitl.predict(result.output, some), strict=True):
        path, *found = line.split("\t")
        assert path == row["path"] and (FORMATS[name].bits < 32 or found[::2] == row["predicted"])


@pytest.mark.slow
def test_all_backends_agree(photos: Path, recipe: Recipe, result: Result, tmp_path: Path) -> None:
    """On the penalty, the thresholds and every probability of a solved head."""
    own, cards = read_predictions(result.output / "predictions.csv").of("test"), {}
    (tmp_path / "recipe.toml").write_text(replace(recipe, unfreeze="none").to_toml())
    for backend in ("jax", "tensorflow", "torch"):
        out = tmp_path / backend
        words = ["finetune", str(photos / "photos.csv"), "--recipe", str(tmp_path / "recipe.toml"), "--out", str(out)]
        subprocess.run([sys.executable, "-m", "multitl", *words, "--backend", backend], check=True, timeout=900)
        cards[backend] = json.loads((out / "card.json").read_text())
        found = read_predictions(out / "predictions.csv").of("test")
        assert found.paths == own.paths
        np.testing.assert_allclose(found.probabilities, own.probabilities, atol=1e-3)
        np.testing.assert_allclose(cards[backend]["thresholds"], cards["jax"]["thresholds"], atol=1e-3)
        assert cards[backend]["solved_head"]["penalty"] == cards["jax"]["solved_head"]["penalty"]


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
    assert len(Path("labels.csv").read_text().splitlines()) == 49
