"""Whole networks as ONNX: where data moves, what is refused, what a file says of itself, and what is not imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops as K  # noqa: N812

pytest.importorskip("onnx")

import onnx
from onnx_twins import assert_same, computed, difference, images, kinds, network
from zoo_onnx import compared, networks, randomise

from multitl.errors import TranslationError
from multitl.models.folding import fold_batch_norm
from multitl.models.preprocessing import normalise_in_model
from multitl.onnx_graphs import writing
from multitl.onnx_graphs.writing import onnx_model, save_onnx
from multitl.sources.keras_catalogue import ARCHITECTURES

MOBILENET = next(one for one in ARCHITECTURES if one.full_name == "keras/MobileNet:alpha=0.25")


def block(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    """A residual block with attention over channels, as EfficientNets have."""
    y = layers.BatchNormalization()(layers.Conv2D(channels, 3, padding="same", use_bias=False)(x))
    y = layers.Activation("silu")(y)
    weights = layers.Reshape((1, 1, channels))(layers.GlobalAveragePooling2D()(y))
    y = layers.multiply([y, layers.Conv2D(channels, 1, activation="sigmoid")(weights)])
    y = layers.concatenate([layers.ZeroPadding2D(1)(y), layers.ZeroPadding2D(1)(x)])
    return layers.add([layers.Conv2D(channels, 3)(y), x])


def test_a_convolutional_network_moves_its_axes_at_the_entrance_and_the_end():
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, 2, padding="same")(layers.Rescaling(1 / 255)(image))
    x = layers.AveragePooling2D(2, padding="same")(block(block(x, 8), 8))
    assert kinds(assert_same(keras.Model(image, x)))["Transpose"] == 2
    pooled = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    assert kinds(assert_same(keras.Model(image, pooled)))["Transpose"] == 1


def test_channels_are_shuffled_where_they_lie():
    """Two reshapes and a permutation in Keras: one move, with channels first before and after it."""
    image = keras.Input((8, 8, 4))
    x = layers.Conv2D(6, 1)(image)
    x = K.reshape(K.transpose(K.reshape(x, (-1, 8, 8, 2, 3)), (0, 1, 2, 4, 3)), (-1, 8, 8, 6))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 1)(x))
    assert kinds(assert_same(keras.Model(image, x)))["Transpose"] == 2


def test_attention_moves_nothing_that_onnxruntime_cannot_fuse():
    """Tokens come in and go out last; only the heads' axes change places, before and after each product."""
    tokens = keras.Input((6, 8))
    query, key, value = (layers.EinsumDense("abc,cde->abde", (6, 2, 4))(tokens) for _ in range(3))
    weights = K.softmax(K.einsum("bqhd,bkhd->bhqk", query, key))
    mixed = K.einsum("bhqk,bkhd->bqhd", weights, value)
    written = assert_same(keras.Model(tokens, layers.EinsumDense("abcd,cde->abe", (6, 8))(mixed)))
    assert kinds(written)["Transpose"] == 4 and kinds(written)["Einsum"] == 0


def test_models_in_models_are_written_out():
    """A functional model, called twice, and a sequential one that was built by its call."""
    image = keras.Input((8, 8, 3))
    inner = network(layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization(), shape=(None, None, 3))
    head = keras.Sequential([layers.Flatten(), layers.Dense(4, activation="softmax")])
    assert_same(keras.Model(image, head(inner(layers.MaxPooling2D()(inner(image))))))


def test_several_inputs_and_outputs_keep_their_names():
    one, two = keras.Input((5,), name="one"), keras.Input((5,), name="two", dtype="int32")
    model = keras.Model([one, two], [K.add(one, K.cast(two, "float32")), one])
    written = onnx_model(model, ["total", "first"], {"class_names": '["a"]'})
    assert [value.name for value in written.graph.input] == ["one", "two"]
    assert [value.name for value in written.graph.output] == ["total", "first"]
    assert {one.key: one.value for one in written.metadata_props} == {"class_names": '["a"]'}
    assert written.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert written.opset_import[0].version == writing.OPSET == 18
    assert difference(model, written, images(model, 3)) == 0


@pytest.mark.every_backend
def test_a_model_that_comes_from_a_file(tmp_path: Path):
    """Its arguments have been lists and dictionaries meanwhile, and its constants are tensors of the backend."""
    image = keras.Input((6, 8, 4))
    one = K.ones_like(image[:1, 0, 0])
    x = K.pad(image[:, 1:, ..., ::2], [(0, 0), (1, 0), (0, 2), (0, 0)]) * np.arange(6, dtype="float32").reshape(6, 1, 1)
    model = keras.Model(image, K.concatenate([x, K.repeat(x, 2, axis=-1)], axis=-1) + K.mean(one))
    model.save(tmp_path / "model.keras")
    assert_same(keras.models.load_model(tmp_path / "model.keras"))


def test_images_of_any_size():
    """Where nothing hangs on the size: padding is then told by its kind."""
    body = (layers.Conv2D(4, 3, 2, padding="same"), layers.AveragePooling2D(3, 1, padding="same"))
    model = randomise(network(*body, layers.GlobalAveragePooling2D(), shape=(None, None, 3)))
    written = onnx_model(model)
    for size in ((9, 12), (16, 7)):
        pixels = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
        assert difference(model, written, [pixels]) < 1e-5
    with pytest.raises(TranslationError, match="images of any size"):
        onnx_model(network(layers.Flatten(), shape=(None, None, 3)))


def test_all_that_cannot_be_written_is_named_at_once():
    """Layers of the user's, too, even under the name of one of Keras'."""

    class Conv2D(layers.Layer):
        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            return x

    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="fine")(Conv2D(name="mine")(image))
    x = K.cumprod(layers.Conv2D(4, 3, activation=lambda x: x * 2, name="own_activation")(x), axis=1)
    x = K.argsort(layers.Activation("tanh")(x))
    with pytest.raises(TranslationError) as caught:
        onnx_model(keras.Model(image, x, name="odd"))
    own, activation, *operations = caught.value.missing
    assert own.endswith(".Conv2D") and not own.startswith("layers")
    assert activation == "layers.Conv2D with the activation <lambda>"
    assert operations == ["ops.Cumprod", "ops.Argsort"]
    assert all(name in str(caught.value) for name in ("odd", "mine", "own_activation", "torch-export"))
    assert "fine" not in str(caught.value)


def test_what_feature_extraction_takes():
    """Folded, with its preprocessing for pixels in front and the mean over positions behind."""
    from multitl.sources.keras_networks import build

    backbone = randomise(build(MOBILENET, 96, seed=0))
    pixels = keras.Input((96, 96, 3), dtype="uint8")
    x = fold_batch_norm(backbone)(normalise_in_model(pixels, MOBILENET.preprocess(96)))
    model = keras.Model(pixels, layers.GlobalAveragePooling2D()(x))
    written = onnx_model(model)
    assert kinds(written)["Transpose"] == 1 and kinds(written)["BatchNormalization"] == 0
    for count in (1, 3):
        assert difference(model, written, images(model, count)) < 1e-5


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "name", ["keras/MobileNet:alpha=0.25", "keras-classifiers/MobileNet:alpha=0.25", "torchvision/squeezenet1_1"]
)
def test_a_small_network(name: str):
    assert compared(name, networks(name.partition("/")[0])[name])["error"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", [*networks("keras"), *networks("keras-classifiers"), *networks("torchvision")])
def test_every_network_of_the_zoo(name: str, monkeypatch: pytest.MonkeyPatch):
    """One image and two, within 1e-5 of the largest output."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        assert compared(name, networks(name.partition("/")[0])[name])["error"] < 1e-5
    finally:
        sys.setrecursionlimit(limit)


def test_weights_of_more_than_a_file_holds_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "LARGEST", 1000)
    model = network(layers.Conv2D(16, 3))
    written = onnx_model(model)
    inputs = images(model, 2)
    wanted = computed(written, inputs)
    save_onnx(written, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size >= 16 * 4 * 9 * 4
    np.testing.assert_array_equal(computed(onnx.load(tmp_path / "model.onnx"), inputs), wanted)


def test_no_framework_but_the_backend_is_imported():
    code = """
import sys, json, keras
from multitl.onnx_graphs.writing import onnx_model
onnx_model(keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3), alpha=0.25))
print(json.dumps([name for name in ("torch", "tensorflow", "onnxscript", "onnxruntime") if name in sys.modules]))
"""
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
