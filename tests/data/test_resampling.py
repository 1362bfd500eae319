"""Resizing without antialias against TensorFlow itself, which runs in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from multitl.contracts import Preprocess
from multitl.data.geometry import fit_pixels
from multitl.data.resampling import resample

SIZES = [
    ((37, 53), (24, 24)),
    ((24, 24), (37, 53)),
    ((300, 200), (77, 64)),
    ((5, 5), (64, 64)),
    ((1, 7), (4, 4)),
    ((64, 64), (32, 32)),
]
METHODS = {"nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos3"}
ASK_TENSORFLOW = """
import sys
import numpy as np
import tensorflow as tf
given = np.load(sys.argv[1])
results = {}
for key in given:
    method, height, width, _ = key.split("-")
    resized = tf.image.resize(given[key], (int(height), int(width)), method=method, antialias=False)
    results[key] = tf.cast(resized, tf.float32).numpy()
np.savez(sys.argv[2], **results)
"""


@pytest.fixture(scope="module")
def tensorflow_answers(tmp_path_factory) -> tuple[dict, dict]:
    """Images by "method-height-width-number", and what tf.image.resize makes of them."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("resize")
    asked = {
        f"{METHODS[method]}-{out[0]}-{out[1]}-{number}": random.integers(0, 256, (*size, 3), dtype=np.uint8)
        for number, (size, out) in enumerate(SIZES)
        for method in METHODS
    }
    np.savez(folder / "asked.npz", **asked)
    subprocess.run([sys.executable, "-c", ASK_TENSORFLOW, folder / "asked.npz", folder / "answers.npz"], check=True)
    with np.load(folder / "answers.npz") as answers:
        return asked, dict(answers)


@pytest.mark.parametrize("interpolation", METHODS)
def test_resample_is_tensorflows(tensorflow_answers, interpolation):
    asked, answers = tensorflow_answers
    keys = [key for key in asked if key.startswith(METHODS[interpolation] + "-")]
    assert len(keys) == len(SIZES)
    for key in keys:
        expected = np.clip(answers[key], 0, 255)
        found = resample(asked[key], expected.shape[:2], slice(None), slice(None), interpolation)
        # half a grey level is the rounding to uint8
        assert np.abs(found - expected).max() <= 0.51


def test_a_part_is_a_part_of_the_whole():
    pixels = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    for interpolation in METHODS:
        whole = resample(pixels, (31, 90), slice(None), slice(None), interpolation)
        part = resample(pixels, (31, 90), slice(4, 20), slice(33, 80), interpolation)
        np.testing.assert_array_equal(part, whole[4:20, 33:80])


def test_a_constant_stays_constant():
    for interpolation in METHODS:
        found = resample(np.full((9, 40, 3), 200, np.uint8), (33, 7), slice(None), slice(None), interpolation)
        assert (found == 200).all()


def test_preprocess_without_antialias_uses_it():
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    how = Preprocess(24, 24, shorter_side=30, antialias=False)
    expected = resample(np.asarray(image), (30, 40), slice(3, 27), slice(8, 32), "bilinear")
    np.testing.assert_array_equal(fit_pixels(image, how), expected)
    assert (
        np.abs(fit_pixels(image, how).astype(int) - fit_pixels(image, Preprocess(24, 24, shorter_side=30))).max() > 20
    )
