"""Stages follow strides along the graph, or the original's module tree, and hold every layer with weights once."""

from __future__ import annotations

import keras
import pytest

from multitl.models.freezing import leaf_layers
from multitl.models.initialisers import numpy_initialisers
from multitl.models.stages import stages_by_path, stages_by_stride
from multitl.sources.keras_catalogue import ARCHITECTURES
from multitl.sources.keras_networks import build

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


# --- by the module tree ---


def by_path(paths: str, attached: str = "") -> dict[str, str]:
    """Stages of layers that are named as their modules. `attached`: of those, what opens no stage of its own."""
    names = paths.split()
    stages = stages_by_path({name: name for name in names}, attached.split())
    assert sorted(layer for stage in stages for layer in stage.layers) == sorted(names)
    return {stage.name: " ".join(stage.layers) for stage in stages}


def test_top_level_modules_are_stages() -> None:
    resnet = "conv1 bn1 layer1.0.conv1 layer1.0.bn1 layer2.0.conv1 layer2.0.bn1 layer2.0.downsample.0 layer3.0.conv1 fc"
    assert by_path(resnet, "bn1 layer1.0.bn1 layer2.0.bn1") == {
        "conv1": "conv1 bn1",
        "layer1": "layer1.0.conv1 layer1.0.bn1",
        "layer2": "layer2.0.conv1 layer2.0.bn1 layer2.0.downsample.0",
        "layer3": "layer3.0.conv1",
        "fc": "fc",
    }


def test_the_largest_branch_is_opened_where_there_are_too_few() -> None:
    assert by_path("features.0.0 features.0.1 features.1.conv features.2.conv classifier.1", "features.0.1") == {
        "features.0": "features.0.0 features.0.1",
        "features.1": "features.1.conv",
        "features.2": "features.2.conv",
        "classifier": "classifier.1",
    }


def test_normalisations_of_an_opened_branch_join_the_convolution_before() -> None:
    vgg = "features.0 features.1 features.4 features.5 features.8 features.9 classifier.0 classifier.3"
    assert by_path(vgg, "features.1 features.5 features.9") == {
        "features.0": "features.0 features.1",
        "features.4": "features.4 features.5",
        "features.8": "features.8 features.9",
        "classifier": "classifier.0 classifier.3",
    }


def test_branches_are_opened_as_deep_as_need_be() -> None:
    blocks = "encoder.layers.0.mlp encoder.layers.1.mlp encoder.layers.2.mlp encoder.ln heads.head"
    vit = f"conv_proj class_token encoder.position {blocks}"
    assert by_path(vit, "class_token encoder.position encoder.ln") == {
        "conv_proj": "conv_proj class_token encoder.position",
        "encoder.layers.0": "encoder.layers.0.mlp",
        "encoder.layers.1": "encoder.layers.1.mlp",
        "encoder.layers.2": "encoder.layers.2.mlp encoder.ln",
        "heads": "heads.head",
    }


def test_bare_parameters_that_come_first_are_a_stage() -> None:
    """There is none before them that they could join."""
    stages = by_path("cls_token pos_embed blocks.0.fc blocks.1.fc blocks.2.fc head", "cls_token pos_embed")
    assert list(stages) == ["cls_token", "blocks.0", "blocks.1", "blocks.2", "head"]
    assert stages["cls_token"] == "cls_token pos_embed"


def test_a_network_of_few_modules_has_few_stages() -> None:
    assert by_path("conv fc") == {"conv": "conv", "fc": "fc"}
    assert by_path("only") == {"only": "only"}
    assert by_path("") == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", "conv1 layer1 layer2 layer3 layer4 fc"),
        ("alexnet", "features.0 features.3 features.6 features.8 features.10 classifier"),
        (
            "vgg11_bn",
            " ".join(f"features.{n}" for n in (0, 4, 8, 11, 15, 18, 22, 25)) + " classifier",
        ),
        ("convnext_tiny", " ".join(f"features.{n}" for n in range(8)) + " classifier"),
        ("vit_b_16", "conv_proj " + " ".join(f"encoder.layers.encoder_layer_{n}" for n in range(12)) + " heads"),
    ],
)
def test_stages_of_translated_networks(name: str, expected: str) -> None:
    torch = pytest.importorskip("torch")
    from multitl_torch.fx import translate
    from multitl_torch.torchvision import import_torchvision

    size = 224 if name == "vit_b_16" else 96
    translation = translate(getattr(import_torchvision().models, name)(weights=None), torch.zeros(1, 3, size, size))
    assert " ".join(stage.name for stage in translation.stages) == expected
    names = [layer for stage in translation.stages for layer in stage.layers]
    trained = [layer.name for layer in leaf_layers(translation.model) if layer.trainable_weights]
    assert sorted(names) == sorted(trained)
