"""Heatmaps of heads of every kind: sums that are logits, and gradients that agree with taking positions away."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from multitl.contracts import Origin, Preprocess, Pretrained, Stage
from multitl.explaining.anatomy import dissect
from multitl.explaining.explainers import EXACT, GRADIENT, Explainer, as_grid, explainer_of
from multitl.models.feature_maps import FeatureMap, directed, rippled
from multitl.models.goals import GOALS
from multitl.models.heads import build_classifier, build_head
from multitl.models.numbers import Numbers
from multitl.models.preprocessing import normalise
from multitl.recipes import Recipe

layers = keras.layers
every_backend = pytest.mark.every_backend
PIXELS = np.random.default_rng(1).integers(0, 256, (5, 12, 8, 3), dtype=np.uint8)


def pretrained_of(feature_map) -> Pretrained:
    """feature_map: of values in [-1, 1]."""
    image = keras.Input((12, 8, 3))
    backbone = keras.Model(image, feature_map(image), name="backbone")
    preprocess = Preprocess(12, 8, channel_order="bgr", scale=(1 / 127.5,) * 3, offset=(-1.0,) * 3)
    return Pretrained("test/one", backbone, preprocess, (Stage("all", ()),), Origin("test", "none", None, "", ""))


def convolved(image):
    return layers.Conv2D(16, 3, 2, activation="relu", kernel_initializer=keras.initializers.HeNormal(seed=0))(image)


def class_token(image):
    """One block of a ViT, and then the token that stands for the image, as a map of 1 x 1."""
    start = keras.initializers.GlorotUniform(seed=3)
    patches = layers.Reshape((6, 16))(layers.Conv2D(16, 4, 4, kernel_initializer=start)(image))
    x = layers.Concatenate(axis=1)([keras.ops.zeros_like(patches[:, :1]), patches])
    x = x + layers.MultiHeadAttention(2, 8, kernel_initializer=start)(x, x)
    return layers.Reshape((1, 1, 16))(x[:, 0])


def classifier_of(
    pretrained: Pretrained, fixed=None, pooling: str = "avg", goal=GOALS["one"], **options
) -> keras.Model:
    features = np.random.default_rng(2).normal(0.3, 1, (64, 16)).astype("float32")
    count = 1 if isinstance(goal, Numbers) else 4
    head = build_head(features, count, Recipe(**options), fixed and fixed(features))
    bias = np.linspace(-1, 2, count).astype("float32")
    head.get_layer("logits").set_weights([head.get_layer("logits").get_weights()[0], bias])
    return build_classifier(pretrained, head, pooling, goal)


def explained(model: keras.Model) -> Explainer:
    explainer = explainer_of(model)
    assert explainer is not None
    return explainer


@every_backend
@pytest.mark.parametrize(("fixed", "goal"), [(None, Numbers(3.0, 2.0)), (directed, GOALS["one"])])
def test_a_logit_is_the_sum_of_its_map_and_its_bias(fixed: FeatureMap | None, goal) -> None:
    pretrained = pretrained_of(convolved)
    model = classifier_of(pretrained, fixed, goal=goal, dropout=0.2)
    explainer = explained(model)
    look = explainer.look(PIXELS)
    np.testing.assert_allclose(look.outputs, np.asarray(model.predict_on_batch(PIXELS)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(goal.activate(look.logits), look.outputs, rtol=1e-5, atol=1e-6)

    last = look.logits.shape[1] - 1
    maps = explainer.explain(look, [last, 0, last, last, 0])
    assert explainer.kind == EXACT and maps[0].values.shape == (5, 3)
    for heatmap, logits, chosen in zip(maps, look.logits, [last, 0, last, last, 0], strict=True):
        assert heatmap.logit == logits[chosen] and heatmap.error < 1e-5
        wanted = heatmap.logit - np.linspace(-1, 2, last + 1)[chosen]
        assert heatmap.values.sum() == pytest.approx(wanted, abs=1e-5 * float(np.abs(look.logits).max()))

    features = np.asarray(pretrained.backbone.predict_on_batch(normalise(PIXELS, pretrained.preprocess)))
    head = explainer.head
    scaling, kernel = head.get_layer("feature_scale"), head.get_layer("logits").get_weights()[0][:, 0]
    x = features.mean(axis=(1, 2)) * scaling.scale + scaling.offset
    length = np.linalg.norm(x, axis=1) if fixed else np.ones(5)
    by_hand = (features * scaling.scale + scaling.offset) @ kernel / 15 / length[:, None, None]
    np.testing.assert_allclose(look.maps[..., 0], by_hand, atol=1e-5 * np.abs(by_hand).max())


@pytest.mark.parametrize(
    ("feature_map", "options"),
    [
        pytest.param(convolved, {"hidden": 32}, marks=every_backend),
        (convolved, {"pooling": "max"}),
        (convolved, {"fixed": lambda features: rippled(features, 4.0, 0)}),
        pytest.param(class_token, {}, marks=every_backend),
    ],
    ids=["hidden", "max", "kernel", "class token"],
)
def test_what_is_not_linear_is_explained_by_gradients_that_agree_with_taking_positions_away(feature_map, options):
    model = classifier_of(pretrained_of(feature_map), **options)
    explainer, chosen = explained(model), [0, 1, 2, 3, 0]
    look = explainer.look(PIXELS)
    maps = explainer.explain(look, chosen)
    assert explainer.kind == GRADIENT and {(one.bias, one.error) for one in maps} == {(None, None)}
    assert maps[0].values.shape == ((3, 2) if feature_map is class_token else (5, 3))

    tail_input = keras.Input(look.maps.shape[1:])
    tail = keras.Model(tail_input, explainer.anatomy.logits_of(tail_input))
    places, falls = look.maps.reshape(5, -1, 16), []
    for place in range(places.shape[1])[-maps[0].values.size :]:
        without = places.copy()
        without[:, place] *= 0.99  # a little of it: to first order is what is promised
        logits = np.asarray(tail.predict_on_batch(without.reshape(look.maps.shape)))
        falls.append((look.logits - logits)[range(5), chosen] / 0.01)
    given = np.stack([one.values.ravel() for one in maps])
    assert np.corrcoef(given.ravel(), np.stack(falls, axis=1).ravel())[0, 1] > 0.95


def test_a_network_that_ends_with_its_own_classifier_is_cut_before_its_pooling():
    image = keras.Input((12, 8, 3))
    logits = layers.Dense(5)(layers.GlobalAveragePooling2D()(convolved(image)))
    network, pixels = keras.Model(image, logits), keras.Input((12, 8, 3), dtype="uint8")
    model = keras.Model(pixels, layers.Softmax()(network(layers.Rescaling(1 / 255)(pixels))))
    found = dissect(model)
    assert found is not None and found.feature_map.shape == (None, 5, 3, 16)
    explainer = explained(model)
    look = explainer.look(PIXELS)
    bias = network.layers[-1].get_weights()[1]
    sums = [one.values.sum() for one in explainer.explain(look, [1] * 5)]
    np.testing.assert_allclose(sums, look.logits[:, 1] - bias[1], rtol=1e-4, atol=1e-5)


def test_a_network_without_a_map_has_no_explainer():
    pixels, image = keras.Input((12, 8, 3), dtype="uint8"), keras.Input((12, 8, 3))
    network = keras.Model(image, layers.Dense(3)(layers.Flatten()(image)))
    assert explainer_of(keras.Model(pixels, layers.Softmax()(network(layers.Rescaling(1 / 255)(pixels))))) is None


@pytest.mark.parametrize(
    ("tokens", "ratio", "shape"), [(6, 1.5, (3, 2)), (197, 1.0, (14, 14)), (201, 1.0, (14, 14)), (7, 1.0, (1, 7))]
)
def test_tokens_are_laid_out_as_the_image_is(tokens: int, ratio: float, shape: tuple[int, int]):
    grid = as_grid(np.arange(tokens, dtype=float), ratio)
    assert grid.shape == shape and grid.flat[-1] == tokens - 1
