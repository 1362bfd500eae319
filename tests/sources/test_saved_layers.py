"""What layers of Keras 2 mean in Keras 3, where the same name or argument means something else."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from multitl.sources.saved_graphs import SavedLayer
from multitl.sources.saved_layers import build_layer, problem

X = np.random.default_rng(0).uniform(-4, 4, (2, 5, 5, 3)).astype("float32")


def saved(kind: str, module: str = "keras.layers", **config: Any) -> SavedLayer:
    return SavedLayer("it", kind, module, {"name": "it", "trainable": True, "dtype": "float32"} | config)


def output(layer: SavedLayer, is_keras3: bool = False) -> np.ndarray:
    assert problem(layer) == ""
    result = X
    for step in build_layer(layer, "it", is_keras3):
        result = step(result)
    return np.asarray(keras.ops.convert_to_numpy(result))


@pytest.mark.every_backend
def test_hard_sigmoid_changed_its_slope():
    layer = saved("Activation", activation="hard_sigmoid")
    np.testing.assert_allclose(output(layer), np.clip(0.2 * X + 0.5, 0, 1), atol=1e-6)
    np.testing.assert_allclose(output(layer, is_keras3=True), np.clip(X / 6 + 0.5, 0, 1), atol=1e-6)


def test_arguments_that_were_renamed():
    np.testing.assert_allclose(output(saved("LeakyReLU", alpha=0.25)), np.where(X > 0, X, 0.25 * X), rtol=1e-6)
    np.testing.assert_array_equal(output(saved("ThresholdedReLU", theta=1.5)), np.where(X > 1.5, X, 0))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("BatchNormalizationV1", {"axis": [3], "fused": True, "renorm": False, "epsilon": 0.001}),
        ("Dropout", {"rate": 0.9, "noise_shape": None, "seed": 3}),
        ("FixedDropout", {"rate": 0.9, "noise_shape": [None, 1, 1, 1], "seed": None}),
        ("RandomRotation", {"factor": 0.2, "rng_type": "stateful"}),
        ("GaussianNoise", {"stddev": 3.0}),
        ("StochasticDepth", {"drop_path_rate": 0.5}),
        ("Activation", {"activation": "linear"}),
    ],
)
def test_layers_that_change_nothing_while_a_model_judges(kind: str, config: dict):
    np.testing.assert_allclose(output(saved(kind, **config)), X, rtol=1e-3)  # 1 / sqrt(1 + epsilon)


@pytest.mark.every_backend
def test_rescaling_by_colour_and_factors_by_channel():
    factors = {"class_name": "__numpy__", "config": {"value": [1.0, 2.0, 3.0], "dtype": "float32"}}
    rescaled = output(saved("Rescaling", scale=factors, offset=-1))
    np.testing.assert_allclose(rescaled, X * [1, 2, 3] - 1, rtol=1e-5, atol=1e-6)
    (layer,) = build_layer(saved("LayerScale", projection_dim=3, init_values=1e-6), "it", False)
    layer.build(X.shape)
    layer.set_weights([np.array([1.0, 2.0, 3.0])])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(X)), X * [1, 2, 3], rtol=1e-6)


def test_activations_inside_layers():
    config = {"units": 4, "kernel_initializer": {"class_name": "Danger", "config": {}}}
    names = [[type(step).__name__ for step in build_layer(saved("Dense", **config, activation=one), "it", False)] for
             one in ("softmax", "sigmoid", "relu", {"class_name": "LeakyReLU", "config": {"alpha": 0.1}})]  # fmt: skip
    assert names == [["Dense", "Softmax"], ["Dense", "Activation"], ["Dense"], ["Dense", "LeakyReLU"]]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (saved("DepthwiseConv2D", kernel_size=3, groups=2), "groups=2"),
        (saved("Conv2D", activation={"class_name": "Danger", "config": {}}), "the activation"),
        (saved("Conv2D", filters={"class_name": "Danger", "config": {}}), "an object of class 'Danger'"),
        (saved("Lambda", function="code"), "Lambda"),
        (saved("Conv2D", "my_package.layers"), "own"),
        (saved("get_file", "keras.utils"), "own"),
        (SavedLayer("it", "Map", "keras.src.ops.core", {"name": "it"}), "the operation Map"),
        (SavedLayer("it", "get_file", "keras.src.ops.numpy", {"name": "it"}), "the operation get_file"),
        (saved("TFOpLambda", function="io.read_file"), "tf.io.read_file"),
        (saved("TensorFlowOpLayer", node_def={"op": "Sqrt"}), "tf.Sqrt"),
        (saved("TimeDistributed"), "TimeDistributed"),
    ],
)
def test_what_cannot_be_taken_is_named(layer: SavedLayer, reason: str):
    assert reason in problem(layer)
