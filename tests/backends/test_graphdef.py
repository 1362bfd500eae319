"""Modules of every format, translated: outputs are the original's, weights go one to one, training comes along."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import saved_models  # noqa: E402
from multitl_tensorflow import graphdef, tfhub, verifying  # noqa: E402
from multitl_tensorflow.saved_models import read_module  # noqa: E402

from multitl.contracts import Translation  # noqa: E402
from multitl.errors import TranslationError  # noqa: E402
from multitl.translation import parity  # noqa: E402

SIZE, CLASSES = saved_models.SIZE, saved_models.CLASSES


def images(size: int = SIZE, count: int = 3) -> np.ndarray:
    return parity.probe_images((size, size, 3), count) / 4 + 0.5


def translated(folder: Path, size: int = 0) -> Translation:
    return graphdef.translate(graphdef.prepare(read_module(folder), size))


def logits(network: saved_models.Network, pixels: np.ndarray) -> np.ndarray:
    return network.run(tf.constant(pixels)).numpy()


@pytest.fixture
def network() -> saved_models.Network:
    return saved_models.Network()


WRITERS = {
    "reusable": saved_models.write_reusable,
    "signature": saved_models.write_signature,
    "frozen": saved_models.write_frozen,
    "hub1": lambda network, folder: saved_models.write_hub1(folder),
}


@pytest.mark.every_backend
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_originals_outputs_and_weights(name: str, network, tmp_path: Path):
    translation = translated(WRITERS[name](network, tmp_path / name))
    found = parity.compare(logits(network, images()), parity.run(translation.model, images()))
    assert found.max_rel < 1e-5
    assert found.max_spread < 1e-4
    assert translation.unused == ()
    held = {(one.layer, one.variable) for one in translation.weights}
    assert len(held) == len(translation.weights) == len(network.held)
    assert len(translation.model.trainable_weights) == len(network.trainable_variables)
    if name != "frozen":
        names = {one.name.removeprefix("module/").removesuffix(":0") for one in translation.weights}
        assert names == saved_models.values().keys()


@pytest.mark.parametrize("name", ["reusable", "hub1"])
def test_training_behaviour_comes_from_the_graph_for_training(name: str, network, tmp_path: Path):
    model = translated(WRITERS[name](network, tmp_path / name)).model
    (norm,) = (layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    (dropout,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Dropout))
    assert (norm.momentum, norm.epsilon) == (saved_models.MOMENTUM, 1e-3)
    assert dropout.rate == saved_models.RATE


def test_one_training_step_is_the_originals(tmp_path: Path):
    """Of a network without dropout: its outputs in training, and the moving statistics afterwards."""
    plain = saved_models.Network(classes=0)
    model = translated(saved_models.write_reusable(plain, tmp_path / "plain")).model
    ours = keras.ops.convert_to_numpy(model(images(), training=True))
    theirs = plain.run(tf.constant(images()), training=True).numpy()
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
    (norm,) = (layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    for name in ("moving_mean", "moving_variance"):
        found = keras.ops.convert_to_numpy(getattr(norm, name))
        wanted = plain.held[f"stem.norm.{name}"].numpy()
        assert np.abs(found - wanted).max() < (1e-5 if name == "moving_mean" else 0.05)  # Bessel's correction


def test_a_free_size_is_chosen_and_a_fixed_one_is_kept(tmp_path: Path):
    free = saved_models.Network(size=None)
    folder = saved_models.write_reusable(free, tmp_path / "free")
    model = translated(folder, size=40).model
    assert model.input_shape == (None, 40, 40, 3)
    assert parity.compare(logits(free, images(40)), parity.run(model, images(40))).max_rel < 1e-5
    assert translated(folder).model.input_shape == (None, graphdef.SIZE_IF_FREE, graphdef.SIZE_IF_FREE, 3)


def test_enormous_images_are_refused_before_one_is_made(tmp_path: Path):
    """Twelve of them, to compare with, would take 40 GB."""
    folder = saved_models.write_reusable(saved_models.Network(size=16_384), tmp_path / "large")
    with pytest.raises(TranslationError, match="takes images of 16384 x 16384"):
        translated(folder)


@pytest.mark.every_backend
def test_a_small_network_of_keras_is_translated(tmp_path: Path):
    """MobileNetV2 as Keras 3 exports it."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras exports SavedModels under TensorFlow")
    original = keras.applications.MobileNetV2(
        alpha=0.35, weights=None, input_shape=(96, 96, 3), classes=10, classifier_activation=None
    )
    random = np.random.default_rng(0)
    for weight in original.weights:  # else the output is hardly more than nothing
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(random.uniform(1, 3, weight.shape) if weight.name == "gamma" else np.full(weight.shape, 0.2))
    original.export(str(tmp_path / "module"), verbose=False)
    translation = translated(tmp_path / "module")
    pixels = images(96, 2)
    found = parity.compare(parity.run(original, pixels), parity.run(translation.model, pixels))
    assert found.max_rel < 1e-4 and found.max_spread < 1e-3
    assert len(translation.weights) == len(original.weights)


def test_logits_come_without_the_softmax_and_momentum_may_be_written_as_one_less_decay(network, tmp_path: Path):
    def shared(x, training=False):
        weights = {name.replace(".", "/"): variable for name, variable in network.held.items()}

        def update(old, new):
            old.assign_sub((old - new) * (tf.constant(1.0) - tf.constant(0.75)))

        return tf.nn.softmax(saved_models.forward(weights, x, training, update))

    module = tf.train.Checkpoint()
    module.held, module.__call__ = network.held, tf.function(shared)
    for training in (False, True):
        module.__call__.get_concrete_function(network.spec, training=training)
    tf.saved_model.save(module, str(tmp_path / "module"))
    model = translated(tmp_path / "module").model
    assert parity.compare(logits(network, images()), parity.run(model, images())).max_rel < 1e-5
    (norm,) = (layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    assert norm.momentum == 0.75


def test_the_gate_names_the_first_operation_that_goes_its_own_way(network, tmp_path: Path):
    prepared = graphdef.prepare(read_module(saved_models.write_reusable(network, tmp_path / "module")))
    preprocess = tfhub.preprocess(prepared.graph, SIZE, SIZE)
    faithful = verifying.verify(prepared, graphdef.translate(prepared), preprocess)
    assert parity.is_close(faithful) and faithful.inputs == parity.PROBES
    spoilt = graphdef.OPS.replaced({"Relu": lambda build, node, x: x})
    with pytest.raises(TranslationError, match="does not compute what the original does") as caught:
        verifying.verify(prepared, graphdef.translate(prepared, spoilt), preprocess, spoilt)
    assert "op Relu)" in caught.value.received
