"""What comes before a solved layer: the same in NumPy and in Keras, and never trained."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from multitl.models.feature_maps import FeatureMap, directed, rippled, scaled
from multitl.models.freezing import frozen_variables
from multitl.models.heads import build_head
from multitl.recipes import Recipe

FEATURES = np.random.default_rng(0).gamma(1.0, 30.0, (64, 12)).astype("float32")


def as_model(fixed: FeatureMap) -> keras.Model:
    inputs = keras.Input((12,))
    return keras.Model(inputs, fixed.layers(inputs))


@pytest.mark.every_backend
@pytest.mark.parametrize("fixed", [scaled(FEATURES), directed(FEATURES), rippled(FEATURES, 1.0, 0)])
def test_the_layers_do_what_numpy_does(fixed: FeatureMap) -> None:
    model = as_model(fixed)
    np.testing.assert_allclose(np.asarray(model.predict_on_batch(FEATURES)), fixed(FEATURES), atol=2e-5)
    assert model.trainable_variables == []


def test_only_the_direction_from_the_mean_is_left() -> None:
    fixed = directed(FEATURES)
    np.testing.assert_allclose(np.square(fixed(FEATURES)).sum(axis=1), 1, rtol=1e-5)
    middle = FEATURES.mean(axis=0)
    np.testing.assert_allclose(fixed(middle + 5 * (FEATURES - middle)), fixed(FEATURES), atol=1e-5)
    assert not fixed(middle[None]).any() or np.isfinite(fixed(middle[None])).all()


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
def test_products_of_waves_are_a_gaussian_of_the_distance(width: float) -> None:
    points = directed(FEATURES)(FEATURES)
    squared = np.square(points[:, None] - points).sum(axis=2)
    median = np.median(squared[np.triu_indices(len(points), 1)])
    waves = rippled(FEATURES, width, 3)(FEATURES)
    found = 2 * waves @ waves.T / waves.shape[1]
    np.testing.assert_allclose(found, np.exp(-squared / (2 * width**2 * median)), atol=0.12)


def test_equal_features_have_waves_too() -> None:
    same = np.ones((5, 12), "float32")
    assert np.isfinite(rippled(same, 1.0, 0)(same)).all()
    assert np.isfinite(rippled(same[:1], 1.0, 0)(same)).all()


@pytest.mark.every_backend
def test_waves_are_frozen_and_the_last_layer_is_not() -> None:
    head = build_head(FEATURES, 3, Recipe(), rippled(FEATURES, 1.0, 0))
    assert {variable.path.split("/")[-2] for variable in frozen_variables(head)} == {"feature_waves"}
    assert {variable.path.split("/")[-2] for variable in head.trainable_variables} == {"logits"}
