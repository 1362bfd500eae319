"""PyTorch's channels-last kernels give what Keras' own ways give, and are what a model runs while they are on."""

from __future__ import annotations

import keras
import numpy as np
import pytest

if keras.config.backend() != "torch":
    pytest.skip("a matter of the PyTorch backend", allow_module_level=True)

import torch
from multitl_torch.channels_last import fast_channels_last

layers = keras.layers
pytestmark = pytest.mark.every_backend


def network() -> keras.Model:
    """Every kind of layer that is run another way, at sizes that leave a rest."""
    x = images = keras.Input((13, 11, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(name="first")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(layers.MaxPooling2D(2, strides=1, padding="same")(x))
    x = layers.BatchNormalization(scale=False, name="second")(x)
    x = layers.Conv2D(6, 3, groups=2, activation="relu")(layers.AveragePooling2D(2, strides=1)(x))
    x = layers.BatchNormalization(center=False, epsilon=0.1, momentum=0.9)(x)
    model = keras.Model(images, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.5, 1.5, weight.shape) * random.choice([-1, 1] if len(weight.shape) > 1 else [1]))
    return model


def images(count: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(count, 13, 11, 3)).astype("float32"))


def learn(model: keras.Model) -> tuple[float, list[np.ndarray], list[np.ndarray]]:
    """The loss of one step, its gradients, and the statistics afterwards."""
    loss = torch.sum(model(images(), training=True) ** 2)
    loss.backward()
    gradients = [weight.value.grad.numpy().copy() for weight in model.trainable_weights]
    model.zero_grad()
    return loss.item(), gradients, [keras.ops.convert_to_numpy(one) for one in model.non_trainable_weights]


@pytest.mark.parametrize("size", [1, 5])
def test_inference_equals_keras(size: int):
    model = network()
    with torch.no_grad():
        expected = model(images(size)).numpy()
        with fast_channels_last():
            found = model(images(size)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("frozen", [[], ["first"], ["first", "second"]])
def test_a_step_equals_keras(frozen: list[str]):
    model, other = network(), network()
    for name in frozen:
        model.get_layer(name).trainable = other.get_layer(name).trainable = False
    expected = learn(model)
    with fast_channels_last():
        found = learn(other)
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    largest = max(np.abs(one).max() for one in expected[1])  # some are zero but for rounding
    for ours, wanted in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-5 * largest)
    for ours, wanted in zip(found[2], expected[2], strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_kernels_of_pytorch_are_what_runs(monkeypatch: pytest.MonkeyPatch):
    model, calls = network(), []
    of_torch = torch.nn.functional.batch_norm

    def batch_norm(x: torch.Tensor, *rest: object) -> torch.Tensor:
        calls.append(x.is_contiguous(memory_format=torch.channels_last))
        return of_torch(x, *rest)

    monkeypatch.setattr(torch.nn.functional, "batch_norm", batch_norm)
    with torch.no_grad():
        with fast_channels_last():
            model(images())
        assert calls == [True, True, True]
        model(images())
        assert len(calls) == 3  # and afterwards Keras' own again


def test_other_ranks_and_axes_go_to_keras():
    for shape, axis in [((4, 7), -1), ((4, 6, 7), -1), ((4, 5, 6, 7), 1)]:
        layer = layers.BatchNormalization(axis=axis)
        layer.build(shape)
        values = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype("float32"))
        with torch.no_grad():
            expected = layer(values).numpy()
            with fast_channels_last():
                np.testing.assert_array_equal(layer(values).numpy(), expected)


def test_weights_take_the_order_of_the_kernels_and_keep_their_values():
    model = network()
    kernel = model.layers[1].kernel
    before = kernel.numpy().copy()
    with fast_channels_last():
        model(images(), training=True).sum().backward()
    weight = kernel.value
    assert weight.permute(3, 2, 0, 1).is_contiguous(memory_format=torch.channels_last)
    assert weight.grad.stride() == weight.stride()
    np.testing.assert_array_equal(kernel.numpy(), before)
