"""Where the classifier ends, seen on small networks whose answer is known."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from multitl.errors import TranslationError
from multitl.translation.cutting import cut_classifier, features_as_backbone

IMAGES = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype("float32")


def body(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Conv2D(6, 3, padding="same", activation="relu", name="conv")(x)


def network(head) -> keras.Model:
    pixels = keras.Input((8, 8, 3))
    return keras.Model(pixels, head(body(pixels)))


def test_average_pooling_and_a_dense_layer_leave_the_map():
    model = network(lambda x: layers.Dense(5, name="fc")(layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))))
    cut = cut_classifier(model)
    assert cut.backbone.output_shape == (None, 8, 8, 6)
    assert cut.classifier == ("fc",)
    assert cut.feature_map == "conv"
    pooled = keras.ops.mean(cut.backbone(IMAGES), (1, 2))
    assert np.allclose(model.get_layer("fc")(pooled), model(IMAGES), atol=1e-6)


def test_pooling_by_mean_and_reshapes_counts_as_pooling():
    def head(x):
        pooled = keras.ops.mean(x, (1, 2), keepdims=True)
        return layers.Dense(5, name="fc")(layers.Flatten()(pooled))

    assert cut_classifier(network(head)).backbone.output_shape == (None, 8, 8, 6)


def test_weights_between_pooling_and_classifier_stay_and_the_map_is_named():
    def head(x):
        hidden = layers.Dense(7, activation="relu", name="hidden")(layers.GlobalAveragePooling2D()(x))
        return layers.Dense(5, name="fc")(hidden)

    model = network(head)
    cut = cut_classifier(model)
    assert cut.backbone.output_shape == (None, 1, 1, 7)
    assert (cut.classifier, cut.feature_map) == (("fc",), "conv")
    assert np.allclose(model.get_layer("fc")(cut.backbone(IMAGES)[:, 0, 0]), model(IMAGES), atol=1e-6)


def test_maximum_pooling_is_not_averaging():
    cut = cut_classifier(network(lambda x: layers.Dense(5, name="fc")(layers.GlobalMaxPooling2D()(x))))
    assert cut.backbone.output_shape == (None, 1, 1, 6)


def test_a_convolution_as_classifier_leaves_its_input():
    def head(x):
        return layers.GlobalAveragePooling2D()(
            keras.ops.relu(layers.Conv2D(5, 1, name="classes")(layers.Dropout(0.5)(x)))
        )

    cut = cut_classifier(network(head))
    assert (cut.backbone.output_shape, cut.classifier) == ((None, 8, 8, 6), ("classes",))


def test_two_classifiers_leave_both_inputs():
    def head(x):
        pooled = layers.GlobalAveragePooling2D()(x)
        other = layers.Dense(4, name="hidden")(pooled)
        return layers.Average()([layers.Dense(5, name="a")(pooled), layers.Dense(5, name="b")(other)])

    cut = cut_classifier(network(head))
    assert cut.backbone.output_shape == (None, 1, 1, 10)
    assert set(cut.classifier) == {"a", "b"}


def test_a_network_without_kernels_is_refused():
    pixels = keras.Input((8, 8, 3))
    with pytest.raises(TranslationError, match="No classifier") as caught:
        cut_classifier(keras.Model(pixels, layers.BatchNormalization()(pixels)))
    assert "--head keep" in caught.value.fix


def test_a_classifier_of_a_class_token_and_one_of_all_tokens_leave_two_vectors():
    """As VOLO has them: logits of the class token, and the largest of each token's own."""

    def head(x):
        tokens = layers.Dense(4, name="tokens")(layers.Reshape((64, 6))(x))
        most = keras.ops.max(layers.Dense(5, name="aux_head")(tokens[:, 1:]), axis=1)
        return layers.Dense(5, name="head")(tokens[:, 0]) + 0.5 * most

    model = network(head)
    cut = cut_classifier(model)
    assert cut.backbone.output_shape == (None, 1, 1, 8)
    assert set(cut.classifier) == {"head", "aux_head"}
    tokens = np.array(keras.Model(model.input, model.get_layer("tokens").output)(IMAGES))
    wanted = {tuple(np.round(both, 5)) for both in (tokens[0, 0], tokens[0, 1:].mean(0))}
    found = np.array(cut.backbone(IMAGES))[0, 0, 0]
    assert {tuple(np.round(half, 5)) for half in (found[:4], found[4:])} == wanted


def test_features_that_are_a_mean_name_the_map_before_it():
    """A normalisation and a flattening between pooling and the end, as ConvNeXt has them, are no map."""
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(body(pixels := keras.Input((8, 8, 3))))
    features = layers.Flatten()(layers.LayerNormalization(name="norm")(pooled))
    cut = features_as_backbone(keras.Model(pixels, features))
    assert (cut.backbone.output_shape, cut.classifier, cut.feature_map) == ((None, 1, 1, 6), (), "conv")
