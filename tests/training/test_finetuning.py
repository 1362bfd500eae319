"""The whole run in one process, on each backend, with a small random backbone and generated photos."""

from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from quick_runs import BACKBONE

import multitl
from multitl.contracts import Preprocess, Result, Step
from multitl.data.pixels import PixelReader
from multitl.models.feature_maps import WAVES
from multitl.models.freezing import heavy_stages
from multitl.models.heads import backbone_of, build_head, pixel_input, pool
from multitl.models.preprocessing import normalise_in_model
from multitl.recipes import Recipe
from multitl.training import planning
from multitl.training.checkpoints import TrainingState
from multitl.training.finetuning import scan_for
from multitl.training.phases import compile_model, draws, learning_rate_at, steps_per_epoch
from multitl.training.planning import Tempo
from multitl.training.trials import Race

RECIPE = Recipe(
    backbone="keras/MobileNet:alpha=0.25", image_size=32, batch_size=8, head_epochs=4, unfreeze="last", steps=10,
    learning_rate=5e-4,
)  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file, so that every load of the backbone gives the same numbers."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    multitl.load_pretrained(RECIPE.backbone, "none", RECIPE.image_size).backbone.save_weights(path)
    return path


@pytest.fixture(scope="module")
def small() -> Recipe:
    """The same with a backbone of three convolutions, which compiles in a second; its weights are in its file."""
    return replace(RECIPE, backbone=BACKBONE)


@pytest.fixture(scope="module")
def result(photo_folder: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One run of both phases."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return multitl.finetune(photo_folder, weights=weights, output=out, recipe=RECIPE)


def read_history(result: Result) -> list[dict[str, str]]:
    with (result.output / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.every_backend
def test_run_folder_holds_everything(result: Result) -> None:
    names = {path.name for path in result.output.iterdir()}
    assert names == {
        "card.json", "history.csv", "metrics.json", "model.keras", "predictions.csv", "recipe.toml", "report.html",
        "run.json", "checkpoint.safetensors", "classify.py", "preprocess.json", "labels.txt",
        "images.csv", "heatmaps.json", "familiarity.safetensors",
    }  # fmt: skip
    assert result.class_names == ("blue", "green", "red")


@pytest.mark.every_backend
def test_the_model_names_no_class_of_a_backend(result: Result) -> None:
    """Keras would write the head's optimizer as one of its torch backend, which cannot be imported without PyTorch."""
    with zipfile.ZipFile(result.model_path) as archive:
        config = archive.read("config.json").decode()
    assert "keras.src.backend" not in config and "CosineDecay" not in config


def test_metrics_are_of_both_judged_splits(result: Result) -> None:
    metrics = json.loads((result.output / "metrics.json").read_text())
    assert metrics == result.metrics
    for split in ("test", "validation"):
        assert 0 <= metrics[split]["accuracy"] <= 1 and metrics[split]["count"] > 0
        assert sum(map(sum, metrics[split]["confusion_matrix"])) == metrics[split]["count"]


def test_history_has_a_line_for_each_judgement(result: Result) -> None:
    rows = read_history(result)
    assert [(row["phase"], row["trial"], row["step"]) for row in rows] == [
        ("head", "0", "0"), *(("finetune", "1", step) for step in ("2", "4", "6", "8", "10")),
    ]  # fmt: skip
    assert all(np.isfinite(float(row[name])) for row in rows for name in ("loss", "val_loss", "learning_rate"))


@pytest.mark.every_backend
def test_card_says_what_it_is(result: Result, weights: Path) -> None:
    card = json.loads((result.output / "card.json").read_text())
    assert card["backbone"]["name"] == "keras/MobileNet:alpha=0.25"
    assert card["backbone"]["weights"] == str(weights)
    assert card["backend"]["name"] == keras.config.backend()
    assert card["saved_model_difference"] < 1e-5
    assert Recipe(**card["recipe"]) == Recipe.read(result.output / "recipe.toml")
    assert {k: sum(v.values()) for k, v in card["data"]["counts"].items()} == {"train": 33, "validation": 6, "test": 9}


@pytest.mark.every_backend
def test_frozen_weights_are_bit_identical_and_the_last_stage_moved(
    photo_folder: Path, small: Recipe, tmp_path: Path
) -> None:
    """What was frozen is, after training, the file's numbers to the bit, statistics included."""
    recipe = replace(small, head_epochs=0)  # no first phase whose weights could be the better ones
    result = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe)
    original = multitl.load_pretrained(small.backbone, "default", small.image_size)
    trained = keras.models.load_model(result.model_path).get_layer(original.backbone.name)
    last = set(original.stages[-1].layers)
    moved = set()
    for layer in filter(lambda layer: layer.weights, original.backbone.layers):
        for before, after in zip(layer.get_weights(), trained.get_layer(layer.name).get_weights(), strict=True):
            if layer.name not in last or isinstance(layer, keras.layers.BatchNormalization):
                np.testing.assert_array_equal(before, after, err_msg=layer.name)
            elif not np.array_equal(before, after):
                moved.add(layer.name)
    assert moved == {name for name in last if not name.endswith("_bn")}


@pytest.mark.every_backend
@pytest.mark.parametrize("phase", ["head", "finetune"])
def test_validation_figures_of_what_was_kept_are_those_of_the_saved_model(
    photo_folder: Path, small: Recipe, tmp_path: Path, phase: str
) -> None:
    """What the loop saw, on features or on pixels, is what the saved model is judged by, its temperature included."""
    options = {"head": {"unfreeze": "none"}, "finetune": {"head_epochs": 0}}[phase]
    result = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=replace(small, **options))
    (kept,) = json.loads((result.output / "card.json").read_text())["trials"]["tried"] or read_history(result)
    assert result.metrics["validation"]["log_loss"] == pytest.approx(float(kept["val_loss"]), rel=1e-4, abs=1e-6)
    assert result.metrics["validation"]["accuracy"] == pytest.approx(float(kept["val_accuracy"]))


@pytest.mark.every_backend
def test_predictions_are_those_of_the_saved_model(result: Result) -> None:
    compare_predictions(result)


def compare_predictions(result: Result) -> None:
    """predictions.csv against `predict` on the finished run."""
    with (result.output / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    said = multitl.predict(result.output, [row["path"] for row in rows])
    for row, entry in zip(rows, said, strict=True):
        assert entry["predicted"] == row["predicted"]
        assert entry["confidence"] == pytest.approx(float(row["confidence"]), abs=1e-5)


def test_values_of_another_preprocessing_are_in_the_card_and_in_the_model(
    photo_folder: Path, small: Recipe, tmp_path: Path
) -> None:
    recipe = replace(small, head_epochs=2, unfreeze="none", preprocess="caffe")
    result = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe)
    card = json.loads((result.output / "card.json").read_text())
    assert card["recipe"]["preprocess"] == "caffe"
    own = multitl.load_pretrained(small.backbone, "default", 32).preprocess
    how = Preprocess.from_mapping(card["backbone"]["preprocess"])
    assert how == replace(own, channel_order="bgr", scale=(1.0,) * 3, offset=(-103.939, -116.779, -123.68))
    model = keras.models.load_model(result.model_path, compile=False)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    seen = keras.Model(model.input, model.get_layer("normalise").output).predict_on_batch(pixels)
    np.testing.assert_allclose(seen, pixels[..., ::-1] - np.array([103.939, 116.779, 123.68]), atol=1e-4)
    compare_predictions(result)
    assert multitl.evaluate(result.output, photo_folder)["count"] == 48


def test_second_run_starts_from_the_stored_features(
    photo_folder: Path, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTITL_CACHE", str(tmp_path / "cache"))
    recipe = replace(small, head_epochs=2, unfreeze="none")
    multitl.finetune(photo_folder, output=tmp_path / "a", recipe=recipe)
    multitl.finetune(photo_folder, output=tmp_path / "b", recipe=recipe)
    card = json.loads((tmp_path / "b" / "card.json").read_text())
    assert card["features"] == {"computed": 0, "reused": 48}
    a, b = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in "ab")
    assert a == b


@pytest.mark.every_backend
def test_training_on_features_equals_the_naive_loop(photo_folder: Path, small: Recipe, tmp_path: Path) -> None:
    """The naive loop pushes every pixel through the frozen backbone in every epoch."""
    recipe = replace(small, head_epochs=3, hidden=6, l2=1e-3, unfreeze="none")
    result = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe)

    pretrained = multitl.load_pretrained(recipe.backbone, "default", 32)
    dataset = scan_for(photo_folder, recipe)
    reader = PixelReader(dataset.split("train"), pretrained.preprocess)
    labels = np.eye(3, dtype="float32")[[example.label for example in dataset.split("train")]]
    pretrained.backbone.trainable = False
    pixels = pixel_input(pretrained.preprocess)
    features = pool(pretrained.backbone(normalise_in_model(pixels, pretrained.preprocess), training=False), "avg")
    extractor = keras.Model(pixels, features)
    head = build_head(np.asarray(extractor.predict_on_batch(reader.read(range(len(reader))))), 3, recipe)
    naive = keras.Model(pixels, head(features))
    epoch = steps_per_epoch(len(reader), 8)
    compile_model(naive, recipe)
    losses = []
    for step, draw in enumerate(draws(len(reader), 8, recipe.seed, range(3 * epoch))):
        naive.optimizer.learning_rate = learning_rate_at(step, 3 * epoch, recipe.head_learning_rate, recipe)
        pixels, targets = reader.read(draw.indices), labels[draw.indices]
        losses.append(naive.train_on_batch(pixels, targets, return_dict=True)["loss"])
    for number, row in enumerate(read_history(result)):
        assert np.mean(losses[number * epoch :][:epoch]) == pytest.approx(float(row["loss"]), rel=1e-4)


@pytest.mark.every_backend
def test_a_linear_head_is_solved_judged_and_then_fitted_to_the_validation_images_too(
    photo_folder: Path, small: Recipe, tmp_path: Path
) -> None:
    recipes = {refit: replace(small, unfreeze="none", refit=refit) for refit in (False, True)}
    results = {
        refit: multitl.finetune(photo_folder, output=tmp_path / str(refit), recipe=recipe)
        for refit, recipe in recipes.items()
    }
    cards = {refit: json.loads((result.output / "card.json").read_text()) for refit, result in results.items()}
    for refit, result in results.items():
        about = cards[refit]["solved_head"]
        assert about["gradient"] <= 1e-6 and about["refitted"] is refit
        assert about["penalty"] == min(about["tried"], key=lambda one: one["log_loss"])["penalty"]
        assert [row["phase"] for row in read_history(result)] == ["head"]
        compare_predictions(result)
    assert results[False].metrics["validation"] == results[True].metrics["validation"]
    heads = [keras.models.load_model(result.model_path).get_layer("head").get_weights() for result in results.values()]
    assert not np.allclose(heads[0][0], heads[1][0], rtol=1e-3)


@pytest.mark.every_backend
@pytest.mark.parametrize("head", ["mean", "kernel"])
def test_fine_tuning_starts_from_the_head_that_was_chosen(
    head: str, photo_folder: Path, small: Recipe, tmp_path: Path
) -> None:
    """What comes before its last layer never changes, whichever phase wins, and is in the saved model."""
    recipe = replace(small, head=head, learning_rate=0.01)
    frozen, deep = (
        multitl.finetune(photo_folder, output=tmp_path / one.unfreeze, recipe=one)
        for one in (replace(recipe, unfreeze="none"), recipe)
    )
    assert [row["phase"] for row in read_history(deep)] == ["head"] + 5 * ["finetune"]
    compare_predictions(deep)
    layers = [keras.models.load_model(result.model_path).get_layer("head").layers for result in (frozen, deep)]
    for one, other in zip(*layers, strict=True):
        assert one.name == other.name and one.get_config() == other.get_config()
        for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
            assert one.name == "logits" or np.array_equal(mine, theirs)
    card = json.loads((frozen.output / "card.json").read_text())
    assert card["solved_head"]["kind"] == head
    assert card["trained_parameters"] == 3 * (WAVES + 1 if head == "kernel" else 17)


def test_without_time_for_all_the_last_stages_are_trained(
    photo_folder: Path, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after measurements by which all of the network has time for one trial, and less of it for two."""
    measured: list[str] = []

    def measure(race: Race, step: Step, state: TrainingState) -> Tempo:
        measured.append(race.recipe.unfreeze)
        state.budget_steps = 100 * len(measured)
        return Tempo(race.stopwatch, None)

    monkeypatch.setattr(Race, "_measure", measure)
    recipe = replace(small, unfreeze="auto", steps=0, batch_size=32, learning_rate=1e-3)
    monkeypatch.setattr(planning, "ENOUGH_STEPS", 80)
    run = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe)
    tried = json.loads((run.output / "card.json").read_text())["trials"]["tried"]
    pretrained = multitl.load_pretrained(small.backbone, "default", small.image_size)
    depth = heavy_stages(pretrained.backbone, pretrained.stages)
    assert measured == ["all", depth] and depth.startswith("last:")
    assert {one["unfreeze"] for one in tried} == {depth} and sum(one["steps"] for one in tried) <= 200
    command = (run.output / "report.html").read_text()
    assert f"--unfreeze {depth} --learning-rate 0.001" in command or "--unfreeze none" in command


def test_augmented_views_are_passes_of_their_own(photo_folder: Path, small: Recipe, tmp_path: Path) -> None:
    recipe = replace(small, head_epochs=3, unfreeze="none", augment="light", views=2)
    result = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe)
    card = json.loads((result.output / "card.json").read_text())
    assert card["features"]["computed"] >= 2 * 33  # the plain pass over the judged splits may be stored already


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("precision", "types"),
    [("mixed", ({"bfloat16"}, {"float16"})), ("bfloat16", ({"bfloat16"},)), ("float16", ({"float16"},)),
     ("float32", ({"float32"},))],
)  # fmt: skip
def test_any_precision_runs_and_leaves_the_policy_alone(
    precision: str, types: tuple[set[str], ...], photo_folder: Path, small: Recipe, tmp_path: Path
) -> None:
    before = keras.config.dtype_policy().name
    recipe = replace(small, head_epochs=2, steps=5, precision=precision)
    result = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe)
    assert keras.config.dtype_policy().name == before
    model = keras.models.load_model(result.model_path)
    assert model.output.dtype == "float32"
    computed = {layer.compute_dtype for layer in backbone_of(model).layers if layer.weights}
    assert computed in types


@pytest.mark.every_backend
def test_another_backend_in_the_same_process_is_refused(photo_folder: Path, tmp_path: Path) -> None:
    other = "torch" if keras.config.backend() != "torch" else "jax"
    with pytest.raises(multitl.MultitlError, match=f"KERAS_BACKEND={other}"):
        multitl.finetune(photo_folder, backend=other, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_wrong_stage_is_found_before_the_long_part(photo_folder: Path, small: Recipe, tmp_path: Path) -> None:
    recipe = replace(small, unfreeze="layer4")
    with pytest.raises(multitl.MultitlError, match="Nothing in the backbone is called 'layer4'"):
        multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe)
