"""`multitl.from_torch`: anybody's own network as a Keras model that trains."""

from __future__ import annotations

import copy
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
        (nn.ReLU(), (EXAMPLE, None), "NoneType"),
        (nn.ReLU(), (), "ReLU"),
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


def computed(model: keras.Model, *inputs: np.ndarray) -> list[np.ndarray]:
    outputs = model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
    return [keras.ops.convert_to_numpy(one) for one in keras.tree.flatten(outputs)]


def photos(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 16, 20, 3)).astype("float32")


def channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


# --- wrapped modules ---


WRAPPED = {
    "DataParallel": (nn.DataParallel, torch.float32),
    "compiled": (torch.compile, torch.float32),
    "DataParallel of compiled": (lambda net: nn.DataParallel(torch.compile(net)), torch.float32),
    "compiled in the middle": (lambda net: nn.Sequential(nn.Identity(), torch.compile(net)), torch.float32),
    "DataParallel in the middle": (lambda net: nn.Sequential(nn.DataParallel(net), nn.Identity()), torch.float32),
    "an average of weights": (torch.optim.swa_utils.AveragedModel, torch.float32),
    "double": (nn.Module.double, torch.float64),
    "half": (nn.Module.half, torch.float16),
    "bfloat16": (nn.Module.bfloat16, torch.bfloat16),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # of torch.compile itself
@pytest.mark.parametrize("name", WRAPPED)
def test_what_is_wrapped_or_of_another_precision_is_translated_in_float32(net: Net, name: str):
    wrap, dtype = WRAPPED[name]
    plain = copy.deepcopy(net).to(dtype).float().eval()
    wrapped = wrap(net)
    before = {name: (tensor.dtype, tensor.clone()) for name, tensor in wrapped.state_dict().items()}
    model = multitl.from_torch(wrapped, EXAMPLE.to(dtype))
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert "stem-0" in {layer.name.removeprefix("1-").removeprefix("0-") for layer in model.layers}
    with torch.no_grad():
        wanted = plain(channels_first(photos(3))).numpy()
    np.testing.assert_allclose(computed(model, photos(3))[0], wanted, atol=1e-5)
    for name, tensor in wrapped.state_dict().items():
        assert tensor.dtype == before[name][0] and torch.equal(tensor, before[name][1]), "the module is left as it was"


def test_a_norm_of_old_whose_weight_was_computed_is_copied():
    with pytest.warns(FutureWarning):
        conv = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
    conv(EXAMPLE)
    assert multitl.from_torch(conv.half(), EXAMPLE).output_shape == (None, 14, 18, 4)


# --- several inputs ---


class Fused(nn.Module):
    """A photo, a second one and words about them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.words, self.head = nn.Conv2d(3, 8, 3), nn.Embedding(12, 8), nn.Linear(8, 5)

    def forward(self, photo, other, words):
        seen = self.conv(photo).mean((2, 3)) - self.conv(other).amax((2, 3))
        return self.head(seen.view(int(photo.shape[0]), 8) + self.words(words.long()).mean(1))


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_several_inputs_and_words(tmp_path: Path, dtype: torch.dtype):
    torch.manual_seed(0)
    net = Fused().eval()
    model = multitl.from_torch(net, (EXAMPLE, EXAMPLE, torch.zeros(1, 4, dtype=dtype)))
    assert [(one.name, one.shape, one.dtype) for one in model.inputs] == [
        ("photo", (None, 16, 20, 3), "float32"), ("other", (None, 16, 20, 3), "float32"), ("words", (None, 4), "int32")
    ]  # fmt: skip
    words = np.random.default_rng(0).integers(0, 12, (5, 4), "int32")
    with torch.no_grad():
        inputs = channels_first(photos(5)), channels_first(photos(5, 1)), torch.from_numpy(words)
        wanted = net(*inputs).numpy()
    np.testing.assert_allclose(computed(model, photos(5), photos(5, 1), words)[0], wanted, atol=1e-5)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(computed(again, photos(5), photos(5, 1), words)[0], wanted, atol=1e-5)


def test_whole_numbers_that_are_computed_with_are_refused():
    class Scaled(nn.Module):
        def forward(self, x, numbers):
            return x * numbers[:, None, None]

    with pytest.raises(TranslationError, match="input numbers of whole numbers") as caught:
        multitl.from_torch(Scaled(), (EXAMPLE, torch.ones(1, 20, dtype=torch.int64)))
    assert "nn.Embedding" in caught.value.expected and "slice.Tensor" in caught.value.received


# --- layouts ---


class Outputs(nn.Module):
    """A map, the same as the module arranges it, tokens and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.line = nn.Conv2d(3, 8, 3), nn.Conv1d(3, 4, 3)

    def forward(self, x):
        y = self.conv(x).relu()
        return y, y.permute(0, 2, 3, 1), y.flatten(2).transpose(1, 2), y.mean((2, 3)), self.line(x.flatten(2))


@pytest.mark.every_backend
def test_feature_maps_come_out_channels_last():
    torch.manual_seed(0)
    net = Outputs().eval()
    with torch.no_grad():
        feature_map, arranged, tokens, vector, line = (one.numpy() for one in net(channels_first(photos(2))))
    wanted = [feature_map.transpose(0, 2, 3, 1), arranged, tokens, vector, line.transpose(0, 2, 1)]
    model = multitl.from_torch(net, EXAMPLE)
    assert [one.shape for one in model.outputs] == [
        (None, 14, 18, 8), (None, 14, 18, 8), (None, 252, 8), (None, 8), (None, 318, 4)
    ]  # fmt: skip
    for found, one in zip(computed(model, photos(2)), wanted, strict=True):
        np.testing.assert_allclose(found, one, atol=1e-5)


def test_a_keras_user_pools_the_right_axes():
    model = multitl.from_torch(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), torch.zeros(1, 3, 32, 32))
    assert model.output_shape == (None, 30, 30, 8)
    assert keras.layers.GlobalAveragePooling2D()(model.output).shape == (None, 8)


def test_an_example_that_does_not_fit_the_module(net: Net):
    with pytest.raises(TranslationError, match="cannot be traced") as caught:
        multitl.from_torch(net, torch.zeros(1, 4, 16, 16))
    assert "4 channels" in caught.value.received


def test_without_torch_the_pip_line_is_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(adapters, "is_installed", lambda name: name != "torch")
    with pytest.raises(BackendError, match=r"pip install 'multitl\[torch\]'"):
        adapters.translate_module("torch", None, None)


@pytest.mark.slow
def test_it_lives_beside_tensorflow(tmp_path: Path):
    """Triton, where it is installed, would end the process; here it is a package that does just that."""
    pytest.importorskip("tensorflow")
    (tmp_path / "triton.py").write_text("import os; os._exit(86)")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, "-c", BESIDE_TENSORFLOW]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["alive False"]), ended.stderr[-500:]
