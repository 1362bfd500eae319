"""`multitl translate`: a pretrained network as a folder, used as it is."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import multitl
from multitl.cli import main as cli
from multitl.errors import BackboneError, RunError

SMALL = {"weights": "none", "image_size": 64}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """torchvision's SqueezeNet with random weights and its classifier."""
    return multitl.translate("torchvision/squeezenet1_1", tmp_path_factory.mktemp("networks") / "whole", **SMALL)


@pytest.mark.every_backend
def test_the_model_takes_pixels_and_gives_the_originals_probabilities(made):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), "uint8")
    model = keras.models.load_model(made.output / "model.keras")
    values = (pixels / np.float32(255) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]  # torchvision's documentation
    logits = keras.ops.convert_to_numpy(made.pretrained.backbone(values.astype("float32"), training=False))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    found = keras.ops.convert_to_numpy(model(pixels, training=False))
    np.testing.assert_allclose(found, exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-6)


def test_the_card_says_what_it_is(made):
    card = json.loads((made.output / "card.json").read_text())
    assert card == json.loads(json.dumps(made.card))
    assert card["backbone"]["name"] == "torchvision/squeezenet1_1"
    assert card["backbone"]["parity"]["max_rel"] < 1e-4
    assert card["data"]["class_names"][:2] == ["tench", "goldfish"]
    assert card["saved_model_difference"] < 1e-5
    assert {weight["name"] for weight in card["backbone"]["tensors"]} >= {"features.0.weight", "classifier.1.bias"}


def test_predict_works_with_the_folder(made, photo_folder: Path):
    (prediction,) = multitl.predict(made.output, [next(photo_folder.rglob("*.png"))])
    assert len(prediction["probabilities"]) == 1000
    assert prediction["predicted"] in made.pretrained.class_names


def test_a_real_network_knows_clothes(shared_weights: Path, shared_data: Path, tmp_path: Path):
    """With the weights' own preprocessing, ImageNet's classes are right about a photo of each kind that it has."""
    weights = shared_weights / "squeezenet1_1.pth"
    folder = tmp_path / "squeezenet"
    multitl.translate("torchvision/squeezenet1_1", folder, weights=weights, preprocess="caffe")
    photos = sorted((shared_data / "clothing_tiny").rglob("shoes/*"))[:20]
    predictions = multitl.predict(folder, photos)
    footwear = {"running shoe", "Loafer", "clog", "sandal", "cowboy boot"}
    right = [max(row["probabilities"], key=row["probabilities"].get) in footwear for row in predictions]
    assert np.mean(right) > 0.5


def test_without_its_classifier_it_gives_the_feature_map(tmp_path: Path):
    cut = multitl.translate("torchvision/squeezenet1_1", tmp_path / "cut", head="cut", **SMALL)
    assert keras.models.load_model(cut.output / "model.keras").output_shape == (None, 3, 3, 512)
    assert cut.card["data"]["class_names"] == []


def test_an_existing_folder_is_kept(made, tmp_path: Path):
    with pytest.raises(RunError, match="overwrite"):
        multitl.translate("torchvision/squeezenet1_1", made.output, **SMALL)
    assert (made.output / "model.keras").is_file()


def test_a_fault_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(BackboneError, match="squeezenet1_1"):
        multitl.translate("torchvision/squeezenet1_2", tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "network"
    arguments = ["translate", "torchvision/squeezenet1_1", "--weights", "none", "--image-size", "64", "--out"]
    assert cli.main([*arguments, str(folder)]) == 0
    out = capsys.readouterr().out
    assert "1,235,496 parameters" in out and "1000 probabilities" in out
    assert f"predict {folder} IMAGES" in out
    assert cli.main([*arguments, str(folder)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_network_of_keras_keeps_its_classifier(tmp_path: Path):
    """As every other source does: names and probabilities, and `port` takes it."""
    made = multitl.translate("keras/MobileNet:alpha=0.25", tmp_path / "mobilenet", weights="none", image_size=32)
    card = json.loads((made.output / "card.json").read_text())
    assert (card["head"], card["data"]["class_names"][:2]) == ("keep", ["tench", "goldfish"])
    assert keras.models.load_model(made.output / "model.keras").output_shape == (None, 1000)
