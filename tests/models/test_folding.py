"""Batch normalisation folded into the layer before it: the same outputs, fewer layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from multitl.models.folding import fold_batch_norm, held_norms_folded
from multitl.models.freezing import leaf_layers
from multitl.recipes import Recipe
from multitl.training.phases import compile_step
from multitl.translation import parity


def randomised(model: keras.Model) -> keras.Model:
    """With statistics and factors that training might have left."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


def norms(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def check(model: keras.Model, left: list[str]) -> None:
    images = parity.probe_images(model.input_shape[1:])
    before, folded = parity.run(model, images), fold_batch_norm(model)
    assert norms(folded) == left
    assert parity.compare(before, parity.run(folded, images)).max_spread < 1e-4
    assert np.array_equal(parity.run(model, images), before)  # the given model is as it was


def every_kind() -> keras.Model:
    x = images = keras.Input((12, 12, 3))
    x = layers.BatchNormalization(scale=False)(layers.Conv2D(8, 3, use_bias=False)(x))
    x = layers.BatchNormalization(center=False)(layers.DepthwiseConv2D(3, depth_multiplier=2)(x))
    x = layers.BatchNormalization(epsilon=0.1)(layers.Conv2D(8, 1, groups=4)(layers.ReLU()(x)))
    x = layers.BatchNormalization()(layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))
    return with_kernels(randomised(keras.Model(images, x)), 1)


@pytest.mark.every_backend
def test_every_kind_of_layer_takes_its_normalisation_up():
    check(every_kind(), left=[])


@pytest.mark.every_backend
def test_in_16_bits_nothing_is_folded_since_the_saved_network_is_not():
    """Each rounds elsewhere: heads of folded features were refused by the proof of the model that is saved."""
    images = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, dtype="mixed_bfloat16")(images)
    model = keras.Model(images, layers.BatchNormalization(dtype="mixed_bfloat16")(x))
    assert norms(fold_batch_norm(model)) == norms(model)


def train(model: keras.Model, trained_norm: int | None) -> list[np.ndarray]:
    """Weights after three steps of plain gradient descent, which keeps the gradients' size."""
    held = [layer for layer in leaf_layers(model) if isinstance(layer, layers.BatchNormalization)]
    for index, norm in enumerate(held):
        norm.trainable = index == trained_norm
    images, labels = parity.probe_images((12, 12, 3), 8), np.eye(5, dtype="float32")[np.arange(8) % 5]
    step = compile_step(model, Recipe(optimizer="sgd", l2=0.0))
    with step:
        for _ in range(3):
            step((images,), labels, np.ones(8, "float32"), learning_rate=0.05)
    return model.get_weights()


@pytest.mark.every_backend
@pytest.mark.parametrize("trained_norm", [None, 1])
def test_training_with_held_normalisations_folded_is_the_same(trained_norm: int | None):
    model = every_kind()
    start = model.get_weights()
    expected = train(model, trained_norm)
    model.set_weights(start)
    with held_norms_folded(model):
        found = train(model, trained_norm)
    for before, one, other in zip(start, expected, found, strict=True):
        np.testing.assert_allclose(other - before, one - before, rtol=1e-4, atol=1e-6)
    moved = [not np.array_equal(*pair) for pair in zip(start, found, strict=True)]
    assert sum(moved) == (7 if trained_norm is None else 10)  # four kernels and three biases; a norm's three
    assert not any("call" in vars(layer) for layer in model.layers)


def test_what_is_not_alone_or_not_linear_stays():
    x = images = keras.Input((12, 12, 3))
    x = layers.BatchNormalization(name="before")(x)
    x = layers.BatchNormalization(name="after_relu")(layers.Conv2D(8, 3, activation="relu")(x))
    y = layers.Conv2D(8, 3, name="used_twice")(x)
    shared = layers.Conv2D(8, 1)
    x = layers.Add()([layers.BatchNormalization(name="of_two")(y), y])
    x = layers.Add()([layers.BatchNormalization(name="of_shared")(shared(x)), shared(x)])
    check(randomised(keras.Model(images, x)), left=["before", "after_relu", "of_two", "of_shared"])


def with_kernels(model: keras.Model, gain: float) -> keras.Model:
    """With kernels of variance `gain` / inputs: of Keras' own, deep networks say nearly the same of every image."""
    random = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
            kernel, *rest = layer.get_weights()
            inputs = np.prod(kernel.shape[: 2 if isinstance(layer, layers.DepthwiseConv2D) else 3])
            layer.set_weights([random.normal(0, np.sqrt(gain / inputs), kernel.shape), *rest])
    return model


# With 2, float32's rounding alone grows to 1e-4 in MobileNetV2; with 1, EfficientNetB0 hardly looks at the image.
@pytest.mark.parametrize(("name", "gain"), [("MobileNetV2", 1), ("DenseNet121", 2), ("EfficientNetB0", 2)])
@pytest.mark.slow
def test_whole_networks(name: str, gain: float):
    network = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), include_top=False)
    network = with_kernels(randomised(network), gain)
    images = parity.probe_images((64, 64, 3)) * 48 + 128
    before, folded = parity.run(network, images), fold_batch_norm(network)
    assert len(norms(folded)) < len(norms(network))
    assert np.ptp(before, axis=0).max() > 0.01 * np.abs(before).max()  # else no fault in the first layers would show
    found = parity.compare(before, parity.run(folded, images))
    assert found.max_rel < 1e-5 and found.max_spread < 1e-3
