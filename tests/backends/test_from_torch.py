"""`multitl.from_torch`: anybody's own network as a Keras model that trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import multitl
from multitl import adapters
from multitl.errors import BackendError, TranslationError

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

EXAMPLE = torch.zeros(1, 3, 16, 20)
BESIDE_TENSORFLOW = """
import sys, tensorflow, torch, multitl
multitl.from_torch(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), torch.zeros(1, 3, 16, 20))
print("alive", "triton" in sys.modules)
"""


class Net(nn.Module):
    """Strided convolutions with batch normalisation, a squeeze-excitation gate and a head: not of any library."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.gate = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        return self.head(y.mean((2, 3)))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.mark.every_backend
def test_it_computes_the_same_and_trains(net: Net):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    model = multitl.from_torch(net, EXAMPLE)
    assert net.training, "the module's mode is left as it was"
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())

    images = np.random.default_rng(0).normal(size=(7, 16, 20, 3)).astype("float32")
    with torch.no_grad():
        wanted = net.eval()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(images, training=False)), wanted, atol=1e-5)

    labels = np.eye(5, dtype="float32")[[0, 1, 2, 3, 4, 0, 1]]
    model.compile(keras.optimizers.Adam(0.1), keras.losses.CategoricalCrossentropy(from_logits=True))
    losses = [float(model.train_on_batch(images, labels)) for _ in range(30)]
    assert losses[-1] < losses[0] / 2


def test_only_stock_layers(net: Net, tmp_path):
    model = multitl.from_torch(net, EXAMPLE)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)  # no custom objects
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


class Sorted(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.fft.fft2(x).real + torch.special.i0(x))


def test_what_is_missing_is_listed_whole():
    with pytest.raises(TranslationError) as caught:
        multitl.from_torch(Sorted(), EXAMPLE)
    assert {"fft_fft2.default", "special_i0.default"} <= set(caught.value.missing)


@pytest.mark.parametrize(
    ("module", "example", "received"),
    [
        ("resnet50", EXAMPLE, "str, Tensor"),
        (nn.ReLU(), np.zeros((1, 3, 8, 8)), "ReLU, ndarray"),
        (nn.ReLU(), torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "torch.uint8"),
        (nn.ReLU(), torch.zeros(8), r"(8,)"),
        (nn.ReLU(), torch.zeros(0, 3, 8, 8), r"(0, 3, 8, 8)"),
    ],
)
def test_other_arguments_are_refused(module, example, received: str):
    with pytest.raises(TranslationError, match="from_torch takes") as caught:
        multitl.from_torch(module, example)
    assert received in caught.value.received


def test_an_example_that_does_not_fit_the_module(net: Net):
    with pytest.raises(TranslationError, match="cannot be traced") as caught:
        multitl.from_torch(net, torch.zeros(1, 4, 16, 16))
    assert "4 channels" in caught.value.received


def test_without_torch_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(adapters, "is_installed", lambda name: name != "torch")
    with pytest.raises(BackendError, match=r"pip install 'multitl\[torch\]'"):
        adapters.translate_module("torch", None, None)


def test_it_lives_beside_tensorflow(tmp_path: Path):
    """Triton, where it is installed, would end the process; here it is a package that does just that."""
    pytest.importorskip("tensorflow")
    (tmp_path / "triton.py").write_text("import os; os._exit(86)")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-c", BESIDE_TENSORFLOW]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["alive False"]), ended.stderr[-500:]
