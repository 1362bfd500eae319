"""A run's folder as a backbone's name: the fine-tuned network, its preprocessing and stages, and every wrong folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from small_backbones import save_backbone

import multitl
from multitl.contracts import Result
from multitl.errors import BackboneError, MultitlError, RunError, WeightsError
from multitl.models.heads import backbone_of
from multitl.models.weight_hashes import weights_sha256
from multitl.recipes import Recipe

DEEP = Recipe(unfreeze="all", steps=6, learning_rate=1e-3, batch_size=8, budget="none", preprocess="unit")


@pytest.fixture(scope="module")
def tuned(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run whose backbone was trained."""
    folder = tmp_path_factory.mktemp("tuned")
    backbone = save_backbone(folder / "small.keras")
    return multitl.finetune(photo_folder, backbone=f"file:{backbone}", output=folder / "run", recipe=DEEP)


@pytest.fixture
def copied(tuned: Result, tmp_path: Path) -> Path:
    """One to damage."""
    return Path(shutil.copytree(tuned.output, tmp_path / "run"))


@pytest.mark.every_backend
@pytest.mark.parametrize("prefix", ["", "run:"])
def test_it_is_the_network_that_was_trained(tuned: Result, prefix: str):
    found = multitl.load_pretrained(f"{prefix}{tuned.output}")
    run = multitl.load(tuned.output)
    assert weights_sha256(found.backbone) == weights_sha256(backbone_of(run.model))
    assert found.name == run.card.backbone.name == "file:small.keras"
    assert found.preprocess == run.card.preprocess and found.stages == run.card.backbone.stages
    assert (found.origin.source, found.origin.weights) == ("file", str(tuned.output))
    maps = found.backbone.predict_on_batch(np.zeros((2, 32, 32, 3), "float32"))
    assert np.asarray(maps).shape == (2, 4, 4, 16)


@pytest.mark.every_backend
def test_it_is_chosen_and_trained_and_leaves_like_any_other(tuned: Result, photo_folder: Path, tmp_path: Path):
    name = str(tuned.output)
    again = multitl.finetune(photo_folder, backbone=name, output=tmp_path / "again", unfreeze="none")
    card = multitl.load(again.output).card
    assert (card.backbone.name, card.backbone.weights) == ("file:small.keras", name)
    assert card.preprocess == multitl.load(name).card.preprocess
    assert again.metrics["test"]["accuracy"] == 1  # three colours
    choice = multitl.choose(photo_folder, [name], output=tmp_path / "choice")
    assert [one.name for one in choice.standings] == [name]
    ported = multitl.port(f"run:{name}", "onnx", tmp_path / "onnx")
    assert ported.card["class_names"] == ["blue", "green", "red"]


def test_features_are_not_stored_under_the_name_that_a_card_claims(copied: Path):
    card = json.loads((copied / "card.json").read_text())
    card["backbone"]["name"] = "keras/MobileNet"
    (copied / "card.json").write_text(json.dumps(card))
    assert len(multitl.load_pretrained(str(copied)).content) == 64


@pytest.mark.parametrize(
    ("arguments", "kind", "fix"),
    [
        ({"image_size": 64}, BackboneError, "leave --image-size out"),
        ({"weights": "none"}, WeightsError, "leave --weights out"),
        ({"head": "keep"}, BackboneError, "multitl.load("),
    ],
)
def test_what_a_run_cannot_be_is_refused(tuned: Result, arguments: dict, kind: type[MultitlError], fix: str):
    with pytest.raises(kind) as caught:
        multitl.load_pretrained(str(tuned.output), **arguments)
    assert caught.value.fix.startswith(fix)


def test_a_network_with_its_own_classifier_is_refused(tmp_path: Path):
    multitl.translate("keras/MobileNet:alpha=0.25", tmp_path / "net", weights="none", image_size=32, backend=None)
    with pytest.raises(BackboneError, match="original classifier"):
        multitl.load_pretrained(str(tmp_path / "net"))


@pytest.mark.parametrize("damage", ["stages", "twice", "size", "flat", "cut off"])
def test_a_card_or_a_model_that_does_not_fit_is_refused(copied: Path, damage: str):
    card = json.loads((copied / "card.json").read_text())
    if damage == "stages":
        card["backbone"]["stages"][0]["layers"][0] = "no_such_layer"
    elif damage == "twice":
        card["backbone"]["stages"].append(card["backbone"]["stages"][0])
    elif damage == "size":
        card["backbone"]["preprocess"]["height"] = 48
    elif damage == "flat":
        image = keras.Input((32, 32, 3), dtype="uint8")
        keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)).save(copied / "model.keras")
    else:
        (copied / "model.keras").write_bytes((copied / "model.keras").read_bytes()[:1000])
    (copied / "card.json").write_text(json.dumps(card))
    with pytest.raises(RunError, match="cannot be used as a backbone") as caught:
        multitl.load_pretrained(str(copied))
    assert caught.value.received


def test_a_folder_that_is_no_finished_run_is_refused_before_a_backend_loads(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (copied / "card.json").unlink()
    with pytest.raises(RunError, match="no finished run") as caught:
        multitl.load_pretrained(str(copied))
    assert "--resume" in caught.value.fix
    (tmp_path / "runs" / "photos").mkdir(parents=True)
    (tmp_path / "runs" / "photos" / "card.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="no finished run") as caught:
        multitl.load_pretrained("run:runs/foto")
    assert caught.value.nearest == ("runs/photos",)
    with pytest.raises(BackboneError, match="Unknown backbone") as unknown:
        multitl.load_pretrained("runs/photo")
    assert "runs/photos" in unknown.value.nearest
    with pytest.raises(RunError, match="Cannot read"):
        multitl.load_pretrained("runs/photos")
