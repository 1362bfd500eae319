"""Temperatures: found where probabilities are too sure, and put into a network's last layer."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.special import softmax

from multitl.models import one_class, several_labels
from multitl.training.calibration import divide_logits, fit_temperature


def draw(temperature: float, count: int = 20000) -> tuple[np.ndarray, np.ndarray]:
    """Labels that follow softmax(logits), and softmax(temperature * logits)."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (count, 4))
    labels = np.array([random.choice(4, p=row) for row in softmax(logits, axis=1)])
    return labels, softmax(temperature * logits, axis=1)


@pytest.mark.parametrize("temperature", [1.0, 2.5, 8.0])
def test_the_temperature_is_found(temperature: float) -> None:
    labels, probabilities = draw(temperature)
    assert fit_temperature(one_class, labels, probabilities) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_temperature_of_several_labels_is_found(temperature: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20000, 3))
    truth = random.random(logits.shape) < several_labels.activate(logits)
    probabilities = several_labels.activate(temperature * logits)
    assert fit_temperature(several_labels, truth, probabilities) == pytest.approx(temperature, rel=0.05)
    np.testing.assert_allclose(
        several_labels.soften(probabilities, temperature), several_labels.activate(logits), rtol=1e-6
    )


def test_it_is_never_below_one() -> None:
    labels, probabilities = draw(0.5)
    assert fit_temperature(one_class, labels, probabilities) == 1.0
    assert (
        fit_temperature(one_class, np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])) == 1.0
    )  # all right: no end to it


def test_zero_probabilities_are_numbers_too() -> None:
    sure = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], "float32")
    temperature = fit_temperature(one_class, np.array([0, 1, 1]), sure)
    assert temperature > 1 and np.isfinite(one_class.soften(sure, temperature)).all()


@pytest.mark.every_backend
def test_divided_logits_give_softened_probabilities_and_equal_answers() -> None:
    inputs = keras.Input((5,))
    layer = keras.layers.Dense(3)
    model = keras.Model(inputs, layer(inputs))
    model.get_layer(layer.name).set_weights([np.random.default_rng(0).normal(0, 3, (5, 3)), np.array([1.0, -2.0, 0.5])])
    x = np.random.default_rng(1).normal(size=(40, 5)).astype("float32")
    before = softmax(np.asarray(model.predict_on_batch(x)), axis=1)
    divide_logits(layer, 2.5)
    after = softmax(np.asarray(model.predict_on_batch(x)), axis=1)
    np.testing.assert_allclose(after, one_class.soften(before, 2.5), atol=1e-5)
    np.testing.assert_array_equal(after.argmax(1), before.argmax(1))
