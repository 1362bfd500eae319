"""Each fast path survives the loss of what it replaces: Keras is edited as a later release might be.

The same network then gives the same answers, by Keras' own ways, and doctor says which path is off.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import keras
import numpy as np
import pytest

from multitl.doctor import probe

pytestmark = pytest.mark.every_backend

CHANGED_KERAS = Path(__file__).resolve().parents[1] / "changed_keras"
BACKEND = keras.config.backend()
Edits = list[tuple[str, str, str]]


def renamed(function: str) -> Edits:
    """A function of Keras' backend, and where keras.ops calls it."""
    return [
        (f"backend/{BACKEND}/nn.py", rf"def {function}\(", f"def new_{function}("),
        ("ops/nn.py", rf"backend\.nn\.{function}\(", f"backend.nn.new_{function}("),
    ]


def taking_more(place: str, function: str, arguments: str) -> Edits:
    """A method with an argument that it does not have today."""
    return [(place, rf"def {function}\({arguments}\)", f"def {function}({arguments}, more=None)")]


NORM = taking_more("layers/normalization/batch_normalization.py", "call", "self, inputs, training=None, mask=None")
MOMENTS = [(r"(.*/)?(torch_)?adam\.py", r"\b_momentums\b", "_firsts")]
DRAWN = "self, shape, dtype=None"

# By fast path: every function it needs, as edits that take it away and what is said of it then.
Loss = tuple[Edits, str]
FIRST_WEIGHTS: list[Loss] = [
    (
        taking_more("initializers/constant_initializers.py", "__call__", DRAWN),
        "first weights by NumPy: keras.initializers:Zeros.__call__ takes other arguments",
    ),
    (
        taking_more("initializers/random_initializers.py", "__call__", DRAWN),
        "first weights by NumPy: keras.initializers:VarianceScaling.__call__ takes other arguments",
    ),
]
NO_MOMENTS = (MOMENTS, "fused Adam: 'Adam' object has no attribute '_momentums'")
PATHS: dict[str, list[list[Loss]]] = {
    "jax": [
        FIRST_WEIGHTS,
        [(renamed("depthwise_conv"), "depthwise convolution on CPU: keras.src.backend.jax.nn:depthwise_conv is gone")],
    ],
    "tensorflow": [
        FIRST_WEIGHTS,
        [
            (renamed("batch_normalization"), "fused batch normalisation: keras.src.backend.tensorflow.nn:batch_norm"),
            (NORM, "fused batch normalisation: keras.layers:BatchNormalization.call takes"),
        ],
        [
            (
                taking_more("optimizers/adam.py", "update_step", "self, gradient, variable, learning_rate"),
                "fused Adam: keras.optimizers:Adam.update_step takes",
            ),
            NO_MOMENTS,
        ],
    ],
    "torch": [
        FIRST_WEIGHTS,
        [
            (
                [("backend/torch/nn.py", r"\b_transpose_spatial_inputs\b", "_turned")],
                "channels last: keras.src.backend.torch.nn:_transpose_spatial_inputs is gone",
            ),
            (
                [("backend/torch/nn.py", r"\b_transpose_conv_kernel\b", "_turned")],
                "channels last: keras.src.backend.torch.nn:_transpose_conv_kernel is gone",
            ),
            (renamed("batch_normalization"), "channels last: keras.src.backend.torch.nn:batch_normalization is gone"),
            (NORM, "channels last: keras.layers:BatchNormalization.call takes"),
            (
                taking_more("layers/convolutional/base_conv.py", "call", "self, inputs"),
                "channels last: keras.layers:Conv2D.call takes",
            ),
        ],
        [
            (
                [(r"backend/torch/optimizers/torch_(adam|parallel_optimizer)\.py", "_parallel_update_step", "_step")],
                "fused Adam: keras.src.backend.torch.optimizers.torch_adam:Adam._parallel_update_step is gone",
            ),
            NO_MOMENTS,
        ],
    ],
}
# One process for a loss of each path: paths know nothing of each other, and processes take seconds to start.
RUNS = [[loss for loss in losses if loss] for losses in zip_longest(*PATHS[BACKEND])]


def environment(edits: Edits) -> dict[str, str]:
    paths = [str(CHANGED_KERAS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "MULTITL_KERAS_EDITS": json.dumps(edits)}


def fit(edits: Edits) -> dict:
    command = [sys.executable, str(CHANGED_KERAS / "fit.py")]
    done = subprocess.run(command, env=os.environ | environment(edits), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def unchanged() -> dict:
    """With the Keras that is installed, all paths open."""
    found = fit([])
    assert found["missing"] == []
    return found


@pytest.mark.parametrize("losses", RUNS)
def test_the_same_comes_out_without_it(unchanged: dict, losses: list[Loss]):
    found = fit([edit for edits, _ in losses for edit in edits])
    for _, line in losses:
        assert any(missing.startswith(line) for missing in found["missing"]), found["missing"]
    assert {path_of(missing) for missing in found["missing"]} == {path_of(line) for _, line in losses}
    np.testing.assert_allclose(found["losses"], unchanged["losses"], rtol=1e-4)
    largest = np.abs(unchanged["answers"]).max()
    np.testing.assert_allclose(found["answers"], unchanged["answers"], rtol=1e-3, atol=1e-3 * largest)


def path_of(line: str) -> str:
    return line.partition(":")[0]


def test_doctor_says_so(monkeypatch: pytest.MonkeyPatch):
    edits, line = PATHS[BACKEND][1][0]
    for name, value in environment(edits).items():
        monkeypatch.setenv(name, value)
    found = probe.probe(BACKEND)
    assert found.works, found.error
    assert [missing for missing in found.missing if missing.startswith(line)] == list(found.missing) != []
