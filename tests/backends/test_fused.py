"""TensorFlow's fused kernels give what Keras' composed operations give, and are what a model runs while they are on."""

from __future__ import annotations

import keras
import numpy as np
import pytest

if keras.config.backend() != "tensorflow":
    pytest.skip("a matter of the TensorFlow backend", allow_module_level=True)

import tensorflow as tf
from multitl_tensorflow.fused import fused_kernels

layers = keras.layers
pytestmark = pytest.mark.every_backend


def network() -> keras.Model:
    """Batch normalisation of images in each of its forms, and of vectors, which the kernel does not take."""
    x = images = keras.Input((13, 11, 3))
    x = layers.BatchNormalization(name="first")(layers.Conv2D(8, 3, strides=2, use_bias=False)(x))
    x = layers.DepthwiseConv2D(3, use_bias=False)(layers.ReLU()(x))
    x = layers.ReLU()(layers.BatchNormalization(scale=False, name="second")(x))
    x = layers.Conv2D(6, 1, use_bias=False)(x)  # Adam makes whole steps of a bias' gradient: rounding alone, here
    x = layers.BatchNormalization(center=False, epsilon=0.1, momentum=0.9)(x)
    x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(images, layers.Dense(3)(x))
    random = np.random.default_rng(0)
    for weight in model.weights:
        signs = random.choice([-1, 1], weight.shape) if len(weight.shape) > 1 else 1  # else gradients nearly cancel out
        weight.assign(random.uniform(0.5, 1.5, weight.shape) * signs)
    return model


def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(5, 13, 11, 3)).astype("float32")


def learn(model: keras.Model, steps: int = 3) -> list[np.ndarray]:
    """All weights and statistics after a few steps of Adam."""
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), "mse")
    for _ in range(steps):
        model.train_on_batch(images(), np.ones((5, 3), "float32"))
    return model.get_weights()


def kernels(model: keras.Model, *, training: bool) -> set[str]:
    graph = tf.function(lambda x: model(x, training=training)).get_concrete_function(tf.constant(images())).graph
    return {operation.type for operation in graph.get_operations()}


def test_inference_equals_keras() -> None:
    model = network()
    expected = model(images()).numpy()
    with fused_kernels():
        assert "FusedBatchNormV3" in kernels(model, training=False)
        np.testing.assert_allclose(model(images()).numpy(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert "FusedBatchNormV3" not in kernels(model, training=False)


@pytest.mark.parametrize("frozen", [[], ["first"], ["first", "second"]])
def test_gradients_and_statistics_equal_keras(frozen: list[str]) -> None:
    def gradients(model: keras.Model) -> list[np.ndarray]:
        for name in frozen:
            model.get_layer(name).trainable = False
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images(), training=True) ** 2)
        found = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
        return [np.asarray(one) for one in found] + [np.asarray(w) for w in model.non_trainable_weights]

    expected = gradients(network())
    with fused_kernels():
        for one, other in zip(gradients(network()), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * max(1, np.abs(other).max()))


def test_16_bits_are_normalised_in_32() -> None:
    layer = layers.BatchNormalization(dtype="mixed_bfloat16")
    layer.build((None, 13, 11, 3))
    expected = layer(images(), training=True)
    statistics = layer.moving_variance.numpy()
    layer.moving_mean.assign(np.zeros(3)), layer.moving_variance.assign(np.ones(3))
    with fused_kernels():
        found = layer(images(), training=True)
    assert found.dtype == expected.dtype == tf.bfloat16
    np.testing.assert_allclose(found.numpy().astype("float32"), expected.numpy().astype("float32"), atol=0.02)
    np.testing.assert_allclose(layer.moving_variance.numpy(), statistics, rtol=1e-4)


def test_steps_of_adam_equal_keras() -> None:
    expected = learn(network())
    with fused_kernels():
        assert "ResourceApplyAdam" in step_kernels()
        for one, other in zip(learn(network()), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_amsgrad_keeps_keras_own_step() -> None:
    with fused_kernels():
        assert "ResourceApplyAdam" not in step_kernels(amsgrad=True)


def step_kernels(**options: bool) -> set[str]:
    """What a step of Adam runs."""
    weight, optimizer = keras.Variable(np.ones(3, "float32")), keras.optimizers.Adam(0.1, **options)
    optimizer.build([weight])
    function = tf.function(lambda gradient: optimizer.apply([gradient], [weight]))
    graph = function.get_concrete_function(tf.TensorSpec(3)).graph
    return {operation.type for operation in graph.get_operations()}
