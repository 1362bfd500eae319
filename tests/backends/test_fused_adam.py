"""PyTorch's fused Adam takes the steps that Keras' Adam takes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

if keras.config.backend() != "torch":
    pytest.skip("a matter of the PyTorch backend", allow_module_level=True)

import torch
from multitl_torch.fused_adam import fused_adam

pytestmark = pytest.mark.every_backend


def steps(optimizer: keras.optimizers.Optimizer, gradients: list[torch.Tensor], *, turned: bool = False) -> np.ndarray:
    """The weight afterwards. turned: it lies column by column in memory, and its gradients follow."""
    weight = keras.Variable(np.linspace(-1, 1, 12, dtype="float32").reshape(3, 4))
    if turned:
        weight.value.data = weight.value.data.T.contiguous().T
        gradients = [gradient.T.contiguous().T for gradient in gradients]
    optimizer.build([weight])
    for gradient in gradients:
        optimizer.apply([gradient], [weight])
    return keras.ops.convert_to_numpy(weight)


def gradients() -> list[torch.Tensor]:
    """Large ones, tiny ones (where epsilon decides) and zeros."""
    random = np.random.default_rng(0)
    sizes = np.array([1e3, 1.0, 1e-7, 0.0], "float32")
    return [torch.from_numpy(random.normal(size=(3, 4)).astype("float32") * sizes) for _ in range(5)]


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.Adam, lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.1)]
)
def test_steps_equal_keras(optimizer, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, calls = steps(optimizer(0.01), gradients()), []
    kernel = torch._fused_adam_
    monkeypatch.setattr(torch, "_fused_adam_", lambda *given, **named: calls.append(kernel(*given, **named)))
    with fused_adam():
        found = steps(optimizer(0.01), gradients())
    assert len(calls) == 5
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_weights_and_moments_in_another_order() -> None:
    """As those of convolutions are on the channels-last paths."""
    expected = steps(keras.optimizers.Adam(0.01), gradients())
    with fused_adam():
        found = steps(keras.optimizers.Adam(0.01), gradients(), turned=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_what_the_kernel_cannot_do_keras_does() -> None:
    turned = [gradient.T.contiguous().T for gradient in gradients()]  # other strides than the weight's
    expected = steps(keras.optimizers.Adam(0.01), gradients())
    with fused_adam():
        np.testing.assert_array_equal(steps(keras.optimizers.Adam(0.01), turned), expected)
        found = steps(keras.optimizers.Adam(0.01, amsgrad=True), gradients())
    np.testing.assert_array_equal(found, steps(keras.optimizers.Adam(0.01, amsgrad=True), gradients()))
