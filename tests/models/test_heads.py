"""The head: same first weights everywhere, the penalty the recipe promises, raw pixels in, probabilities out."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from multitl.contracts import Origin, Preprocess, Pretrained, Stage
from multitl.models.heads import build_classifier, build_extractor, build_head
from multitl.models.preprocessing import normalise
from multitl.recipes import Recipe

FEATURES = np.random.default_rng(0).gamma(1.0, 30.0, (64, 12)).astype("float32")


@pytest.fixture(scope="module")
def pretrained() -> Pretrained:
    """A one-layer backbone with an uncommon preprocessing: BGR and a different offset per channel."""
    inputs = keras.Input((8, 8, 3))
    backbone = keras.Model(inputs, keras.layers.Conv2D(12, 3, name="conv")(inputs))
    preprocess = Preprocess(8, 8, channel_order="bgr", scale=(0.01, 0.02, 0.03), offset=(-1.0, -0.5, 0.25))
    origin = Origin("test", "none", None, "", "")
    return Pretrained("test/one", backbone, preprocess, (Stage("all", ("conv",)),), origin)


@pytest.mark.every_backend
def test_first_weights_depend_on_the_seed_only() -> None:
    first, again, other = (build_head(FEATURES, 4, Recipe(seed=seed, hidden=5)) for seed in (1, 1, 2))
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])
    assert [w.shape for w in first.get_weights()] == [(12, 5), (5,), (5, 4), (4,)]
    # the same on every backend: the draw is numpy's
    np.testing.assert_allclose(first.get_weights()[0][0, :2], [0.014046, 0.535231], atol=1e-6)


@pytest.mark.every_backend
def test_penalty_is_lambda_times_the_squared_norm_of_all_new_parameters() -> None:
    head = build_head(FEATURES, 4, Recipe(l2=0.5, hidden=5))
    head.set_weights([weight + 0.1 for weight in head.get_weights()])
    squared = sum(float(np.square(weight, dtype="float64").sum()) for weight in head.get_weights())
    assert float(keras.ops.convert_to_numpy(sum(head.losses))) == pytest.approx(0.5 * squared, rel=1e-5)
    assert build_head(FEATURES, 4, Recipe(l2=0.0)).losses == []


@pytest.mark.every_backend
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_scale_of_the_features_does_not_matter(factor: float) -> None:
    small, big = (build_head(FEATURES * f, 4, Recipe()) for f in (1.0, factor))
    np.testing.assert_allclose(
        np.asarray(small.predict_on_batch(FEATURES)), np.asarray(big.predict_on_batch(FEATURES * factor)), rtol=1e-4
    )


@pytest.mark.every_backend
def test_features_that_are_all_zero_do_not_divide_by_zero() -> None:
    head = build_head(np.zeros((4, 12), "float32"), 3, Recipe())
    assert np.isfinite(np.asarray(head.predict_on_batch(np.zeros((4, 12), "float32")))).all()


@pytest.mark.every_backend
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_classifier_equals_its_parts(pretrained: Pretrained, pooling: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    features = np.asarray(build_extractor(pretrained, pooling).predict_on_batch(pixels))
    head = build_head(features, 3, Recipe())
    probabilities = np.asarray(build_classifier(pretrained, head, pooling).predict_on_batch(pixels))

    feature_map = np.asarray(pretrained.backbone.predict_on_batch(normalise(pixels, pretrained.preprocess)))
    by_hand = feature_map.mean(axis=(1, 2)) if pooling == "avg" else feature_map.max(axis=(1, 2))
    np.testing.assert_allclose(features, by_hand, rtol=1e-4, atol=1e-5)
    logits = np.asarray(head.predict_on_batch(features))
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
    assert probabilities.dtype == np.float32


@pytest.mark.every_backend
def test_saved_classifier_is_made_of_stock_layers(pretrained: Pretrained, tmp_path) -> None:
    head = build_head(FEATURES, 3, Recipe(hidden=4, dropout=0.3))
    classifier = build_classifier(pretrained, head, "avg")
    classifier.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")  # safe mode, no custom objects
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        np.asarray(loaded.predict_on_batch(pixels)), np.asarray(classifier.predict_on_batch(pixels))
    )
    assert loaded.input.dtype == "uint8"
