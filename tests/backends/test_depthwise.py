"""JAX's fast depthwise convolution equals Keras' own, and is what a model really runs while it is switched on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if keras.config.backend() != "jax":
    pytest.skip("a matter of the JAX backend", allow_module_level=True)

import jax
from multitl_jax.depthwise import depthwise_conv, fast_depthwise
from multitl_jax.insides import DEPTHWISE_CONV


@settings(max_examples=6, deadline=None)
@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    multiplier=st.integers(1, 3),
    padding=st.sampled_from(["same", "valid"]),
    shape=st.tuples(st.integers(9, 14), st.integers(9, 14)),
)
def test_equals_keras(size, stride, dilation, multiplier, padding, shape) -> None:
    dilation = 1 if stride > 1 else dilation  # Keras allows one of the two
    random = np.random.default_rng(0)
    inputs = random.normal(size=(2, *shape, 3)).astype("float32")
    kernel = random.normal(size=(*size, 3, multiplier)).astype("float32")
    expected = DEPTHWISE_CONV.original(inputs, kernel, stride, padding, "channels_last", dilation)
    ours = depthwise_conv(inputs, kernel, stride, padding, "channels_last", dilation)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_gradients_equal_keras() -> None:
    random = np.random.default_rng(0)
    inputs, kernel = random.normal(size=(2, 9, 8, 4)), random.normal(size=(3, 3, 4, 1))

    def loss(function):
        return lambda x, w: (function(x, w, 2, "same", "channels_last", 1) ** 2).sum()

    ours = jax.grad(loss(depthwise_conv), argnums=(0, 1))(inputs, kernel)
    expected = jax.grad(loss(DEPTHWISE_CONV.original), argnums=(0, 1))(inputs, kernel)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [keras.layers.DepthwiseConv2D, lambda size: keras.layers.SeparableConv2D(4, size)])
def test_models_use_it_while_it_is_on(make, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, calls = make(3), []
    x = np.ones((1, 8, 8, 2), "float32")
    expected = np.asarray(layer(x))
    from multitl_jax import depthwise

    monkeypatch.setattr(depthwise, "_pair", lambda value: calls.append(value) or (1, 1))
    with fast_depthwise():
        found = np.asarray(layer(x))  # random weights may add up to next to nothing
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert calls
    calls.clear()
    layer(x)
    assert not calls  # switched off again


def test_other_ranks_go_to_keras() -> None:
    layer = keras.layers.DepthwiseConv1D(3)
    x = np.random.default_rng(0).normal(size=(2, 9, 4)).astype("float32")
    expected = np.asarray(layer(x))
    with fast_depthwise():
        np.testing.assert_array_equal(np.asarray(layer(x)), expected)
