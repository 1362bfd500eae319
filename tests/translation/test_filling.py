"""filling.py against PyTorch itself: what a filled model computes, and what comes out of it again."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from twin_networks import CLASSIFIER, WEIGHTS, Network, arrays, assert_equal, prefixed, read_fitting, twin, write

from multitl.contracts import TranslatedWeight
from multitl.errors import WeightsError
from multitl.models.freezing import leaf_layers
from multitl.translation.filling import extract, fill


@pytest.mark.every_backend
def test_a_filled_model_computes_what_the_original_does(tmp_path: Path):
    net, model = Network(), twin()
    path = write(tmp_path / "weights.safetensors", prefixed("module.", net))
    fill(model, WEIGHTS, read_fitting(path).tensors)
    image = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    with torch.no_grad():
        expected = net(torch.from_numpy(image).permute(0, 3, 1, 2)).numpy()
    assert np.ptp(expected, axis=0).min() > 0.1
    np.testing.assert_allclose(model.predict(image, verbose=0), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.every_backend
def test_what_is_filled_in_comes_out_bit_by_bit_as_copies():
    net, model = Network(), twin()
    fill(model, WEIGHTS, arrays(net))
    tensors = extract(model, WEIGHTS)
    for variable in model.weights:
        variable.assign(np.ones(variable.shape, "float32"))
    assert_equal(tensors, net)
    other = Network(seed=1)
    missing, unexpected = other.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()}, strict=False)
    assert (missing, unexpected) == (["aux.weight"], [])  # PyTorch lets counters be missing
    torch.testing.assert_close(other(torch.ones(1, 3, 8, 8)), net(torch.ones(1, 3, 8, 8)), rtol=0, atol=0)


def test_all_of_a_model_is_filled_or_nothing():
    model, tensors = twin(), arrays(Network())
    nowhere = TranslatedWeight("aux.weight", (2, 6), "aux", "kernel", (2, 6), (1, 0))
    larger = TranslatedWeight("head.1.bias", (7,), "head", "bias", (7,), (0,))
    scalar = TranslatedWeight("scale", (), "head", "bias", (), ())
    for weights, given, message in [
        (WEIGHTS, tensors | {"head.1.bias": np.ones(7)}, r"1 of 8 tensors for twin(.|\n)*head\.1\.bias"),
        (WEIGHTS, {k: v for k, v in tensors.items() if k not in CLASSIFIER}, r"2 of 8 tensors"),
        ((*WEIGHTS, nowhere), tensors, r"does not hold 1 of 9 weights(.|\n)*aux/kernel"),
        ((*WEIGHTS, larger), tensors | {"head.1.bias": np.ones(7)}, "head/bias"),
        ((*WEIGHTS, scalar), tensors, "head/bias"),
    ]:
        with pytest.raises(WeightsError, match=message):
            fill(model, weights, given)
        assert not any(np.any(keras.ops.convert_to_numpy(variable)) for variable in model.weights)
    with pytest.raises(WeightsError, match="aux/kernel"):
        extract(model, [nowhere])


def test_a_variable_that_is_not_the_only_one_of_its_name_is_refused():
    query = keras.Input((3, 8))
    model = keras.Model(query, keras.layers.MultiHeadAttention(2, 4, name="attention")(query, query))
    weight = TranslatedWeight("query.weight", (8, 8), "attention", "kernel", (8, 8), (1, 0))
    with pytest.raises(WeightsError, match="none, or several, for attention/kernel"):
        fill(model, [weight], {"query.weight": np.ones((8, 8), "f4")})


def test_a_tensor_that_two_layers_share_must_stay_one():
    image = keras.Input((4,))
    x = keras.layers.Dense(4, use_bias=False, name="first")(image)
    model = keras.Model(image, keras.layers.Dense(4, use_bias=False, name="second")(x), name="tied")
    weights = [TranslatedWeight("w", (4, 4), layer, "kernel", (4, 4), (1, 0)) for layer in ("first", "second")]
    tensor = np.arange(16, dtype="f4").reshape(4, 4)
    fill(model, weights, {"w": tensor})
    np.testing.assert_array_equal(extract(model, weights)["w"], tensor)
    next(layer for layer in leaf_layers(model) if layer.name == "second").kernel.assign(np.ones((4, 4)))
    with pytest.raises(WeightsError, match=r"w is one tensor in the original(.|\n)*second/kernel"):
        extract(model, weights)
