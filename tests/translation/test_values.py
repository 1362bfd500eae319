"""Activations, seen as the original sees them, against NumPy; sums on every backend."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from multitl.translation.layouts import channels_last
from multitl.translation.values import BATCH, Activation, added, complete_shape

RANDOM = np.random.default_rng(0)


@pytest.fixture
def pixels() -> Activation:
    """(n, 3, 5, 7) as the original counts, channels-last in Keras."""
    return Activation(keras.Input((5, 7, 3), name="pixels"), channels_last(4))


def images() -> np.ndarray:
    return RANDOM.normal(size=(2, 5, 7, 3)).astype("float32")


def run(pixels: Activation, output: keras.KerasTensor, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.Model(pixels.tensor, output)(x))


def test_an_activation_counts_as_the_original(pixels: Activation) -> None:
    assert pixels.shape == (BATCH, 3, 5, 7) and pixels.rank == 4
    assert pixels.place(1) == pixels.place(-3) == 3
    assert pixels.arranged(channels_last(4)) is pixels
    moved = pixels.in_order()
    assert moved.shape == pixels.shape and moved.tensor.shape == (None, 3, 5, 7)


@pytest.mark.parametrize("axis", range(5))
def test_a_new_axis_keeps_channels_last(pixels: Activation, axis: int) -> None:
    y, x = pixels.with_new_axis(axis), images()
    assert y.tensor.shape[-1] == 3
    np.testing.assert_array_equal(
        run(pixels, y.in_order().tensor, x), np.expand_dims(np.moveaxis(x, -1, 1), axis), strict=True
    )


def test_without_closes_the_gaps(pixels: Activation) -> None:
    y, x = pixels.without(keras.ops.mean(pixels.tensor, 2), [2]), images()  # the width goes
    assert y.shape == (BATCH, 3, 5)
    np.testing.assert_allclose(run(pixels, y.in_order().tensor, x), np.moveaxis(x, -1, 1).mean(3), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "sizes", [(-1, 105), (BATCH, 3, 35), (BATCH, -1, 7), (BATCH * 3, 5, 7), (BATCH, 3, 1, 5, 7), (-1, 7)]
)
def test_reshaped_is_numpys(pixels: Activation, sizes) -> None:
    y, x = pixels.reshaped(sizes), images()
    wanted = np.moveaxis(x, -1, 1).reshape([2 * (n // BATCH) if n % BATCH == 0 else n for n in y.shape])
    np.testing.assert_array_equal(run(pixels, y.in_order().tensor, x), wanted, strict=True)


def test_windows_folded_into_the_batch_are_remembered(pixels: Activation) -> None:
    assert pixels.reshaped((BATCH * 3, 5, 7)).batch == 3
    assert pixels.reshaped((BATCH * 3, 5, 7)).reshaped((BATCH, 3, 5, 7)).batch == 1


def test_complete_shape() -> None:
    assert complete_shape((2, -1, 3), 24) == (2, 4, 3)
    assert complete_shape((-1, 4), BATCH * 8) == (BATCH * 2, 4)
    assert complete_shape((2, 3), 6) == (2, 3)


@pytest.mark.every_backend
@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((5, 7, 3), (5, 1, 1)),
        ((5, 5, 5), (5, 1, 1)),
        ((5, 5, 5), (1, 5, 1)),
        ((5, 1, 1), (5, 5, 5)),
        ((5, 1, 1), (1, 5, 1)),
        ((1, 1, 3), (1, 1, 1)),
        ((5, 5, 3), (1, 1, 1)),
        ((1, 1, 7), (5, 1, 1)),
    ],
)
def test_sums_broadcast_on_every_backend(a, b, count: int) -> None:
    """Whatever the batch size: one that equals another axis, or is 1, is what Keras on TensorFlow stumbles over."""
    x, y = keras.Input(a), keras.Input(b)
    model = keras.Model([x, y], added(x, y))
    one, other = (RANDOM.normal(size=(count, *shape)).astype("float32") for shape in (a, b))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model([one, other])), one + other, atol=1e-6)
