"""Plain modules as people write them, in the manner of the older converters' own tests: every one of them translates.

Networks in miniature and layers by themselves. Their forward() says the batch size in every way there is, most often as
a number, `x.view(int(x.size(0)), -1)`, which PyTorch's traces hold as a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import multitl
from multitl.adapters import load_backend
from multitl.errors import TranslationError

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

MAP = (3, 16, 20)


class Doing(nn.Module):
    """`function` of what `body` makes of the inputs."""

    def __init__(self, function: Callable[..., Any], *body: nn.Module) -> None:
        super().__init__()
        self.function, self.body = function, nn.Sequential(*body)

    def forward(self, *inputs):
        return self.function(*(self.body(x) for x in inputs))


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, **options) -> nn.Sequential:
    """Convolution, normalisation, ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = conv(inputs, outputs, 3, stride), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x):
        y = self.norm(self.second(self.first(x)))
        y += x if self.shortcut is None else self.shortcut(x)
        return self.relu(y)


class Classifier(nn.Module):
    """Features, a pooling and a dense layer, with the batch size as `flat` says it."""

    def __init__(self, features: nn.Module, channels: int, flat: Callable[[Any], Any]) -> None:
        super().__init__()
        self.features, self.pool, self.flat = features, nn.AdaptiveAvgPool2d((2, 2)), flat
        self.fc = nn.Linear(4 * channels, 5)

    def forward(self, x):
        return self.fc(self.flat(self.pool(self.features(x))))


class Branches(nn.Module):
    """Inception: branches side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, growth, 3, padding=1))

    def forward(self, x):
        return torch.cat((x, self.layer(x)), 1)


class Gate(nn.Module):
    """Squeeze and excitation, with the batch size from len()."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(channels, 2), nn.ReLU(), nn.Linear(2, channels), nn.Sigmoid())

    def forward(self, x):
        y = F.avg_pool2d(x, x.shape[2:]).view(len(x), x.shape[1])
        return x * self.gate(y).view(len(x), x.shape[1], 1, 1)


class Fire(nn.Module):
    """SqueezeNet's."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, 4, 1)
        self.one, self.three = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


class Transformer(nn.Module):
    """Class token and positions for a batch whose size is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.rand(1, 1, 8))
        self.positions = nn.Parameter(torch.rand(21, 8))
        self.encoder, self.head = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 5)

    def forward(self, x):
        count = int(x.shape[0])
        x = self.patch(x).view(count, 8, 20).transpose(1, 2)
        x = torch.cat([self.token.repeat(count, 1, 1), x], 1) + self.positions.expand(count, 21, 8)
        return self.head(self.encoder(x)[:, 0])


def shuffled(x, groups: int = 3):
    """ShuffleNet's channels."""
    count, channels, height, width = map(int, x.size())
    x = x.view(count, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(count, channels, height, width)


def flat(x):
    return x.view(int(x.size(0)), -1)


BACKBONES: dict[str, Callable[[], tuple[nn.Module, int]]] = {
    "resnet": lambda: (nn.Sequential(conv(3, 6, 7, 2), nn.MaxPool2d(3, 2, 1), Residual(6, 6, 1), Residual(6, 8, 2)), 8),
    "resnet before its activations": lambda: (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), Residual(3, 8, 2)), 8),
    "alexnet": lambda: (nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.ReLU(True), nn.MaxPool2d(3, 2), nn.Dropout()), 8),
    "vgg": lambda: (nn.Sequential(conv(3, 6), conv(6, 6), nn.MaxPool2d(2, 2), conv(6, 8)), 8),
    "squeezenet": lambda: (nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(6)), 12),
    "densenet": lambda: (nn.Sequential(DenseLayer(3, 4), DenseLayer(7, 4), nn.Conv2d(11, 6, 1), nn.AvgPool2d(2, 2)), 6),
    "inception": lambda: (Branches(conv(3, 4, 1), conv(3, 4, 5), nn.MaxPool2d(3, 1, 1)), 11),
    "mobilenet": lambda: (nn.Sequential(conv(3, 8, 3, 2), conv(8, 8, 3, 1, groups=8), conv(8, 6, 1)), 6),
    "senet": lambda: (nn.Sequential(conv(3, 8), Gate(8)), 8),
    "shufflenet": lambda: (nn.Sequential(conv(3, 9), Doing(shuffled), conv(9, 6, 1, groups=3)), 6),
    "dilated resnet": lambda: (nn.Sequential(nn.Conv2d(3, 6, 3, 1, 2, 2), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 4, 4)), 6),
}  # fmt: skip
FLATTENED: dict[str, Callable[[Any], Any]] = {
    "int of size": flat,
    "a list of ints": lambda x: x.view([int(x.size(0)), int(x.size(1)) * 4]),
    "len": lambda x: x.reshape(len(x), -1),
    "size": lambda x: x.view(x.size()[0], -1),
    "every size a number": lambda x: x.reshape(*map(int, (x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]))),
    "folded in": lambda x: x.reshape(int(x.size(0)) * int(x.size(1)), 4).reshape(int(x.size(0)), -1),
    "mean beside": lambda x: flat(x) * torch.ones(int(x.size(0)), 1),
}
MODULES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    **{
        f"{name}, {way}": (lambda make=make, function=function: Classifier(*make(), function), MAP)
        for (name, make), (way, function) in zip(BACKBONES.items(), [*FLATTENED.items()] * 2, strict=False)
    },
    **{
        f"{way} by itself": (lambda function=function: Classifier(conv(3, 4), 4, function), MAP)
        for way, function in FLATTENED.items()
    },
    "vision transformer": (Transformer, MAP),
    "channel shuffle": (lambda: Doing(shuffled, nn.Conv2d(3, 6, 3)), MAP),
    "class map": (lambda: Doing(lambda x: x.view([int(x.size(0)), 5]), conv(3, 5), nn.AdaptiveAvgPool2d(1)), MAP),
    "zeros beside": (lambda: Doing(lambda x: torch.cat([x, torch.zeros(len(x), 2, 16, 20)], 1), conv(3, 4)), MAP),
    "global pool by its size": (lambda: Doing(lambda x: flat(F.max_pool2d(x, x.size()[2:])), conv(3, 4)), MAP),
    "an activation by itself": (lambda: nn.LeakyReLU(0.1), MAP),
    "softmax of vectors": (lambda: nn.Softmax(dim=-1), (7,)),
    "dense": (lambda: nn.Sequential(nn.Linear(7, 4), nn.Tanh(), nn.Linear(4, 3, bias=False)), (7,)),
    "dense, times a number": (lambda: Doing(lambda x: x * 2.0 + 1, nn.Linear(7, 4)), (7,)),
    "conv1d": (lambda: Doing(flat, nn.Conv1d(3, 6, 3, 2, 1, groups=3), nn.ReLU()), (3, 20)),
    "conv of groups": (lambda: nn.Conv2d(4, 8, 3, groups=2), (4, 9, 8)),
    "transposed conv": (lambda: nn.ConvTranspose2d(3, 5, 3, 2, 1, 1), MAP),
    "resize": (lambda: nn.UpsamplingNearest2d(scale_factor=2), MAP),
    "resize, bilinear": (lambda: nn.UpsamplingBilinear2d(scale_factor=3), MAP),
    "sum over space": (lambda: Doing(lambda x: x.sum(3).sum(2).view(len(x), -1), conv(3, 4)), MAP),
    "slices": (lambda: Doing(lambda x: x[:, :2, 1::2] - x[:, 2:, 1::2], conv(3, 4)), MAP),
    "clip": (lambda: Doing(lambda x: torch.clamp(x, 0.1, 0.5), conv(3, 4)), MAP),
    "a feature map": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), MAP),
    "a sum of inputs": (lambda: Doing(lambda *maps: sum(maps), conv(3, 4)), (MAP, MAP, MAP)),
    "a product of inputs": (lambda: Doing(lambda a, b: a * b, nn.Linear(7, 4)), ((7,), (7,))),
    "inputs side by side": (lambda: Doing(lambda a, b: torch.cat([flat(a), flat(b)], 1), conv(3, 4)), (MAP, MAP)),
    "inputs one over the other": (lambda: Doing(lambda a, b: a / (b.abs() + 1), nn.ReLU()), (MAP, (3, 1, 1))),
    "embedding": (lambda: nn.Embedding(30, 5), (torch.int64, 6)),
    "embedding, pooled": (lambda: Doing(lambda x: x.mean(1), nn.Embedding(30, 5)), (torch.int64, 6)),
    "lstm": (lambda: Doing(lambda y: y[0][:, -1], nn.LSTM(7, 4, batch_first=True)), (5, 7)),
    "gru": (lambda: Doing(lambda y: y[1].squeeze(0), nn.GRU(7, 4, batch_first=True)), (5, 7)),
    "instance norm": (lambda: nn.InstanceNorm2d(3, affine=True), MAP),
    "weight norm": (lambda: Doing(flat, nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))), MAP),
    "replication padding": (lambda: nn.ReplicationPad2d((1, 2, 0, 3)), MAP),
    "conv3d": (lambda: Doing(flat, nn.Conv3d(2, 3, 3), nn.MaxPool3d(2)), (2, 5, 6, 7)),
}  # fmt: skip


def made(name: str) -> nn.Module:
    """With weights and statistics that all matter."""
    torch.manual_seed(0)
    module = MODULES[name][0]().eval()
    with torch.no_grad():
        for key, buffer in module.named_buffers():
            if "running" in key:
                buffer.uniform_(0.5, 2)
    return module


def drawn(count: int, shapes: Any) -> list[np.ndarray]:
    """An input of each shape, channels first; whole numbers below 30 where a type comes first in it."""
    random = np.random.default_rng(count)
    return [
        random.normal(size=(count, *shape)).astype("float32")
        if isinstance(shape[0], int)
        else random.integers(0, 30, (count, *shape[1:]))
        for shape in (shapes if isinstance(shapes[0], tuple) else [shapes])
    ]


def last(array: np.ndarray) -> np.ndarray:
    """Channels last, of what has them second."""
    return np.moveaxis(array, 1, -1) if array.ndim > 2 and array.dtype == "float32" else array


@pytest.mark.every_backend
@pytest.mark.parametrize("name", MODULES)
def test_plain_modules_translate(name: str) -> None:
    """For any number of images: from_torch itself compares with four."""
    module, shapes = made(name), MODULES[name][1]
    model = multitl.from_torch(module, tuple(map(torch.from_numpy, drawn(1, shapes))))
    for count in (1, 3, 6):
        inputs = drawn(count, shapes)
        with torch.no_grad():
            wanted = module(*map(torch.from_numpy, inputs)).numpy()
        given = [*map(last, inputs)]
        with load_backend().full_precision():
            found = keras.ops.convert_to_numpy(model(given if len(given) > 1 else given[0], training=False))
        is_map = wanted.ndim > 2 and "embedding" not in name
        np.testing.assert_allclose(found, last(wanted) if is_map else wanted, atol=1e-4, err_msg=f"{count} images")


@pytest.mark.parametrize(
    ("function", "received"),
    [
        (lambda x: x / int(x.shape[0]), "div.Tensor with the number of images as its other"),
        (lambda x: torch.stack([image * 2 for image in x[: len(x)]]), "operations for 3 images, 15 for 5"),
        (lambda x: x.reshape(3, -1) * torch.ones(3, 1), "has not the batch as one of its axes"),
        (lambda x: x.reshape(int(x.shape[0]), -1)[:, : int(x.shape[0]) ** 2], "with 9 for 3 images, with 25 for 5"),
    ],
)
def test_what_is_no_multiple_of_the_batch_is_refused(function, received: str) -> None:
    with pytest.raises(TranslationError, match="one batch size only") as caught:
        multitl.from_torch(Doing(function), torch.zeros(1, *MAP))
    assert received in caught.value.received
