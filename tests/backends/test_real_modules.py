"""Modules with real weights: the same logits on every backend, and the training of tf_keras with `trainable=True`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

from multitl.sources.pretrained import load_pretrained  # noqa: E402
from multitl.translation import parity  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.every_backend]
STEPS, BATCH, MOMENTUM = 5, 8, 0.9
# Two originals whose weights differ by 1e-6 are up to 5e-5 apart in five steps (at 1e-4, up to 3e-3).
# Momentum 0.8 makes a difference of 1.2e-4, no training one of 2e-3.
RATE, NEAR = 1e-5, 1e-4


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory, shared_weights: Path) -> Path:
    folder = tmp_path_factory.mktemp("modules")
    command = [sys.executable, str(Path(__file__).parents[1] / "real_modules.py"), str(folder), str(shared_weights)]
    done = subprocess.run(command, env=os.environ | {"KERAS_BACKEND": "tensorflow"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", ["mobilenet", "lite0"])
def test_logits_are_those_of_the_network_that_was_written(name: str, modules: Path):
    kept = load_pretrained(f"tfhub/{modules / name}", head="keep")
    with np.load(modules / f"{name}.npz") as written:
        found = parity.compare(written["logits"], parity.run(kept.backbone, written["images"]))
    assert found.max_rel < 1e-4
    assert found.top1 == 1
    assert kept.class_names[:2] == ("tench", "goldfish")
    assert kept.preprocess.scale == pytest.approx((1 / 255,) * 3)


def test_five_steps_are_those_of_the_original_under_tf_keras(modules: Path):
    """hub.KerasLayer's work without the hub: the module's function for training, its trainable variables, SGD."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the original trains under TensorFlow")
    import tf_keras

    probes = [parity.probe_images((224, 224, 3), BATCH, seed) for seed in range(STEPS)]
    images, random = [(one * 48 + 128) / 255 for one in probes], np.random.default_rng(0)
    labels = random.integers(0, 1000, (STEPS, BATCH))
    ours = load_pretrained(f"tfhub/{modules / 'mobilenet'}", head="keep").backbone
    ours.compile(
        keras.optimizers.SGD(RATE, momentum=MOMENTUM), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    found = []
    for batch, classes in zip(images, labels, strict=True):
        ours.reset_metrics()
        found.append(float(ours.train_on_batch(batch, classes)))
    original = tf.saved_model.load(str(modules / "mobilenet"))
    optimizer = tf_keras.optimizers.SGD(RATE, momentum=MOMENTUM)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    wanted = []
    for batch, classes in zip(images, labels, strict=True):
        with tf.GradientTape() as tape:
            value = loss(classes, original(tf.constant(batch), training=True))
        variables = original.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))
        wanted.append(float(value))
    assert len(ours.trainable_weights) == len(original.trainable_variables)
    assert max(wanted) - min(wanted) > 1e-3
    assert np.abs(np.subtract(found, wanted)).max() < NEAR, (found, wanted)
