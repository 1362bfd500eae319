"""First weights by numpy: Keras' formulas, equal everywhere, and no trace in the model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from multitl.models.initialisers import numpy_initialisers


def _weights(seed: int | None, initialiser: str | dict = "glorot_uniform", shape: tuple[int, ...] = (3, 3, 40, 50)):
    layer = keras.layers.Conv2D(shape[-1], shape[:2], kernel_initializer=initialiser)
    with numpy_initialisers(seed):
        layer.build((None, 8, 8, shape[-2]))
    return [keras.ops.convert_to_numpy(weight) for weight in layer.weights]


@pytest.mark.every_backend
def test_draws_are_the_same_on_every_backend():
    kernel, bias = _weights(0)
    np.testing.assert_allclose(kernel.ravel()[[0, 1, -1]], [0.060354, 0.023576, -0.071116], atol=1e-6)
    assert kernel.dtype == np.float32
    assert not bias.any()


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("initialiser", "deviation", "limit"),
    [
        ("glorot_uniform", np.sqrt(2 / (360 + 450)), np.sqrt(6 / (360 + 450))),
        ("he_normal", np.sqrt(2 / 360), 2 / 0.8796 * np.sqrt(2 / 360)),
        ("lecun_normal", np.sqrt(1 / 360), 2 / 0.8796 * np.sqrt(1 / 360)),
        (
            {"class_name": "VarianceScaling", "config": {"mode": "fan_out", "distribution": "untruncated_normal"}},
            np.sqrt(1 / 450),
            np.inf,
        ),
    ],
)
def test_draws_follow_keras_formulas(initialiser, deviation, limit):
    kernel = _weights(0, initialiser)[0]
    assert kernel.std() == pytest.approx(deviation, rel=0.02)
    assert abs(kernel.mean()) < 0.02 * deviation * 3
    assert np.abs(kernel).max() <= limit * 1.0001
    assert np.abs(kernel).max() > 0.98 * limit or limit == np.inf


@pytest.mark.parametrize("initialiser", ["glorot_uniform", "he_normal"])
def test_our_spread_is_keras_own_spread(initialiser):
    own = keras.ops.convert_to_numpy(keras.initializers.get(initialiser)((3, 3, 40, 50)))
    assert _weights(1, initialiser)[0].std() == pytest.approx(own.std(), rel=0.03)


def test_a_seed_repeats_and_another_differs():
    np.testing.assert_array_equal(_weights(3)[0], _weights(3)[0])
    assert not np.array_equal(_weights(3)[0], _weights(4)[0])


@pytest.mark.every_backend
def test_no_seed_leaves_zeros_and_ones():
    assert not _weights(None)[0].any()
    layer = keras.layers.BatchNormalization()
    with numpy_initialisers(None):
        layer.build((None, 4))
    values = [keras.ops.convert_to_numpy(weight).tolist() for weight in layer.weights]
    assert values == [[1.0] * 4, [0.0] * 4, [0.0] * 4, [1.0] * 4]


def test_variables_keep_their_type():
    with numpy_initialisers(None):
        layer = keras.layers.Dense(3, dtype="float16")
        layer.build((None, 2))
        counter = keras.Variable(keras.initializers.Zeros(), shape=(), dtype="int32", trainable=False)
    assert [weight.dtype for weight in layer.weights] == ["float16", "float16"]
    assert counter.value.dtype in (keras.ops.zeros((), "int32").dtype,)


def test_configurations_are_keras_own():
    layer = keras.layers.Conv2D(4, 3, kernel_initializer="he_normal")
    expected = layer.get_config()["kernel_initializer"]
    with numpy_initialisers(0):
        layer.build((None, 8, 8, 3))
        assert layer.get_config()["kernel_initializer"] == expected
    assert expected["module"] == "keras.initializers"


def test_initialisers_are_restored_even_after_an_error():
    kinds = [keras.initializers.Zeros, keras.initializers.Ones, keras.initializers.VarianceScaling]
    before = [kind.__call__ for kind in kinds]
    with pytest.raises(ZeroDivisionError), numpy_initialisers(0):
        raise ZeroDivisionError
    assert [kind.__call__ for kind in kinds] == before
