"""Pixel values: the modes of keras.applications, our own numpy against Keras' layers, and Preprocess as JSON."""

from __future__ import annotations

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras.applications.imagenet_utils import preprocess_input

from multitl.contracts import Preprocess
from multitl.models.preprocessing import normalise, normalise_in_model, with_values
from multitl.recipes import Recipe

PLAIN = Preprocess(6, 5, "squash", interpolation="bicubic")
UNCOMMON = Preprocess(6, 5, "fit", box=(7, 8), fill=(1, 2, 3), scale=(0.1, 0.2, 0.3), offset=(4.0, 5.0, 6.0))
CHOICES = Recipe.__dataclass_fields__["preprocess"].metadata["choices"]


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch"])
def test_values_are_those_of_keras_applications(mode: str, pixels: np.ndarray):
    expected = preprocess_input(pixels.astype("float32"), data_format="channels_last", mode=mode)
    np.testing.assert_allclose(normalise(pixels, with_values(PLAIN, mode)), expected, rtol=1e-5, atol=2e-6)


def test_unit_is_from_0_to_1(pixels: np.ndarray):
    np.testing.assert_allclose(normalise(pixels, with_values(PLAIN, "unit")), pixels / 255, rtol=1e-6)


def test_bytes_come_as_they_are(pixels: np.ndarray):
    np.testing.assert_array_equal(normalise(pixels, with_values(UNCOMMON, "bytes")), pixels.astype("float32"))


def test_auto_leaves_everything_and_the_others_leave_the_geometry(pixels: np.ndarray):
    assert with_values(UNCOMMON, "auto") == UNCOMMON
    for values in CHOICES[1:]:
        changed = with_values(with_values(UNCOMMON, "caffe"), values)
        assert changed == with_values(UNCOMMON, values) != UNCOMMON
        kept = dataclasses.replace(changed, channel_order="rgb", scale=UNCOMMON.scale, offset=UNCOMMON.offset)
        assert kept == UNCOMMON


@pytest.mark.every_backend
@pytest.mark.parametrize("values", CHOICES)
def test_layers_inside_a_model_give_the_same_numbers(values: str, pixels: np.ndarray):
    how = with_values(UNCOMMON, values)
    inputs = keras.Input((6, 5, 3), dtype="uint8")
    model = keras.Model(inputs, normalise_in_model(inputs, how))
    np.testing.assert_allclose(model.predict(pixels, verbose=0), normalise(pixels, how), rtol=1e-6, atol=1e-5)


def test_card_gives_an_equal_preprocess_back():
    for how in (PLAIN, UNCOMMON, with_values(UNCOMMON, "torch")):
        back = Preprocess.from_mapping(json.loads(json.dumps(dataclasses.asdict(how))))
        assert back == how and hash(back) == hash(how)


def test_card_of_an_older_version_is_understood():
    values = dataclasses.asdict(PLAIN)
    del values["box"], values["fill"]
    assert Preprocess.from_mapping(values) == PLAIN
