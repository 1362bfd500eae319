"""A Keras model beside its ONNX, which onnxruntime computes: what the tests of `multitl.onnx_graphs` compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from zoo_onnx import randomise

from multitl.onnx_graphs.writing import onnx_model


def images(model: keras.Model, count: int, seed: int = 1) -> list[np.ndarray]:
    """Random inputs; whole numbers from 0 to 255 where the model takes whole numbers."""
    random = np.random.default_rng(seed)
    shapes = [(count, *(size or 8 for size in tensor.shape[1:])) for tensor in model.inputs]
    return [
        random.normal(size=shape).astype(tensor.dtype)
        if "float" in tensor.dtype
        else random.integers(0, 256, shape).astype(tensor.dtype)
        for shape, tensor in zip(shapes, model.inputs, strict=True)
    ]


def computed(written: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """By onnxruntime."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(written.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def difference(model: keras.Model, written: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> float:
    """The largest difference, over the largest output. Shapes and types have to be the same."""
    wanted = keras.tree.flatten(model.predict_on_batch(list(inputs) if len(inputs) > 1 else inputs[0]))
    worst = 0.0
    for found, one in zip(computed(written, inputs), wanted, strict=True):
        expected = keras.ops.convert_to_numpy(one)
        assert found.shape == expected.shape and found.dtype == expected.dtype
        deviation = np.abs(found.astype("float64") - expected.astype("float64"))
        worst = max(worst, float(deviation.max() / max(np.abs(expected).max(), 1e-6)))
    return worst


def assert_same(model: keras.Model, limit: float = 1e-5) -> onnx.ModelProto:
    """For one image and for three. Returns what was written."""
    written = onnx_model(randomise(model))
    onnx.checker.check_model(written, full_check=True)
    for count in (1, 3):
        assert difference(model, written, images(model, count)) < limit
    return written


def kinds(written: onnx.ModelProto) -> Counter[str]:
    """How many nodes of which kind."""
    return Counter(node.op_type for node in written.graph.node)


def network(*body: layers.Layer, shape: tuple[int | None, ...] = (8, 8, 4)) -> keras.Model:
    """A model of layers in a row."""
    x = image = keras.Input(shape)
    for layer in body:
        x = layer(x)
    return keras.Model(image, x)
