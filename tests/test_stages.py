"""Stages follow strides along the graph and hold every layer with weights once."""

from __future__ import annotations

import keras
import pytest

from multitl.freezing import leaf_layers
from multitl.initialisers import numpy_initialisers
from multitl.sources.keras_catalogue import ARCHITECTURES
from multitl.sources.keras_networks import build
from multitl.stages import stages_by_stride

layers = keras.layers


@pytest.fixture(autouse=True)
def _quick_weights():
    with numpy_initialisers(None):
        yield


def stage_map(model: keras.Model) -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.layers for stage in stages_by_stride(model)}


def test_a_strided_layer_opens_the_next_stage():
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, padding="same", name="a")(image)
    x = layers.BatchNormalization(name="a_bn")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(4, 3, padding="same", name="b")(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", name="c")(x)
    x = layers.SeparableConv2D(4, 3, strides=2, padding="same", name="d")(x)
    x = layers.Conv2D(4, 1, name="e")(layers.AveragePooling2D(2)(x))
    assert stage_map(keras.Model(image, x)) == {
        "stage0": ("a", "a_bn"),
        "stage1": ("b",),
        "stage2": ("c",),
        "stage3": ("d",),
        "stage4": ("e",),
    }


def test_branches_belong_to_the_stage_they_work_in():
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="stem")(image)
    shortcut = layers.Conv2D(8, 1, strides=2, name="shortcut")(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="main")(x)
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = x * layers.Conv2D(8, 1, activation="sigmoid", name="excite")(squeezed) + shortcut
    stages = stage_map(keras.Model(image, x))
    assert {stage: set(names) for stage, names in stages.items()} == {
        "stage1": {"stem"},
        "stage2": {"main", "shortcut", "excite"},
    }


def test_valid_padding_does_not_count_as_a_stride():
    image = keras.Input((75, 75, 3))
    x = image
    for index in range(4):
        x = layers.Conv2D(4, 7, name=f"conv{index}")(x)
    assert list(stage_map(keras.Model(image, x))) == ["stage0"]


def test_nested_sequential_models_are_opened():
    image = keras.Input((32, 32, 3))
    stem = keras.Sequential([layers.Conv2D(4, 4, strides=4, name="stem"), layers.LayerNormalization(name="norm")])
    down = keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(4, 2, strides=2, name="down")])
    x = layers.Conv2D(4, 1, name="after")(down(stem(image)))
    assert stage_map(keras.Model(image, x)) == {"stage2": ("stem", "norm"), "stage3": ("down", "after")}
    assert stage_map(keras.Sequential([keras.Input((32, 32, 3)), stem, down])) == {
        "stage2": ("stem", "norm"),
        "stage3": ("down",),
    }


def test_a_nested_functional_model_is_refused():
    image = keras.Input((8, 8, 3))
    inner = keras.Model(image, layers.Conv2D(4, 3)(image))
    outer = keras.Input((8, 8, 3))
    with pytest.raises(TypeError, match="contains a functional model"):
        stages_by_stride(keras.Model(outer, inner(outer)))


def test_only_layers_with_weights_are_listed():
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.ReLU()(layers.Conv2D(4, 3, strides=2, name="conv")(x))
    assert stage_map(keras.Model(image, x)) == {"stage1": ("conv",)}


@pytest.mark.parametrize("name", ["ResNet50", "DenseNet121"])
def test_stages_of_a_residual_network_are_its_own(name):
    """These networks' layers are named after the stages of their papers, conv1 to conv5."""
    (architecture,) = (one for one in ARCHITECTURES if one.name == name)
    for stage, names in stage_map(build(architecture, 64, seed=None)).items():
        expected = f"conv{stage.removeprefix('stage')}"
        strays = [name for name in names if not name.startswith((expected, "pool", "bn"))]
        assert not strays


@pytest.mark.parametrize("name", ["EfficientNetB0", "MobileNetV3Small"])
def test_squeeze_and_excite_stays_with_its_block(name):
    (architecture,) = (one for one in ARCHITECTURES if one.name == name and not one.variant)
    model = build(architecture, 64, seed=None)
    home = {layer: stage for stage, names in stage_map(model).items() for layer in names}
    for layer in leaf_layers(model):
        if layer.weights and ("_se_" in layer.name or "squeeze_excite" in layer.name):
            block = layer.name.split("se_")[0].split("squeeze_excite")[0]
            depthwise = next(
                other for other in home if other.startswith(block) and ("dwconv" in other or "depthwise" in other)
            )
            assert home[layer.name] == home[depthwise]
