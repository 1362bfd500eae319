"""The builder: names, shared and held weights, operands."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multitl.translation.building import Builder, layer_name
from multitl.translation.layouts import channels_last, in_order, to_keras, to_original
from multitl.translation.op_tables import Unsupported
from multitl.translation.values import BATCH, Activation, Stored, part

layers = keras.layers
RANDOM = np.random.default_rng(0)


@pytest.fixture
def pixels() -> Activation:
    """(n, 3, 5, 7) as the original counts, channels-last in Keras."""
    return Activation(keras.Input((5, 7, 3), name="pixels"), channels_last(4))


@pytest.fixture
def build(pixels: Activation) -> Builder:
    return Builder(pixels.tensor)


def images(count: int = 2) -> np.ndarray:
    return RANDOM.normal(size=(count, 5, 7, 3)).astype("float32")


def stored(*shape: int, name: str = "") -> Stored:
    return Stored(RANDOM.normal(size=shape).astype("float32"), name, trains=bool(name))


def run(build: Builder, output, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.Model(build.pixels, output)(x))


# --- names ---


@given(st.lists(st.from_regex(r"[a-z0-9_]{1,5}", fullmatch=True), min_size=1, max_size=5))
def test_a_layers_name_leads_back_to_the_path(parts: list[str]) -> None:
    path = ".".join(parts)
    name = layer_name(path)
    assert not set(name) & set("./:") and name.replace("-", ".") == path


def test_names_are_unique_and_never_empty(build: Builder) -> None:
    assert [build.name("a.b") for _ in range(3)] == ["a-b", "a-b_1", "a-b_2"]
    assert build.name() == "root"
    build.path = "layer1.relu"
    assert [build.name(), build.name()] == ["layer1-relu", "layer1-relu_1"]


def test_a_name_that_is_numbered_never_meets_one_that_is_taken(build: Builder) -> None:
    names = [build.name(path) for path in ("a", "a_1", "a", "a_1", "a")]
    assert len(set(names)) == 5


# --- layers ---


def dense(build: Builder, x, kernel: Stored, use_bias: bool = False):
    return build.layer(lambda name: layers.Dense(4, use_bias=use_bias, name=name), x, part("kernel", kernel, (1, 0)))


def test_a_layer_holds_its_weights_and_remembers_where_they_came_from(build: Builder, pixels: Activation) -> None:
    kernel, bias, x = stored(4, 3, name="head.weight"), stored(4, name="head.bias"), images()
    y = build.layer(
        lambda name: layers.Dense(4, name=name), pixels.tensor, part("kernel", kernel, (1, 0)) + part("bias", bias)
    )
    np.testing.assert_allclose(run(build, y, x), x @ kernel.array.T + bias.array, atol=1e-5)
    assert [(w.name, w.shape, w.layer, w.variable) for w in build.weights] == [
        ("head.weight", (4, 3), "head", "kernel"),
        ("head.bias", (4,), "head", "bias"),
    ]


def test_a_module_that_is_used_twice_is_one_layer(build: Builder, pixels: Activation) -> None:
    kernel, x = stored(4, 3, name="shared.weight"), images()
    first = dense(build, pixels.tensor, kernel)
    second = dense(build, keras.ops.multiply(pixels.tensor, 2.0), kernel)
    model = keras.Model(build.pixels, [first, second])
    assert [layer.name for layer in model.layers if layer.weights] == ["shared"]
    assert len(build.weights) == 1
    a, b = (keras.ops.convert_to_numpy(y) for y in model(x))
    np.testing.assert_allclose(b, 2 * a, rtol=1e-5)


def test_one_weight_in_two_ways_is_refused(build: Builder, pixels: Activation) -> None:
    kernel = stored(4, 3, name="shared.weight")
    dense(build, pixels.tensor, kernel)
    with pytest.raises(Unsupported, match=r"shared\.weight used in two ways"):
        dense(build, pixels.tensor, kernel, use_bias=True)


def test_constants_make_a_layer_each_time_that_does_not_train(build: Builder, pixels: Activation) -> None:
    build.path = "mix"
    y = dense(build, dense(build, pixels.tensor, stored(4, 3)), stored(4, 4))
    model = keras.Model(build.pixels, y)
    assert len(model.weights) == 2 and not model.trainable_weights and not build.weights


# --- weights that belong to no layer ---


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 1, 6), (3, 1, 1), (4, 5), (1, 3), (2, 3, 4, 5)])
def test_held_weights_are_outputs_of_stock_layers(build: Builder, shape) -> None:
    value = stored(*shape, name="blocks.token")
    held = build.hold(value)
    model = keras.Model(build.pixels, held.tensor)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(images())), value.array.reshape(held.tensor.shape))
    (weight,), (layer,) = build.weights, [layer for layer in model.layers if layer.weights]
    assert type(layer) is layers.EinsumDense and layer.trainable
    kernel = keras.ops.convert_to_numpy(layer.kernel.value)
    np.testing.assert_array_equal(to_original(kernel, weight), value.array, strict=True)
    np.testing.assert_array_equal(to_keras(value.array, weight, kernel.shape), kernel, strict=True)


def test_a_held_weight_is_one_layer_however_often_it_is_used(build: Builder, pixels: Activation) -> None:
    scale, x = stored(3, 1, 1, name="gamma"), images()
    a, b = build.operand(scale, pixels), build.operand(scale, pixels.in_order())
    c = build.hold(scale)
    model = keras.Model(build.pixels, [a, b, c.in_order().tensor])
    assert len(build.weights) == len(model.weights) == 1 and build.weights[0].shape == (3, 1, 1)
    wanted = scale.array
    for y, shape in zip(model(x), ((1, 1, 1, 3), (1, 3, 1, 1), (3, 1, 1)), strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(y), wanted.reshape(shape), strict=True)


# --- operands ---


@pytest.mark.parametrize("name", ["", "weight"])
@pytest.mark.parametrize("shape", [(3, 1, 1), (7,), (5, 1), (1, 3, 5, 7), (5, 7), (3, 5, 7)])
@pytest.mark.parametrize("axes", [channels_last(4), in_order(4), (3, 0, 2, 1)])
def test_operands_broadcast_as_in_numpy(build: Builder, pixels: Activation, shape, axes, name: str) -> None:
    value, x, partner = stored(*shape, name=name), images(), pixels.arranged(axes)
    y = partner.with_tensor(keras.ops.multiply(partner.tensor, build.operand(value, partner)))
    np.testing.assert_allclose(run(build, y.in_order().tensor, x), np.moveaxis(x, -1, 1) * value.array, rtol=1e-6)


def test_an_activation_as_operand_follows_its_partner(build: Builder, pixels: Activation) -> None:
    x = images()
    vector = pixels.without(keras.ops.mean(pixels.tensor, (1, 2, 3)), [1, 2, 3]).reshaped((BATCH, 1, 1, 1))
    other = pixels.in_order()
    y = keras.ops.add(keras.ops.multiply(pixels.tensor, build.operand(vector, pixels)), build.operand(other, pixels))
    np.testing.assert_allclose(run(build, y, x), x * x.mean((1, 2, 3), keepdims=True) + x, rtol=1e-5, atol=1e-6)


def test_a_constant_number_is_a_number(build: Builder, pixels: Activation) -> None:
    assert build.operand(Stored(np.array([[2.5]])), pixels) == 2.5
    whole = build.operand(Stored(np.arange(7)), pixels)
    assert whole.dtype.kind == "i" and whole.shape == (1, 1, 7, 1)
    assert build.operand(Stored(np.arange(7.0)), pixels).dtype == "float32"


def test_over_batch_repeats_for_each_image(build: Builder) -> None:
    token = stored(1, 1, 6, name="token")
    y = build.over_batch(build.hold(token))
    np.testing.assert_array_equal(run(build, y.tensor, images(4)), np.repeat(token.array, 4, 0), strict=True)


# --- the whole ---


def test_finish_names_outputs_stages_and_what_is_unused(build: Builder, pixels: Activation) -> None:
    y = pixels.with_tensor(dense(build, pixels.tensor, stored(4, 3, name="head.weight")))
    translation = build.finish([y], "tiny", ["head.weight", "aux.weight", "steps"])
    assert translation.model.name == "tiny"
    assert translation.model.output_shape == (None, 4, 5, 7)  # in the original's order
    assert translation.unused == ("aux.weight", "steps")
    assert [stage.layers for stage in translation.stages] == [("head",)]
