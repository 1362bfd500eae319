"""Weights that tell contenders apart: outputs depend on the picture, and training goes steadily down."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

from multitl.bench.pictures import synthetic_pixels
from multitl.bench.preparation import FALL, main, trial_batch, trial_model
from multitl.models.preprocessing import normalise
from multitl.sources.pretrained import load_pretrained

SIZE = 32

pytestmark = pytest.mark.slow  # a minute to translate, and to find a rate


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    assert main(["torchvision/resnet18", "none", str(SIZE), str(path)]) == 0
    return path


def test_the_file_has_pytorchs_names_and_gives_features_that_differ(file: Path):
    assert {"conv1.weight", "layer4.1.bn2.running_var"} <= load_file(file).keys()
    pretrained = load_pretrained("torchvision/resnet18", str(file), SIZE)
    pixels = synthetic_pixels(2, SIZE, seed=5)
    features = np.asarray(pretrained.backbone.predict_on_batch(normalise(pixels, pretrained.preprocess)))
    assert 0.05 < np.abs(features[0] - features[1]).mean() < 20


def test_a_step_at_the_rate_lowers_the_loss_by_what_was_asked(file: Path):
    """To first order; half or one and a half times as much is near enough."""
    about = json.loads(file.with_suffix(".json").read_text())
    assert about["image_size"] == SIZE
    pretrained = load_pretrained("torchvision/resnet18", str(file), SIZE)
    first, second = _losses(pretrained, about["check_rate"])
    assert 0.5 * FALL < (first - second) / first < 1.5 * FALL


def _losses(pretrained, rate: float) -> tuple[float, float]:
    """Before and after one step of SGD, on the batch that the rate was found with."""
    model = trial_model(pretrained)
    model.compile(keras.optimizers.SGD(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batch = trial_batch(pretrained)
    return float(model.train_on_batch(*batch)), float(model.train_on_batch(*batch))


def test_what_cannot_be_prepared_is_written_down(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    assert main(["torchvision/resnet18", str(tmp_path / "nowhere.pth"), "32", str(path)]) == 2
    assert json.loads(path.with_suffix(".error.json").read_text())["kind"] == "WeightsError"
