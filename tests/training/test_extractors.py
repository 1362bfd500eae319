"""The frozen pass by onnxruntime: the backend's features, or the backend itself."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from multitl.adapters import load_backend
from multitl.contracts import Pretrained
from multitl.models.freezing import leaf_layers
from multitl.recipes import Recipe
from multitl.sources.pretrained import load_pretrained
from multitl.training import extractors
from multitl.training.extractors import Proved, fast_extractor, make_extractor, runtime_of

pytestmark = pytest.mark.every_backend

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pretrained() -> Pretrained:
    """Whose statistics are those of no other layer."""
    found = load_pretrained("keras/MobileNet:alpha=0.25", "none", 64)
    random = np.random.default_rng(1)
    for layer in leaf_layers(found.backbone):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return found


@pytest.fixture
def runtime() -> str:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    return f"onnxruntime {onnxruntime.__version__}"


def test_onnxruntime_gives_the_backends_features(
    pretrained: Pretrained, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    compile_forward = extractors.compile_forward
    monkeypatch.setattr(
        extractors, "compile_forward",
        lambda model: (lambda own: lambda pixels: passes.append(len(pixels)) or own(pixels))(compile_forward(model)),
    )  # fmt: skip
    extract = make_extractor(pretrained, "avg", runtime)
    expected = np.asarray(fast_extractor(pretrained, "avg").predict_on_batch(PIXELS))
    for _ in range(3):
        np.testing.assert_allclose(extract(PIXELS), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert passes == [4]  # the first batch alone


def test_the_first_batch_is_computed_as_the_others_are() -> None:
    """A run that is resumed has another first batch."""
    truth = np.random.default_rng(0).uniform(0, 1, (4, 7)).astype("float32")
    extract = Proved(lambda pixels: truth, lambda pixels: truth * np.float32(1 + 1e-6))
    np.testing.assert_array_equal(extract(PIXELS), extract(PIXELS))


def test_a_runtime_that_fails_is_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(pixels: np.ndarray) -> np.ndarray:
        raise RuntimeError("not implemented here")

    extract = Proved(lambda pixels: pixels, fail)
    for _ in range(2):
        np.testing.assert_array_equal(extract(PIXELS), PIXELS)
    assert capsys.readouterr().err.count("not implemented here") == 1


@pytest.mark.parametrize("wrong", [lambda x: x + 1e-3, lambda x: x * np.nan, lambda x: x[:, ::-1]])
def test_a_runtime_that_gives_something_else_is_not_used(wrong, capsys: pytest.CaptureFixture[str]) -> None:
    truth = np.random.default_rng(0).uniform(0, 1, (4, 7)).astype("float32")
    extract = Proved(lambda pixels: truth[: len(pixels)], lambda pixels: wrong(truth[: len(pixels)]))
    for _ in range(2):
        np.testing.assert_array_equal(extract(PIXELS), truth)
    assert capsys.readouterr().err.count("computed by Keras") == 1


def test_what_cannot_be_written_is_left_to_the_backend(
    pretrained: Pretrained, runtime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Doubled(keras.layers.Layer):
        def call(self, inputs):
            return inputs * 2

    backbone = keras.Model(pretrained.backbone.input, Doubled()(pretrained.backbone.output))
    extract = make_extractor(replace(pretrained, backbone=backbone), "avg", runtime)
    assert "computed by Keras" in capsys.readouterr().err
    expected = 2 * np.asarray(fast_extractor(pretrained, "avg").predict_on_batch(PIXELS))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(extract(PIXELS)), expected, rtol=1e-4, atol=1e-5)


def test_it_is_taken_where_the_backend_is_slow(runtime: str) -> None:
    backend = load_backend()
    is_wanted = backend.devices() == ["CPU"] and backend.name != "tensorflow"
    assert runtime_of(backend, Recipe()) == (runtime if is_wanted else backend.name)


def test_without_onnxruntime_it_is_the_backend(pretrained: Pretrained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractors, "PACKAGES", ("onnx", "a-package-that-is-not-there"))
    assert runtime_of(load_backend(), Recipe()) == load_backend().name


def test_sixteen_bits_are_the_backends(runtime: str) -> None:
    assert runtime_of(load_backend(), Recipe(precision="mixed")) == load_backend().name
