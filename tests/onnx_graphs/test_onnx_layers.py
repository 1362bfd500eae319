"""Every layer that is written gives under onnxruntime what Keras computes."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest
from keras import layers

pytest.importorskip("onnx")

from onnx_twins import assert_same, computed, images, network

from multitl.errors import TranslationError
from multitl.onnx_graphs.writing import TABLE, onnx_model

NHWC, WIDE, TOKENS, VECTOR = (8, 8, 4), (9, 7, 4), (6, 8), (10,)
SPACES = {
    "conv": (layers.Conv2D(6, 3), NHWC),
    "conv_same": (layers.Conv2D(6, 3, padding="same", activation="relu"), NHWC),
    "conv_strided": (layers.Conv2D(6, 3, 2, padding="same", use_bias=False), NHWC),
    "conv_uneven": (layers.Conv2D(6, (4, 3), (3, 2), padding="same"), WIDE),
    "conv_large_stride": (layers.Conv2D(6, 1, 2, padding="same"), WIDE),
    "conv_dilated": (layers.Conv2D(6, 3, padding="same", dilation_rate=2), WIDE),
    "conv_groups": (layers.Conv2D(6, 3, groups=2, activation="gelu"), NHWC),
    "conv_1d": (layers.Conv1D(5, 3, padding="same", strides=2), TOKENS),
    "depthwise": (layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2), NHWC),
    "depthwise_strided": (layers.DepthwiseConv2D(5, 2, padding="same", use_bias=False), WIDE),
    "separable": (layers.SeparableConv2D(5, 3, padding="same", depth_multiplier=2), NHWC),
    "transposed": (layers.Conv2DTranspose(5, 3, 2), NHWC),
    "transposed_same": (layers.Conv2DTranspose(5, 3, 2, padding="same"), NHWC),
    "transposed_small": (layers.Conv2DTranspose(5, 2, 3), NHWC),
    "transposed_small_same": (layers.Conv2DTranspose(5, 2, 3, padding="same"), NHWC),
    "transposed_ends": (layers.Conv2DTranspose(5, 3, 2, output_padding=1), NHWC),
    "transposed_1d": (layers.Conv1DTranspose(5, 3, 2, output_padding=0), TOKENS),
    "max_pooling": (layers.MaxPooling2D(3, 2, padding="same"), WIDE),
    "max_pooling_valid": (layers.MaxPooling2D(2), WIDE),
    "average_pooling": (layers.AveragePooling2D(3, 2, padding="same"), WIDE),
    "average_pooling_one": (layers.AveragePooling2D(3, 1, padding="same"), NHWC),
    "average_pooling_1d": (layers.AveragePooling1D(2), TOKENS),
    "global_average": (layers.GlobalAveragePooling2D(), NHWC),
    "global_average_kept": (layers.GlobalAveragePooling2D(keepdims=True), NHWC),
    "global_average_1d": (layers.GlobalAveragePooling1D(), TOKENS),
    "global_max": (layers.GlobalMaxPooling2D(), NHWC),
    "zero_padding": (layers.ZeroPadding2D(((1, 2), (3, 0))), NHWC),
    "cropping": (layers.Cropping2D(((1, 2), (3, 0))), NHWC),
    "up_sampling": (layers.UpSampling2D((2, 3)), NHWC),
    "up_sampling_bilinear": (layers.UpSampling2D(2, interpolation="bilinear"), NHWC),
    "resizing": (layers.Resizing(5, 11), NHWC),
    "resizing_nearest": (layers.Resizing(5, 11, interpolation="nearest"), NHWC),
    "resizing_bicubic": (layers.Resizing(12, 4, interpolation="bicubic"), NHWC),
    "resizing_smooth": (layers.Resizing(3, 4, antialias=True), NHWC),
}
OTHERS = {
    "lstm": (layers.LSTM(5), TOKENS),
    "lstm_all_steps": (layers.LSTM(5, return_sequences=True, go_backwards=True, use_bias=False), TOKENS),
    "gru": (layers.GRU(5), TOKENS),
    "gru_all_steps": (layers.GRU(5, return_sequences=True, go_backwards=True, use_bias=False), TOKENS),
    "simple_rnn": (layers.SimpleRNN(5), TOKENS),
    "simple_rnn_all_steps": (layers.SimpleRNN(5, "relu", return_sequences=True, use_bias=False), TOKENS),
    "batch_norm": (layers.BatchNormalization(), NHWC),
    "batch_norm_plain": (layers.BatchNormalization(center=False, scale=False, epsilon=0.1), VECTOR),
    "batch_norm_tokens": (layers.BatchNormalization(axis=1), TOKENS),
    "layer_norm": (layers.LayerNormalization(epsilon=1e-2), NHWC),
    "layer_norm_axes": (layers.LayerNormalization(axis=[1, 2]), TOKENS),
    "layer_norm_plain": (layers.LayerNormalization(center=False, scale=False), VECTOR),
    "rms_norm": (layers.RMSNormalization(), TOKENS),
    "group_norm": (layers.GroupNormalization(2, epsilon=1e-2), NHWC),
    "group_norm_plain": (layers.GroupNormalization(2, center=False, scale=False), NHWC),
    "unit_norm": (layers.UnitNormalization(), VECTOR),
    "dense": (layers.Dense(7, activation="tanh"), VECTOR),
    "dense_tokens": (layers.Dense(7, use_bias=False), TOKENS),
    "dense_image": (layers.Dense(7), NHWC),
    "einsum_dense": (layers.EinsumDense("abc,cde->abde", (6, 2, 5), bias_axes="de"), TOKENS),
    "einsum_dense_two": (layers.EinsumDense("abcd,cde->abe", (8, 5), bias_axes="e"), NHWC),
    "einsum_dense_middle": (layers.EinsumDense("abcd,bz->azcd", (5, 8, 4), bias_axes="z"), NHWC),
    "einsum_dense_dots": (layers.EinsumDense("...x,xy->...y", (6, 5)), TOKENS),
    "relu": (layers.ReLU(), NHWC),
    "relu_to_six": (layers.ReLU(6.0), NHWC),
    "relu_slope": (layers.ReLU(negative_slope=0.1, max_value=1.0), NHWC),
    "relu_threshold": (layers.ReLU(threshold=0.5), NHWC),
    "leaky_relu": (layers.LeakyReLU(0.3), NHWC),
    "elu": (layers.ELU(0.7), NHWC),
    "prelu": (layers.PReLU(shared_axes=[1, 2]), NHWC),
    "softmax": (layers.Softmax(), VECTOR),
    "softmax_axis": (layers.Softmax(axis=1), NHWC),
    "rescaling": (layers.Rescaling(1 / 127.5, -1.0), NHWC),
    "rescaling_channels": (layers.Rescaling([1.0, 2.0, 3.0, 4.0], [0.1, 0.0, 0.2, 0.3]), NHWC),
    "normalization": (layers.Normalization(mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0, 4.0, 0.5, 2.0]), NHWC),
    "normalization_back": (layers.Normalization(mean=1.0, variance=4.0, invert=True), NHWC),
    "flatten": (layers.Flatten(), NHWC),
    "reshape": (layers.Reshape((16, -1, 2)), NHWC),
    "permute": (layers.Permute((3, 1, 2)), NHWC),
    "dropout": (layers.Dropout(0.5), NHWC),
    "random_flip": (layers.RandomFlip(), NHWC),
    "identity": (layers.Identity(), NHWC),
}  # fmt: skip
ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu", "linear",
    "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus",
    "softsign", "tanh",
)  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_a_layer_over_space(name: str):
    layer, shape = SPACES[name]
    assert_same(network(type(layer).from_config(layer.get_config()), shape=shape))


@pytest.mark.parametrize("name", SPACES)
def test_a_layer_over_space_after_a_convolution(name: str):
    """What it takes lies channels first already, and is no constant to it."""
    layer, shape = SPACES[name]
    # named: the others got their names when this file was imported, and a test before may have begun to count anew
    before = layers.Conv1D(4, 1, name="before") if len(shape) == 2 else layers.Conv2D(4, 1, name="before")
    assert_same(network(before, type(layer).from_config(layer.get_config()), shape=shape))


@pytest.mark.parametrize("name", OTHERS)
def test_a_layer(name: str):
    layer, shape = OTHERS[name]
    assert_same(network(type(layer).from_config(layer.get_config()), shape=shape))


@pytest.mark.parametrize("name", [name for name, (_, shape) in OTHERS.items() if shape == NHWC])
def test_a_layer_after_a_convolution(name: str):
    layer, shape = OTHERS[name]
    assert_same(network(layers.Conv2D(4, 1, name="before"), type(layer).from_config(layer.get_config()), shape=shape))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation(name: str):
    assert_same(network(layers.Activation(name)))


@pytest.mark.parametrize("kind", ["Add", "Subtract", "Multiply", "Maximum", "Minimum", "Average", "Concatenate"])
def test_a_layer_of_several(kind: str):
    """One comes out of a convolution, the other does not."""
    image = keras.Input(NHWC)
    parts = [layers.Conv2D(4, 3, padding="same")(image), image]
    assert_same(keras.Model(image, getattr(layers, kind)()(parts)))


@pytest.mark.skipif(keras.config.backend() == "torch", reason="Keras takes the last axes there")
def test_a_normalisation_along_an_axis_before_the_last():
    assert_same(network(layers.LayerNormalization(axis=1), shape=TOKENS))


@pytest.mark.skipif(keras.config.backend() == "torch", reason="Keras repeats the edge there, and counts it")
def test_a_mean_does_not_count_padding_at_one_end():
    assert_same(network(layers.AveragePooling2D(2, padding="same"), shape=WIDE))
    assert_same(network(layers.AveragePooling2D(3, 2, padding="same"), shape=NHWC))


def test_attention():
    """To the tokens themselves, and to others."""
    tokens, others = keras.Input((6, 8)), keras.Input((5, 7))
    alone, joint = layers.MultiHeadAttention(2, 4), layers.MultiHeadAttention(3, 4, use_bias=False)
    assert_same(keras.Model([tokens, others], joint(alone(tokens, tokens), others)))
    gated = layers.MultiHeadAttention(2, 4, use_gate=True)
    for answer, reason in [(alone(tokens, tokens, use_causal_mask=True), "causal"), (gated(tokens, tokens), "gate")]:
        with pytest.raises(TranslationError, match=reason):
            onnx_model(keras.Model(tokens, answer))


def test_an_embedding():
    numbers = keras.Input((7,), dtype="int32")
    assert_same(keras.Model(numbers, layers.Embedding(256, 5)(numbers)))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_states_of_a_recurrent_layer(kind: str):
    tokens = keras.Input(TOKENS)
    layer = getattr(layers, kind)(4, return_sequences=True, return_state=True)
    assert_same(keras.Model(tokens, layer(tokens)))
    first = [keras.Input((4,))] * (1 + (kind == "LSTM"))
    with pytest.raises(TranslationError, match="a first state or a mask"):
        onnx_model(keras.Model([tokens, first[0]], layer(tokens, initial_state=first)))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [(layers.LSTM(3, "relu"), "activations of its own"), (layers.GRU(3, reset_after=False), "reset_after=False")],
)
def test_a_recurrent_layer_that_is_not_written(layer: keras.layers.Layer, reason: str):
    with pytest.raises(TranslationError, match=reason):
        onnx_model(network(layer, shape=TOKENS))


def test_a_layer_that_is_called_twice_has_its_weights_once():
    image = keras.Input(TOKENS)
    layer = layers.Dense(8)
    written = assert_same(keras.Model(image, layer(layer(image))))
    assert len([one for one in written.graph.initializer if "kernel" in one.name]) == 1


def test_layers_of_kerass_applications():
    """Their classes have no public names."""
    convnext = importlib.import_module("keras.src.applications.convnext")
    inception = importlib.import_module("keras.src.applications.inception_resnet_v2")
    image = keras.Input(NHWC)
    x = convnext.StochasticDepth(0.5)(convnext.LayerScale(0.3, 4)(image))
    assert_same(keras.Model(image, inception.CustomScaleLayer(0.2)([image, x])))


def test_every_layer_of_the_table_is_one_of_keras():
    """A name that Keras does not have would never be looked up."""
    private = {"LayerScale", "CustomScaleLayer", "StochasticDepth"}
    names = {key.removeprefix("layers.") for key in TABLE if key.startswith("layers.")}
    assert names - set(dir(layers)) == private


def test_a_policy_of_sixteen_bits_is_written_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network(layers.Conv2D(3, 3), layers.GlobalAveragePooling2D())
    finally:
        keras.config.set_dtype_policy("float32")
    (found,) = computed(onnx_model(model), images(model, 2))
    assert found.dtype == np.float32
