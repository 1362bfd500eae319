"""Every function of TensorFlow in the table computes what TensorFlow documents, in a functional model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from scipy import special

from multitl.sources.tensorflow_ops import OPS

X = np.random.default_rng(0).uniform(0.2, 2, (2, 3, 4, 3)).astype("float32") * [1, -1, 1]
X = X.astype("float32")
Y = X[..., ::-1].copy()
COLOURS = [1.0, 2.0, 3.0]

# name -> arguments ("x" and "y" stand for tensors), options, the same in numpy
CASES: dict[str, tuple[list, dict[str, Any], Callable[..., np.ndarray]]] = {
    "__operators__.add": (["x", "y"], {}, np.add),
    "math.add": (["x", 3.0], {}, np.add),
    "add": (["x", COLOURS], {}, np.add),
    "math.subtract": (["x", "y"], {}, np.subtract),
    "subtract": ([1.0, "x"], {}, np.subtract),
    "math.multiply": (["x", "y"], {}, np.multiply),
    "multiply": (["x", COLOURS], {}, np.multiply),
    "math.truediv": (["x", 127.5], {}, np.divide),
    "math.divide": (["x", "y"], {}, np.divide),
    "divide": (["x", COLOURS], {}, np.divide),
    "compat.v1.div": (["x", 2.0], {}, np.divide),
    "math.maximum": (["x", "y"], {}, np.maximum),
    "maximum": (["x", 0.5], {}, np.maximum),
    "math.minimum": (["x", "y"], {}, np.minimum),
    "minimum": (["x", 0.5], {}, np.minimum),
    "math.pow": (["x", 2.0], {}, np.power),
    "pow": (["x", 3.0], {}, np.power),
    "nn.bias_add": (["x"], {"bias": COLOURS, "data_format": "NHWC"}, lambda x, bias, data_format: x + bias),
    "__operators__.getitem": (
        ["x"],
        {"slice_spec": [..., slice(1, 3), slice(None, None, -1)]},
        lambda x, slice_spec: x[:, :, 1:3, ::-1],
    ),
    "concat": ([["x", "y"]], {"axis": -1}, np.concatenate),
    "stack": ([["x", "y"]], {"axis": 1}, np.stack),
    "math.reduce_mean": (["x"], {"axis": [1, 2], "keepdims": True}, lambda x, **_: x.mean((1, 2), keepdims=True)),
    "reduce_mean": (["x"], {"axis": [1, 2]}, lambda x, **_: x.mean((1, 2))),
    "math.reduce_sum": (["x"], {"axis": 1}, np.sum),
    "reduce_sum": (["x"], {"axis": -1, "keepdims": True}, np.sum),
    "math.reduce_max": (["x"], {"axis": 1}, np.max),
    "reduce_max": (["x"], {"axis": [1, 2]}, lambda x, **_: x.max((1, 2))),
    "reshape": (["x"], {"shape": [-1, 36]}, np.reshape),
    "transpose": (["x"], {"perm": [0, 2, 1, 3]}, lambda x, perm: x.transpose(perm)),
    "compat.v1.transpose": (["x"], {"perm": [0, 3, 1, 2]}, lambda x, perm: x.transpose(perm)),
    "squeeze": (["pooled"], {"axis": [1, 2]}, lambda x, axis: x[:, 0, 0]),
    "compat.v1.squeeze": (["pooled"], {"axis": [1]}, lambda x, axis: x[:, 0]),
    "expand_dims": (["x"], {"axis": 1}, np.expand_dims),
    "cast": (["x"], {"dtype": "int32"}, lambda x, dtype: x.astype(dtype)),
    "identity": (["x"], {}, np.asarray),
    "stop_gradient": (["x"], {}, np.asarray),
    "clip_by_value": (["x"], {"clip_value_min": -1.0, "clip_value_max": 1.0}, lambda x, **_: x.clip(-1, 1)),
    "linalg.matmul": (["x", "y"], {"transpose_b": True}, lambda x, y, transpose_b: x @ y.swapaxes(-1, -2)),
    "matmul": (["x", "y"], {"transpose_a": True}, lambda x, y, transpose_a: x.swapaxes(-1, -2) @ y),
    "math.l2_normalize": (["x"], {"axis": -1}, lambda x, axis: x / np.linalg.norm(x, axis=axis, keepdims=True)),
    "linalg.l2_normalize": (["x"], {"axis": 1}, lambda x, axis: x / np.linalg.norm(x, axis=axis, keepdims=True)),
    "nn.l2_normalize": (["x"], {"axis": -1}, lambda x, axis: x / np.linalg.norm(x, axis=axis, keepdims=True)),
    "nn.softmax": (["x"], {"axis": -1}, special.softmax),
    "compat.v1.nn.softmax": (["x"], {}, lambda x: special.softmax(x, -1)),
    "nn.gelu": (["x"], {}, lambda x: x * special.ndtr(x)),
    "nn.leaky_relu": (["x"], {"alpha": 0.3}, lambda x, alpha: np.where(x > 0, x, alpha * x)),
    "nn.silu": (["x"], {}, lambda x: x * special.expit(x)),
    "nn.swish": (["x"], {"beta": 2.0}, lambda x, beta: x * special.expit(beta * x)),
    "math.abs": (["x"], {}, np.abs),
    "abs": (["x"], {}, np.abs),
    "math.exp": (["x"], {}, np.exp),
    "exp": (["x"], {}, np.exp),
    "math.log": (["positive"], {}, np.log),
    "math.negative": (["x"], {}, np.negative),
    "negative": (["x"], {}, np.negative),
    "nn.relu": (["x"], {}, lambda x: x.clip(0)),
    "nn.relu6": (["large"], {}, lambda x: x.clip(0, 6)),
    "math.rsqrt": (["positive"], {}, lambda x: 1 / np.sqrt(x)),
    "math.sigmoid": (["x"], {}, special.expit),
    "nn.sigmoid": (["x"], {}, special.expit),
    "sigmoid": (["x"], {}, special.expit),
    "math.softplus": (["x"], {}, lambda x: np.log1p(np.exp(x))),
    "nn.softplus": (["x"], {}, lambda x: np.log1p(np.exp(x))),
    "math.sqrt": (["positive"], {}, np.sqrt),
    "sqrt": (["positive"], {}, np.sqrt),
    "math.square": (["x"], {}, np.square),
    "square": (["x"], {}, np.square),
    "math.tanh": (["x"], {}, np.tanh),
    "nn.tanh": (["x"], {}, np.tanh),
    "tanh": (["x"], {}, np.tanh),
    "nn.elu": (["x"], {}, lambda x: np.where(x > 0, x, np.expm1(x))),
    "nn.selu": (["x"], {}, lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))),
}
INPUTS = {"x": X, "y": Y, "pooled": X[:, :1, :1], "positive": np.abs(X), "large": X * 9}


def with_values(value: Any, values: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [with_values(one, values) for one in value]
    return values[value] if isinstance(value, str) else value


def test_every_function_has_a_case():
    assert set(CASES) == set(OPS)


@pytest.mark.every_backend
def test_functions_compute_what_tensorflow_documents():
    """One model of all of them: building is what takes time."""
    tensors = {name: keras.Input(array.shape[1:], name=name) for name, array in INPUTS.items()}
    outputs = {
        name: OPS[name](*with_values(arguments, tensors), **options) for name, (arguments, options, _) in CASES.items()
    }
    names = {name: f"output{index}" for index, name in enumerate(outputs)}
    model = keras.Model(tensors, {names[name]: output for name, output in outputs.items()})
    found = model(INPUTS)
    for name, (arguments, options, reference) in CASES.items():
        expected = reference(*with_values(arguments, INPUTS), **options)
        result = np.asarray(keras.ops.convert_to_numpy(found[names[name]]))
        assert result.shape == expected.shape, name
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-6, err_msg=name)
