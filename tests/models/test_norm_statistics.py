"""Statistics moved to another domain: against NumPy, and against what the formula promises."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from multitl.contracts import Preprocess
from multitl.models.norm_statistics import Moments, measure_moments, movable_norms, move_statistics

pytestmark = pytest.mark.every_backend
RANDOM = np.random.default_rng(7)
PREPROCESS = Preprocess(6, 6, scale=(0.02,) * 3, offset=(-1.0,) * 3)
SOURCE, TARGET = (RANDOM.integers(*span, (10, 6, 6, 3)).astype("uint8") for span in ((0, 256), (30, 120)))


def make_network() -> keras.Model:
    """Two normalisations of channels, with statistics that are not those of any of the images."""
    x = inputs = keras.Input((6, 6, 3))
    for index, channels in enumerate((4, 5)):
        x = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=f"conv{index}")(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"norm{index}", epsilon=1e-3)(x))
    model = keras.Model(inputs, x)
    for layer in model.layers:
        drawn = [RANDOM.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()]
        layer.set_weights([RANDOM.normal(0, 0.5, one.shape) if one.ndim > 2 else one for one in drawn])
    return model


def inputs_of(model: keras.Model, name: str, pixels: np.ndarray) -> np.ndarray:
    """What goes into a layer, by Keras itself."""
    part = keras.Model(model.input, model.get_layer(name).input)
    return keras.ops.convert_to_numpy(part(pixels.astype("float32") * 0.02 - 1, training=False)).astype("float64")


def outputs_of(model: keras.Model, name: str, pixels: np.ndarray) -> np.ndarray:
    part = keras.Model(model.input, model.get_layer(name).output)
    return keras.ops.convert_to_numpy(part(pixels.astype("float32") * 0.02 - 1, training=False)).astype("float64")


def test_moments_are_numpys_over_all_batches() -> None:
    model = make_network()
    found = measure_moments(model, PREPROCESS, [SOURCE[:4], SOURCE[4:]])
    assert list(found) == ["norm0", "norm1"]
    for name, moments in found.items():
        values = inputs_of(model, name, SOURCE)
        np.testing.assert_allclose(moments.mean, values.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moments.variance, values.var(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5)


def test_the_other_domain_comes_out_as_the_training_images_did() -> None:
    model = make_network()
    expected = {name: outputs_of(model, name, SOURCE) for name in ("norm0", "norm1")}
    source = measure_moments(model, PREPROCESS, [SOURCE])
    move_statistics(model, source, measure_moments(model, PREPROCESS, [TARGET], source))
    for name, values in expected.items():
        found = outputs_of(model, name, TARGET)
        np.testing.assert_allclose(found.mean(axis=(0, 1, 2)), values.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(found.std(axis=(0, 1, 2)), values.std(axis=(0, 1, 2)), rtol=2e-2)


def test_statistics_of_ones_own_training_images_become_the_others_plainly() -> None:
    """As arXiv:2006.10726 has it: where the network was trained on these images, the others' moments are its own."""
    model = make_network()
    for _ in range(2):  # what goes into the second depends on the first
        for name, moments in measure_moments(model, PREPROCESS, [SOURCE]).items():
            model.get_layer(name).moving_mean.assign(moments.mean)
            model.get_layer(name).moving_variance.assign(moments.variance)
    source = measure_moments(model, PREPROCESS, [SOURCE])
    target = measure_moments(model, PREPROCESS, [TARGET], source)
    move_statistics(model, source, target)
    for norm in movable_norms(model):
        values = inputs_of(model, norm.name, TARGET)
        found = keras.ops.convert_to_numpy(norm.moving_mean.value)
        np.testing.assert_allclose(found, values.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-3)
        found = keras.ops.convert_to_numpy(norm.moving_variance.value)
        np.testing.assert_allclose(found, values.var(axis=(0, 1, 2)), rtol=1e-2, atol=1e-3)


def test_nothing_moves_to_the_same_images_and_nothing_by_a_share_of_none() -> None:
    model = make_network()
    before = model.get_weights()
    source = measure_moments(model, PREPROCESS, [SOURCE])
    for moments in (measure_moments(model, PREPROCESS, [SOURCE], source), source):
        move_statistics(model, source, moments)
        for one, other in zip(model.get_weights(), before, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    unmoved = measure_moments(model, PREPROCESS, [TARGET], source, share=0.0)
    expected = inputs_of(model, "norm1", TARGET).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(unmoved["norm1"].mean, expected, rtol=1e-3, atol=1e-3)


def test_moments_are_mixed_by_a_share() -> None:
    one, other = Moments(np.zeros(2), np.ones(2)), Moments(np.ones(2), np.full(2, 3.0))
    mixed = one.mixed(other, 0.25)
    assert mixed.mean.tolist() == [0.25, 0.25] and mixed.variance.tolist() == [1.5, 1.5]


def test_a_layer_that_is_called_twice_or_normalises_another_axis_stays() -> None:
    inputs = keras.Input((6, 6, 6))
    twice = layers.BatchNormalization(name="twice")
    x = layers.BatchNormalization(axis=1, name="rows")(twice(twice(inputs)))
    model = keras.Model(inputs, layers.BatchNormalization(name="plain")(x))
    assert [norm.name for norm in movable_norms(model)] == ["plain"]
