"""What trains, and that nothing else moves by a single bit."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from multitl.contracts import Stage
from multitl.errors import BackboneError
from multitl.models.freezing import FreezePolicy, apply_policy, frozen_variables, leaf_layers
from multitl.recipes import Recipe
from multitl.training.phases import compile_model, mutable_variables

STAGES = (Stage("stem", ("conv0", "bn0")), Stage("stage1", ("conv1", "bn1")), Stage("stage2", ("conv2", "bn2")))


def build_backbone() -> keras.Model:
    """Three convolution + batch norm pairs, the last one inside a nested model."""
    layers = keras.layers
    inputs = x = keras.Input((16, 16, 3))
    for index in range(2):
        x = layers.Conv2D(4, 3, name=f"conv{index}")(x)
        x = layers.BatchNormalization(name=f"bn{index}")(x)
    nested = keras.Sequential([layers.Conv2D(4, 3, name="conv2"), layers.BatchNormalization(name="bn2")], name="nested")
    return keras.Model(inputs, nested(x))


@pytest.mark.parametrize(
    ("unfreeze", "names"),
    [
        ("none", set()),
        ("last", {"conv2", "bn2"}),
        ("last:1", {"conv2", "bn2"}),
        ("last:2", {"conv1", "bn1", "conv2", "bn2"}),
        ("last:99", {"conv0", "bn0", "conv1", "bn1", "conv2", "bn2"}),
        ("all", {"conv0", "bn0", "conv1", "bn1", "conv2", "bn2"}),
        ("stem", {"conv0", "bn0"}),
        ("stage*", {"conv1", "bn1", "conv2", "bn2"}),
        ("conv?, bn0", {"conv0", "conv1", "conv2", "bn0"}),
    ],
)
def test_policy_selects_layers(unfreeze: str, names: set[str]) -> None:
    assert FreezePolicy(unfreeze).select(STAGES) == names


@pytest.mark.parametrize("unfreeze", ["stage9", "last:0", "conv1,nothing", ""])
def test_unknown_stage_names_the_nearest(unfreeze: str) -> None:
    with pytest.raises(BackboneError) as caught:
        FreezePolicy(unfreeze).select(STAGES)
    assert "stem, stage1, stage2" in str(caught.value)


def test_misspelt_stage_is_corrected() -> None:
    with pytest.raises(BackboneError, match=r"nearest: stage1"):
        FreezePolicy("stge1").select(STAGES)


@pytest.mark.every_backend
@pytest.mark.parametrize("train_batch_norm", [False, True])
@pytest.mark.parametrize("unfreeze", ["none", "last", "conv1", "all"])
def test_only_the_selected_layers_change(unfreeze: str, train_batch_norm: bool) -> None:
    backbone = build_backbone()
    inputs = keras.Input((16, 16, 3))
    features = keras.layers.GlobalAveragePooling2D()(backbone(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(features))
    trained = apply_policy(FreezePolicy(unfreeze, train_batch_norm), backbone, STAGES)
    compile_model(model, Recipe(optimizer="adamw"), 0.1)

    frozen = {v.path: np.array(keras.ops.convert_to_numpy(v.value)) for v in frozen_variables(model)}
    moving = {layer.name: [np.array(w) for w in layer.get_weights()] for layer in trained}
    random = np.random.default_rng(0)
    for _ in range(3):
        images = random.normal(5, 3, (8, 16, 16, 3)).astype("float32")
        model.train_on_batch(images, np.eye(3, dtype="float32")[random.integers(0, 3, 8)])

    after = {variable.path: keras.ops.convert_to_numpy(variable.value) for variable in frozen_variables(model)}
    assert after.keys() == frozen.keys()
    for path, value in frozen.items():
        np.testing.assert_array_equal(after[path], value, err_msg=path)  # bit for bit
    for layer in trained:
        for before, now in zip(moving[layer.name], layer.get_weights(), strict=True):
            assert not np.array_equal(before, now), layer.name
    expected = FreezePolicy(unfreeze).select(STAGES) - (set() if train_batch_norm else {"bn0", "bn1", "bn2"})
    assert {layer.name for layer in trained} == expected


def test_mutable_variables_are_the_complement_of_the_frozen() -> None:
    backbone = build_backbone()
    apply_policy(FreezePolicy("last"), backbone, STAGES)
    mutable = {id(v) for v in mutable_variables(backbone)}
    frozen = {id(v) for v in frozen_variables(backbone)}
    assert not mutable & frozen
    assert mutable | frozen == {id(v) for v in backbone.variables}


def test_leaf_layers_open_nested_models() -> None:
    names = [layer.name for layer in leaf_layers(build_backbone())]
    assert [name for name in names if name[:2] in ("co", "bn")] == ["conv0", "bn0", "conv1", "bn1", "conv2", "bn2"]
