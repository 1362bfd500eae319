"""Models that leave and come back, or go home: checked by programs that know neither multitl nor Keras.

`-m slow`, with KERAS_BACKEND=jax, tensorflow and torch.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import multitl
from multitl.files.state_dict_files import read_state_dict
from multitl.judging.evaluation import load_run
from multitl.porting.references import make_reference
from multitl.translation import parity

pytestmark = [pytest.mark.slow, pytest.mark.every_backend]
BACKEND = keras.config.backend()
RECIPE = multitl.Recipe(image_size=64, head_epochs=2, unfreeze="none", head="linear")

# A user's own program. It declares two operators that are missing where torch and torchvision are of different builds.
PLAIN_TORCH = """
import importlib, sys
import numpy as np, torch

sys.modules["keras"] = None
try:
    import torchvision
except RuntimeError:
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    import torchvision

folder, network, classes, pixels, target = sys.argv[1:]
model = getattr(torchvision.models, network)(num_classes=int(classes)).eval()
model.load_state_dict(torch.load(folder + "/model.pth", weights_only=True), strict=True)
sys.path.insert(0, folder)
load = importlib.import_module("load")
with torch.no_grad():
    logits = torch.cat([model(load.normalise(batch)) for batch in torch.from_numpy(np.load(pixels)).split(16)])
np.save(target, logits.log_softmax(1).numpy())
"""
RANDOM_WEIGHTS = """
import sys
import torch
from multitl_torch.torchvision import import_torchvision

torch.manual_seed(0)
torch.save(import_torchvision().models.get_model(sys.argv[1], weights=None).state_dict(), sys.argv[2])
"""
KERAS_LAYER = """
import os, sys
import numpy as np

os.environ["TF_USE_LEGACY_KERAS"] = "1"
sys.modules["keras"] = None
import tensorflow as tf, tensorflow_hub as hub, tf_keras

folder, images, target = sys.argv[1:]
images = np.load(images)
layer = hub.KerasLayer(folder, trainable=True, input_shape=images.shape[1:])
model = tf_keras.Sequential([layer])
first = model.predict(images, verbose=0)
before = [value.numpy() for value in layer.trainable_variables]
model.compile(tf_keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
model.fit(images, first.argmin(1), epochs=2, verbose=0)
moved = [not np.array_equal(old, new.numpy()) for old, new in zip(before, layer.trainable_variables)]
np.savez(target, first=first, moved=moved, trained=model.predict(images, verbose=0))
"""


def python(program: str, *arguments: object) -> None:
    """A process of its own, which sees no setting of this one's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KERAS", "PYTHONPATH"))}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


def at_home(port: Path, network: str, pixels: np.ndarray, scratch: Path) -> np.ndarray:
    """Log-probabilities of the same network's own class, by PyTorch alone."""
    classes = len(json.loads((port / "card.json").read_text())["class_names"])
    np.save(scratch / "pixels.npy", pixels)
    python(PLAIN_TORCH, port, network, classes, scratch / "pixels.npy", scratch / "answers.npy")
    return np.load(scratch / "answers.npy")


def test_a_trained_mobilenet_v2_goes_home(shared_data: Path, shared_weights: Path, tmp_path: Path):
    """torchvision -> Keras -> fine-tuned on photos -> torchvision."""
    recipe = multitl.Recipe(
        backbone="torchvision/mobilenet_v2", weights=str(shared_weights / "mobilenet_v2_features.pth"),
        unfreeze="last:2", learning_rate=5e-4, steps=14,
    )  # fmt: skip
    run = multitl.finetune(shared_data / "clothing_tiny", output=tmp_path / "run", recipe=recipe).output
    card = multitl.port(run, "torch", tmp_path / "port").card
    reference = make_reference(load_run(run), None, None)
    assert len(reference.pixels) == 80 and reference.labels is not None
    found = np.exp(at_home(tmp_path / "port", "mobilenet_v2", reference.pixels, tmp_path))
    assert np.abs(found - reference.outputs).max() < 1e-4
    second, first = np.sort(reference.outputs)[:, -2:].T
    clear = first - second > 2e-4  # anything else is a tie
    assert np.array_equal(found.argmax(1)[clear], reference.outputs.argmax(1)[clear])
    assert np.mean(found.argmax(1) == reference.labels) == card["proof"]["accuracy_before"] > 0.9

    rounded = multitl.port(run, "litert-int8", tmp_path / "rounded").card  # random networks have ranges it refuses
    assert rounded["proof"]["accuracy_after"] > 0.9 and rounded["bytes"] < 0.4 * rounded["source"]["bytes"]

    state = read_state_dict(tmp_path / "port" / "model.pth").tensors
    original = read_state_dict(shared_weights / "mobilenet_v2_features.pth").tensors
    same = [name for name, tensor in original.items() if np.array_equal(state[name], tensor)]
    assert len(same) / len(original) > 0.5  # all of them, where training beyond the head did not help
    assert not any("running" in name for name in set(original) - set(same))  # statistics stay frozen where layers train


@pytest.mark.parametrize("network", ["resnet18", "efficientnet_b0", "convnext_tiny", "vit_b_16", "swin_t"])
def test_random_networks_go_home(network: str, photo_folder: Path, tmp_path: Path):
    size = 224 if network == "vit_b_16" else 64  # its positions are bound to that size
    python(RANDOM_WEIGHTS, network, tmp_path / "original.pth")
    recipe = dataclasses.replace(
        RECIPE, backbone=f"torchvision/{network}", weights=str(tmp_path / "original.pth"), image_size=size
    )
    run = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe).output
    multitl.port(run, "torch", tmp_path / "port")
    state = read_state_dict(tmp_path / "port" / "model.pth").tensors
    original = read_state_dict(tmp_path / "original.pth").tensors
    assert state.keys() == original.keys()
    changed = [name for name, tensor in original.items() if not np.array_equal(state[name], tensor)]
    assert len(changed) == 2 and all(name.startswith(("fc.", "classifier.", "head.", "heads.")) for name in changed)
    reference = make_reference(load_run(run), None, None)
    found = at_home(tmp_path / "port", network, reference.pixels, tmp_path)
    assert np.abs(found - np.log(reference.outputs)).max() < 1e-4


def small_run(photos: Path, folder: Path, backbone: str = "keras/MobileNet:alpha=0.25", **options: object) -> Path:
    recipe = dataclasses.replace(RECIPE, **{"backbone": backbone, "weights": "none"} | options)
    return multitl.finetune(photos, output=folder, recipe=recipe).output


def test_a_hub_module_trains_on_in_tf_keras(photo_folder: Path, tmp_path: Path):
    if importlib.util.find_spec("tensorflow_hub") is None:
        pytest.skip("needs tensorflow-hub and tf_keras")
    run = small_run(photo_folder, tmp_path / "run")
    multitl.port(run, "tfhub", tmp_path / "port")
    reference = make_reference(load_run(run), None, None)
    np.save(tmp_path / "images.npy", reference.pixels.astype("float32") / np.float32(255))
    python(KERAS_LAYER, tmp_path / "port", tmp_path / "images.npy", tmp_path / "answers.npz")
    with np.load(tmp_path / "answers.npz") as answers:
        assert np.abs(answers["first"] - reference.outputs).max() < 1e-5
        assert answers["moved"].mean() > 0.9
        assert np.abs(answers["trained"] - answers["first"]).max() > 1e-3


def test_a_saved_model_comes_in_trains_and_leaves_again(photo_folder: Path, tmp_path: Path):
    """SavedModel -> Keras -> fine-tuned -> SavedModel -> Keras."""
    pytest.importorskip("tensorflow")
    first = small_run(photo_folder, tmp_path / "first")
    multitl.port(first, "tfhub", tmp_path / "module")
    assert_same_features(first, tmp_path / "module")
    second = small_run(
        photo_folder,
        tmp_path / "second",
        f"tfhub/{tmp_path / 'module'}",
        weights="default",
        unfreeze="last",
        learning_rate=5e-4,
        steps=2,
    )
    for to in ("savedmodel", "tfhub"):
        card = multitl.port(second, to, tmp_path / to).card
        assert card["proof"]["max_rel"] < 1e-5 and card["proof"]["top1"] == 1
    assert_same_features(second, tmp_path / "tfhub")


def assert_same_features(run: Path, module: Path) -> None:
    """A module read again gives the classifier's probabilities."""
    kept = multitl.load_pretrained(f"tfhub/{module}", head="keep", image_size=64)
    reference = make_reference(load_run(run), None, None)
    logits = parity.run(kept.backbone, reference.pixels.astype("float32") * np.float32(kept.preprocess.scale[0]))
    odds = np.exp(logits - logits.max(1, keepdims=True))
    assert np.abs(odds / odds.sum(1, keepdims=True) - reference.outputs).max() < 1e-4


def test_a_network_of_keras_goes_to_torch_and_comes_back(photo_folder: Path, tmp_path: Path):
    """Keras Applications -> a program of PyTorch -> Keras, on any backend."""
    torch = pytest.importorskip("torch")
    run = small_run(photo_folder, tmp_path / "run")
    multitl.port(run, "torch-export", tmp_path / "port", preprocess=False)
    program = torch.export.load(tmp_path / "port" / "model.pt2").module()

    class ChannelsFirst(torch.nn.Module):
        """As PyTorch's own networks take images."""

        def __init__(self) -> None:
            super().__init__()
            self.program = program

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.program(images.permute(0, 2, 3, 1))

    back = multitl.from_torch(ChannelsFirst(), torch.rand(2, 3, 64, 64))
    reference = make_reference(load_run(run), None, None)
    images = reference.pixels.astype("float32") / 127.5 - 1
    assert np.abs(parity.run(back, images) - reference.outputs).max() < 1e-5
