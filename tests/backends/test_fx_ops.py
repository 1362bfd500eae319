"""Every op of the translator against PyTorch, by its numbers.

Each case is a small module whose ops come after a convolution, so that maps lie channels-last, on maps that are not
square. The table must hit every op: a new one needs a line here.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from conftest import elsewhere_slow

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from multitl_torch.fx import OPS, translate  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations as P  # noqa: E402, N812

from multitl.adapters import load_backend  # noqa: E402
from multitl.contracts import Translation  # noqa: E402
from multitl.models.saved_configs import check_config  # noqa: E402
from multitl.translation.op_tables import OpTable  # noqa: E402

aten = torch.ops.aten
SCALE = (3,) if torch.__version__ >= (2, 9) else ()  # of a scalar; PyTorch itself traces one since 2.9
IMAGE = (3, 7, 10)
CHANNELS = 6


class On(nn.Module):
    """A convolution, and then each of `parts`, functions or modules, of the map (n, 6, h, w)."""

    def __init__(self, *parts: Callable[[torch.Tensor], torch.Tensor], stem: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = stem or nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.modules_of_parts = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))
        self.parts = parts

    def forward(self, x):
        y = self.stem(x)
        return [part(y) for part in self.parts]


class Tokens(On):
    """As `On`, but each part gets the map as tokens (n, h * w, 6)."""

    def forward(self, x):
        y = self.stem(x).flatten(2).transpose(1, 2)
        return [part(y) for part in self.parts]


class Weighted(nn.Module):
    """`function(x, weight)` with a parameter of the given shape."""

    def __init__(self, function, *shape: int) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.empty(shape))

    def forward(self, x):
        return self.function(x, self.weight)


class Known(Weighted):
    """`function(x, tensor)` with a tensor that is no weight."""

    def __init__(self, function, tensor: torch.Tensor) -> None:
        nn.Module.__init__(self)
        self.function = function
        self.register_buffer("weight", tensor, persistent=False)


class Permuted(nn.Module):
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x):
        return x.permute(self.axes)


class InPlace(nn.Module):
    """`function` of a copy, which it changes."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        y = x.clone()
        self.function(y)
        return y


class SelfAttention(nn.Module):
    def __init__(self, batch_first: bool, **options) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 3, batch_first=batch_first, **options)
        self.batch_first = batch_first

    def forward(self, x):
        if self.batch_first:
            return self.attention(x, x, x, need_weights=False)[0]
        x = x.transpose(0, 1)
        y, weights = self.attention(x, x + 1, x)
        return y.transpose(0, 1), weights


class Windows(nn.Module):
    """Swin's: roll, cut into windows of 2 x 5, and back."""

    def forward(self, x):
        n, c, h, w = x.shape
        x = torch.roll(F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 0, 0, 1)), (-1, -2), (1, 2))
        x = x.view(n, (h + 1) // 2, 2, w // 5, 5, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 10, c)
        x = x - x.mean(1, keepdim=True)
        x = x.view(n, (h + 1) // 2, w // 5, 2, 5, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h + 1, w, c)
        return torch.roll(x, (1, 2), (1, 2))[:, :h].permute(0, 3, 1, 2)


class Standardised(nn.Conv2d):
    """Weight standardisation: the kernel is computed."""

    def forward(self, x):
        w = self.weight
        w = F.batch_norm(w.reshape(1, len(w), -1), None, None, training=True, eps=1e-4).reshape_as(w)
        return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ClassToken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Parameter(torch.empty(1, 1, 6)), nn.Parameter(torch.empty(1, 71, 6))

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return x[:, 0], x[:, 1:]


class Gem(nn.Module):
    """Pooling by a generalised mean, whose exponent trains."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.empty(1))

    def forward(self, x):
        return F.avg_pool2d(x.clamp(min=1e-6).pow(self.p), x.shape[2:]).pow(1.0 / self.p)


class Recurrent(nn.Module):
    """A recurrent network's outputs and last states, of (n, steps, c)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        y, states = self.network(x if self.network.batch_first else x.transpose(0, 1))
        last = [state.transpose(0, 1) for state in (states if isinstance(states, tuple) else [states])]
        return y if self.network.batch_first else y.transpose(0, 1), *last


class Rows(nn.Module):
    """Each row of a map is a sequence, as Sequencer and ReNet have it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.LSTM(6, 4, batch_first=True, bidirectional=True)

    def forward(self, x):
        n, c, h, w = x.shape
        y, _ = self.network(x.permute(0, 2, 3, 1).reshape(n * h, w, c))
        return y.reshape(n, h, w, 8).permute(0, 3, 1, 2)


class Transformed(nn.Module):
    """A spatial transformer: the image says by how much it is turned, moved and enlarged."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.options, self.place = options, nn.Linear(6, 6)

    def forward(self, x):
        theta = torch.tanh(self.place(x.mean((2, 3)))).view(-1, 2, 3) * 1.7
        grid = F.affine_grid(theta, [x.shape[0], 6, 5, 8], self.options["align_corners"])
        return F.grid_sample(x, grid, **self.options)


class Embedded(nn.Module):
    """`function(x, table)` with an embedding of 70 rows of 6."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.table = function, nn.Embedding(70, 6)

    def forward(self, x):
        return self.function(x, self.table)


def old_weight_norm(layer: nn.Module) -> nn.Module:
    """Of before parametrisations; PyTorch warns of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


def conv(*arguments, **options) -> nn.Conv2d:
    return nn.Conv2d(*arguments, **options)


def attended(**options):
    """Attention of the map with itself, (n, 2 heads, 3 * 7 tokens, 10 channels)."""

    def attend(x, mask=None):
        q = x.reshape(x.shape[0], 2, 21, 10)
        return F.scaled_dot_product_attention(q, q.flip(2), q + 1, attn_mask=mask, **options)

    return attend


def write_rows(y):
    y[:, :, 2:5] = 2.0


def write_part(y):
    y[:, 1:4, :, 3:] += 1


def zero_part(y):
    y[:, :, :1].zero_()


MASK = torch.arange(21 * 21).reshape(21, 21) % 3 > 0
MAP_MASK = torch.arange(70).reshape(7, 10) % 3 > 0
POSITIVE = (torch.log, torch.sqrt, torch.rsqrt, torch.reciprocal, torch.log1p, torch.log2)
PLACES = torch.linspace(-1.2, 1.2, 48).reshape(1, 4, 6, 2)
INDEX = torch.tensor([[3, 0, 2], [5, 5, 1]])


class StochasticDepth(nn.Module):
    """torchvision's, by its name and attributes."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p, self.mode = p, mode

    def forward(self, x):
        if not self.training:
            return x
        size = [len(x) if self.mode == "row" else 1, *[1] * (x.ndim - 1)]
        return x * torch.empty(size).bernoulli_(1 - self.p) / (1 - self.p)


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    image: tuple[int, ...] = IMAGE


# Lambdas are spelt out although some could be methods: this is the table to look things up in.
CASES: dict[str, Case] = {
    # convolutions
    "conv": Case(lambda: On(conv(6, 5, 3), conv(6, 5, 1, bias=False), conv(6, 4, 3, padding=1), conv(6, 4, 3, 2, 1))),
    "conv of several groups": Case(lambda: On(conv(6, 8, 3, groups=2), conv(6, 9, 3, 2, 1, groups=3, bias=False))),
    "depthwise conv": Case(lambda: On(conv(6, 6, 3, 1, 1, groups=6), conv(6, 6, 5, 2, 2, groups=6, bias=False))),
    "depthwise conv with several filters": Case(
        lambda: On(conv(6, 12, 3, padding=1, groups=6), conv(6, 18, 2, groups=6))
    ),
    "depthwise conv with two strides": Case(
        lambda: On(conv(6, 6, 3, (2, 1), 1, groups=6), conv(6, 12, 3, (1, 3), groups=6))
    ),
    "dilated conv": Case(lambda: On(conv(6, 4, 3, dilation=2), conv(6, 4, 3, padding=(2, 3), dilation=(2, 3)))),
    "dilated depthwise conv": Case(
        lambda: On(conv(6, 6, 3, padding=2, dilation=2, groups=6), conv(6, 6, 3, dilation=(1, 3), groups=6))
    ),
    "dilated and strided conv": Case(
        lambda: On(
            conv(6, 4, 3, 2, 2, dilation=2),
            conv(6, 4, 3, (1, 2), 1, dilation=(3, 2)),
            conv(6, 6, 3, 2, 2, dilation=2, groups=6),
        )
    ),
    "conv with unequal sides": Case(
        lambda: On(conv(6, 4, (1, 7), padding=(0, 3)), conv(6, 4, (5, 3), (2, 3), (1, 2)), conv(6, 4, (3, 1), (1, 2)))
    ),
    "conv padded to the same size": Case(
        lambda: On(
            conv(6, 4, 3, padding="same"),
            conv(6, 4, (2, 4), padding="same"),
            conv(6, 4, 4, padding="same", dilation=3),
            conv(6, 6, 2, padding="same", groups=6),
            conv(6, 4, 2, padding="valid"),
        )
    ),
    "conv over one axis": Case(
        lambda: Tokens(
            nn.Sequential(Weighted(lambda x, w: x.transpose(1, 2) * w, 1), nn.Conv1d(6, 4, 3, 2, 1)),
            lambda x: x.transpose(1, 2),
            nn.Conv1d(70, 10, 5, padding=2, groups=5),
            nn.Conv1d(70, 70, 3, padding=2, dilation=2, groups=70, bias=False),
            nn.Conv1d(70, 8, 2, padding="same"),
        )
    ),
    "transposed conv": Case(
        lambda: On(
            nn.ConvTranspose2d(6, 4, 3),
            nn.ConvTranspose2d(6, 4, 4, 2, 1, bias=False),
            nn.ConvTranspose2d(6, 4, 2, 3),
            nn.ConvTranspose2d(6, 4, (3, 2), (2, 1), (1, 0), (1, 0)),
            nn.ConvTranspose2d(6, 4, 1, 3, 0, 2),
        )
    ),
    "transposed conv with groups or dilation": Case(
        lambda: On(
            nn.ConvTranspose2d(6, 6, 4, 2, 1, groups=6),
            nn.ConvTranspose2d(6, 12, 3, (2, 3), 1, 1, groups=6, bias=False),
            nn.ConvTranspose2d(6, 9, 3, 2, groups=3),
            nn.ConvTranspose2d(6, 4, 3, 2, 2, dilation=2),
            nn.ConvTranspose2d(6, 4, (1, 2), dilation=(1, 3)),
            Weighted(lambda x, w: F.conv_transpose2d(x, w * 2, stride=2), 6, 4, 3, 3),
        )
    ),
    "transposed conv over one axis": Case(
        lambda: Tokens(
            nn.Sequential(nn.ConvTranspose1d(70, 4, 3, 2, 1, 1)), nn.ConvTranspose1d(70, 20, 3, 2, 1, groups=10)
        )
    ),
    "conv with a computed kernel": Case(
        lambda: On(Standardised(6, 5, 3, 2, 1), Standardised(6, 6, (1, 3), groups=3, bias=False, dilation=(1, 2)))
    ),
    "conv with a kernel that is scaled": Case(
        lambda: On(Weighted(lambda x, w: F.conv2d(x, w * 2 + 1, w.sum((1, 2, 3))), 4, 6, 3, 3))
    ),
    # normalisations
    "batch norm": Case(lambda: On(nn.BatchNorm2d(6), nn.BatchNorm2d(6, eps=0.1, affine=False, momentum=0.01))),
    "batch norm of vectors and sequences": Case(
        lambda: On(
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(6)),
            nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(6)),
        )
    ),
    "layer norm": Case(
        lambda: Tokens(nn.LayerNorm(6), nn.LayerNorm(6, eps=0.1, elementwise_affine=False), nn.LayerNorm(6, bias=False))
    ),
    "layer norm over several axes": Case(
        lambda: On(nn.LayerNorm((6, 7, 10)), nn.LayerNorm((7, 10), elementwise_affine=False), nn.LayerNorm(10))
    ),
    "layer norm of channels": Case(
        lambda: On(lambda x: x, nn.Sequential(Permuted(0, 2, 3, 1), nn.LayerNorm(6), Permuted(0, 3, 1, 2)))
    ),
    "layer norm with a computed weight": Case(
        lambda: Tokens(Weighted(lambda x, w: F.layer_norm(x, (6,), w * 2, w + 1, 1e-3), 6))
    ),
    "group norm": Case(lambda: On(nn.GroupNorm(2, 6), nn.GroupNorm(6, 6, eps=0.1), nn.GroupNorm(1, 6, affine=False))),
    "group norm of sequences": Case(lambda: Tokens(nn.GroupNorm(7, 70))),
    "instance norm": Case(
        lambda: On(
            nn.InstanceNorm2d(6),
            nn.InstanceNorm2d(6, affine=True, eps=0.1),
            nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
        )
    ),
    "instance norm of sequences": Case(lambda: Tokens(nn.InstanceNorm1d(70, affine=True))),
    "local response norm": Case(lambda: On(nn.LocalResponseNorm(3, 0.5, 0.75, 2.0), nn.LocalResponseNorm(2))),
    "weight norm and spectral norm": Case(
        lambda: On(
            *(
                normed(layer)
                for normed in (P.weight_norm, P.spectral_norm, old_weight_norm, nn.utils.spectral_norm)
                for layer in (conv(6, 4, 3, groups=2), conv(6, 4, 1, bias=False), nn.Linear(10, 5))
            )
        )
    ),
    "instance norm by hand": Case(
        lambda: On(lambda x: (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True) + 1).sqrt())
    ),
    "rms norm": Case(
        lambda: Tokens(nn.RMSNorm(6), nn.RMSNorm((70, 6), eps=0.1), nn.RMSNorm(6, elementwise_affine=False))
    ),
    # pooling and resizing
    "max pool": Case(
        lambda: On(nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d((1, 3), (2, 1), (0, 1)))
    ),
    "max pool, ceil mode": Case(
        lambda: On(
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.MaxPool2d(2, 2, 1, ceil_mode=True),
            nn.MaxPool2d(2, 3, ceil_mode=True),
        )
    ),
    "max pool, ceil mode drops a window": Case(
        lambda: On(
            nn.MaxPool2d(2, 3, 1, ceil_mode=True),
            nn.MaxPool2d(1, 2, ceil_mode=True),
            nn.MaxPool2d(2, 4, 1, ceil_mode=True),
        )
    ),
    "max pool, with the indices unread": Case(lambda: On(lambda x: F.max_pool2d(x, 3, 2, return_indices=True)[0])),
    "average pool": Case(lambda: On(nn.AvgPool2d(2), nn.AvgPool2d(3, 2), nn.AvgPool2d((2, 3), (1, 2)))),
    "average pool, padding counted": Case(
        lambda: On(nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 1, 1), nn.AvgPool2d((5, 3), 1, (2, 1)))
    ),
    "average pool, padding not counted": Case(
        lambda: On(
            *(nn.AvgPool2d(*sizes, count_include_pad=False) for sizes in ((3, 2, 1), (3, 1, 1), ((4, 2), 3, (2, 1))))
        )
    ),
    "average pool, ceil mode": Case(
        lambda: On(
            *(
                nn.AvgPool2d(*sizes, ceil_mode=True, count_include_pad=counted)
                for sizes in ((2, 2), (3, 2, 1), (2, 3, 1))
                for counted in (True, False)
            )
        )
    ),
    "average pool, own divisor": Case(
        lambda: On(
            nn.AvgPool2d(3, 2, 1, divisor_override=4),
            nn.AvgPool2d(2, ceil_mode=True, divisor_override=1, count_include_pad=False),
        )
    ),
    "adaptive average pool": Case(
        lambda: On(*map(nn.AdaptiveAvgPool2d, (1, (7, 10), (7, 5), 3, (4, 7), (None, 2), (1, None), (9, 13))))
    ),
    "adaptive max pool": Case(lambda: On(*map(nn.AdaptiveMaxPool2d, (1, (7, 5), (1, 2))))),
    "adaptive average pool over one axis": Case(
        lambda: Tokens(*map(nn.AdaptiveAvgPool1d, (1, 3, 4)), lambda x: F.adaptive_avg_pool1d(x.transpose(1, 2), 1))
    ),
    "pool over one axis": Case(
        lambda: Tokens(
            nn.AvgPool1d(2),
            nn.AvgPool1d(3, 2, 1, ceil_mode=True, count_include_pad=False),
            nn.MaxPool1d(2),
            nn.MaxPool1d(3, 2, 1),
            lambda x: F.max_pool1d(x.transpose(1, 2), 4, 3, ceil_mode=True),
        )
    ),
    "windows of a convolution": Case(
        lambda: On(
            nn.Unfold(2),
            nn.Unfold((2, 3), padding=(1, 0), stride=(2, 1)),
            nn.Unfold(3, dilation=(1, 2), padding=2),
            nn.Unfold((7, 5), stride=(7, 5)),
        )
    ),
    "windows put back": Case(
        lambda: On(
            lambda x: F.fold(x.flatten(2)[:, :, :44], (12, 10), (3, 2), stride=(2, 1), padding=(0, 1), dilation=(2, 1)),
            lambda x: F.fold(F.unfold(x, 3, padding=1, stride=2), (7, 10), 3, padding=1, stride=2),
            lambda x: F.fold(F.unfold(x, (7, 2), stride=(7, 2)), (7, 10), (7, 2), stride=(7, 2)),
        )
    ),
    "resize to nearest": Case(
        lambda: On(
            nn.Upsample(scale_factor=2),
            nn.Upsample((21, 10)),
            nn.Upsample((5, 13)),
            nn.Upsample(scale_factor=(1.5, 0.7)),
        )
    ),
    "resize, bilinear": Case(
        lambda: On(
            *(
                nn.Upsample(size, mode="bilinear", align_corners=corners)
                for size in ((14, 20), (5, 13), (1, 3))
                for corners in (True, False)
            )
        )
    ),
    "resize, bicubic": Case(
        lambda: On(
            *(
                nn.Upsample(size, mode="bicubic", align_corners=corners)
                for size in ((14, 20), (5, 13))
                for corners in (True, False)
            )
        )
    ),
    "resize with antialiasing": Case(
        lambda: On(
            *(
                lambda x, mode=mode, corners=corners: F.interpolate(x, (4, 13), None, mode, corners, antialias=True)
                for mode in ("bilinear", "bicubic")
                for corners in (True, False)
            ),
            lambda x: aten._upsample_bilinear2d_aa(x, [3, 4], False),
            lambda x: aten._upsample_bicubic2d_aa(x, [3, 4], False, None, 0.4),
        )
    ),
    "resize over one axis": Case(
        lambda: Tokens(
            lambda x: F.interpolate(x, 4, mode="linear"),
            lambda x: F.interpolate(x.transpose(1, 2), 90, mode="linear", align_corners=True),
            lambda x: F.interpolate(x, scale_factor=2.5, mode="linear"),
            lambda x: aten.upsample_linear1d(x, [4], False),
            Weighted(lambda x, w: x[:, :9] + F.interpolate(w, 6, mode="linear"), 1, 9, 4),
        )
    ),
    "resize by a factor": Case(
        lambda: On(nn.Upsample(scale_factor=1.7, mode="bilinear"), nn.Upsample(scale_factor=0.6, mode="bicubic"))
    ),
    "resize by sizes and factors": Case(
        lambda: On(
            lambda x: aten.upsample_nearest2d(x, [5, 6]),
            lambda x: aten.upsample_nearest2d(x, [14, 20], 2.05, 2.0),
            lambda x: aten.upsample_bilinear2d(x, [5, 6], False, None, 0.6),
            lambda x: aten.upsample_bicubic2d(x, [5, 6], True),
        )
    ),
    "convolution and pool over three axes": Case(
        lambda: On(
            *(
                nn.Sequential(nn.Unflatten(1, (2, 3)), part)
                for part in (
                    nn.Conv3d(2, 4, (2, 3, 3), padding=1),
                    nn.Conv3d(2, 4, 3, (1, 2, 2), 1, bias=False),
                    nn.MaxPool3d((1, 2, 2)),
                    nn.MaxPool3d(3, 2, 1),
                    nn.AvgPool3d((3, 2, 2), (1, 2, 1)),
                )
            )
        )
    ),
    # element by element
    "functions": Case(
        lambda: On(
            torch.relu,
            F.relu6,
            torch.sigmoid,
            torch.tanh,
            F.silu,
            F.selu,
            torch.exp,
            torch.square,
            torch.abs,
            torch.sin,
            torch.cos,
            torch.erf,
            torch.floor,
            torch.sign,
            torch.neg,
            F.hardswish,
            F.hardsigmoid,
            F.logsigmoid,
            F.mish,
            torch.ceil,
            torch.round,
            torch.trunc,
            torch.expm1,
            lambda x: torch.tan(x.sin()),  # away from its poles, where rounding of x is all there is to see
            torch.sinh,
            torch.cosh,
            torch.atan,
            lambda x: torch.asin(x.sin() * 0.9),
            lambda x: torch.acos(x.sin() * 0.9),
        )
    ),
    "functions of positive numbers": Case(lambda: On(*(lambda x, f=f: f(x.abs() + 0.5) for f in POSITIVE))),
    "activations with settings": Case(
        lambda: On(
            nn.GELU(),
            nn.GELU("tanh"),
            nn.Softplus(),
            nn.Softplus(beta=3),
            nn.LeakyReLU(0.3),
            nn.ELU(),
            nn.ELU(0.4),
            nn.Hardtanh(),
            nn.Hardtanh(0, 6),
            nn.Hardtanh(-0.2, 0.7),
            nn.PReLU(),
            nn.PReLU(6),
        )
    ),
    "shrinks, thresholds and gates": Case(
        lambda: On(
            nn.Hardshrink(0.3),
            nn.Softshrink(0.3),
            nn.Tanhshrink(),
            nn.Threshold(0.2, -3),
            nn.Softsign(),
            nn.CELU(),
            nn.CELU(0.4),
            nn.RReLU(0.1, 0.5),
            nn.GLU(1),
            nn.GLU(),
        )
    ),
    "powers": Case(
        lambda: On(
            Gem(),
            Weighted(lambda x, w: x.abs() ** w, 6, 1, 1),
            lambda x: x.abs() ** x.sigmoid(),
            lambda x: 2**x,
        )
    ),
    "mixtures": Case(
        lambda: On(
            lambda x: torch.lerp(x, x.exp(), 0.3),
            lambda x: torch.lerp(x, x.exp(), x.sigmoid()),
            lambda x: torch.addcdiv(x, x, x.exp(), value=0.5),
        )
    ),
    "prelu of tokens": Case(lambda: Tokens(nn.PReLU(70))),
    "clamp": Case(
        lambda: On(
            lambda x: x.clamp(-0.3, 0.2),
            Weighted(lambda x, w: x.clamp(-w.abs(), w.abs()), 6, 1, 1),
            Weighted(lambda x, w: x.clamp(w, torch.tensor(2.0)), 10),
            Known(lambda x, t: x.clamp(t.min() / 100, t / 100), torch.arange(70.0).reshape(7, 10)),
            lambda x: x.clamp(min=0.1),
            lambda x: x.clamp(max=0.1),
            lambda x: x.clamp(0, 6),
            lambda x: x.clamp_min(0.2),
            lambda x: x.clamp_max(-0.1),
        )
    ),
    "in place": Case(
        lambda: On(
            *map(
                InPlace,
                (
                    torch.relu_,
                    F.hardtanh_,
                    lambda x: x.mul_(2).add_(1),
                    lambda x: x.sub_(x * 0.5),
                    torch.Tensor.zero_,
                    lambda x: x.fill_(3.0),
                    lambda x: aten.fill_.Tensor(x, torch.tensor(3.0)),
                ),
            ),
            nn.SiLU(inplace=True),
        )
    ),
    "writes into slices": Case(lambda: On(*map(InPlace, (write_rows, write_part, zero_part)))),
    "softmax": Case(
        lambda: On(*(lambda x, f=f, axis=axis: f(x, axis) for f in (F.softmax, F.log_softmax) for axis in (1, 2, -1)))
    ),
    "arithmetic with numbers": Case(
        lambda: On(
            lambda x: x + 2,
            lambda x: 1.5 - x,
            lambda x: x - 3,
            lambda x: 2 * x,
            lambda x: x / 3,
            lambda x: 1 / (x.abs() + 1),
            lambda x: -x,
            lambda x: x**2,
            lambda x: x**3,
            lambda x: (x.abs() + 0.1) ** -0.5,
            lambda x: torch.add(x, 2, alpha=3),
        )
    ),
    "arithmetic with scalars of ATen": Case(
        lambda: On(
            lambda x: aten.add.Scalar(x, 2, *SCALE),
            lambda x: aten.sub.Scalar(x, 2, *SCALE),
            lambda x: aten.mul.Scalar(x, 2),
            lambda x: aten.div.Scalar(x, 2),
            lambda x: torch.rsub(x, 2, alpha=3),
            lambda x: torch.rsub(x, x * x, alpha=3),
        )
    ),
    "arithmetic of two maps": Case(
        lambda: On(
            lambda x: torch.add(x, x.relu(), alpha=0.5),
            lambda x: torch.sub(x, x.exp(), alpha=2),
            lambda x: aten.subtract.Tensor(x, x.exp(), alpha=2),
            lambda x: aten.subtract.Scalar(x, 2, *SCALE),
            lambda x: x * x.sigmoid(),
            lambda x: x / x.exp(),
            lambda x: torch.maximum(x, x.square()),
            lambda x: torch.minimum(x.square(), x),
            lambda x: torch.addcmul(x, x.exp(), x.sin(), value=0.3),
        )
    ),
    "arithmetic of maps that lie differently": Case(
        lambda: On(
            lambda x: x[:, :, :6, :6] + x[:, :, :6, :6].transpose(2, 3),
            lambda x: x.permute(0, 2, 3, 1) * x.mean((2, 3))[:, None, None],
            lambda x: x.mean((2, 3), keepdim=True) - x,
            lambda x: x.mean(1) / 3 + x.transpose(0, 1)[0],
            lambda x: x.flatten(2) * x.mean(2).mean(2)[..., None],
        )
    ),
    "arithmetic with weights": Case(
        lambda: On(
            Weighted(lambda x, w: x * w, 6, 1, 1),
            Weighted(lambda x, w: w + x, 7, 10),
            Weighted(lambda x, w: w - x, 1, 6, 7, 1),
            Weighted(lambda x, w: x / w.exp(), 1),
            Weighted(lambda x, w: x * w.exp(), 10),
            Weighted(lambda x, w: torch.addcmul(w, w, x), 6, 1, 1),
            Weighted(lambda x, w: torch.maximum(w, x), 7, 1),
            Weighted(lambda x, w: (x.permute(0, 2, 3, 1) * w).permute(0, 3, 1, 2), 6),
            Weighted(lambda x, w: x * w, 1),
            Weighted(lambda x, w: x + w),
        )
    ),
    "sums that could be taken for biases": Case(
        lambda: On(
            Weighted(lambda x, w: x[:, :, :6, :6] + w, 6, 1),
            Weighted(lambda x, w: x[:, :, :6, :6] + w, 1, 6),
            Weighted(lambda x, w: w + x[:, :, :6, :6], 6, 1),
            lambda x: x[:, :2] + x.mean((1, 2, 3), keepdim=True),
            lambda x: x.mean((2, 3)) + x.mean((1, 2, 3))[:, None],
        )
    ),
    "a weight used twice": Case(lambda: On(Weighted(lambda x, w: x * w + w.tanh(), 6, 1, 1))),
    "weights used in two ways": Case(
        lambda: On(
            Weighted(lambda x, w: F.conv2d(x, w) + F.conv2d(x, w, stride=2, padding=(2, 4)), 4, 6, 3, 3),
            Weighted(lambda x, w: F.linear(F.linear(x, w[:4].T @ w[4:]), w), 8, 10),
            Weighted(lambda x, w: F.linear(x.permute(0, 2, 3, 1), w), 3, 6),
            Weighted(lambda x, w: F.linear(x.mean(2).mT, w) + F.linear(x.permute(0, 3, 2, 1), w).mean(2), 6, 6),
        )
    ),
    "arithmetic with known tensors": Case(
        lambda: On(
            Known(lambda x, t: x * t + t, torch.arange(70.0).reshape(7, 10)),
            Known(lambda x, t: t - x, torch.arange(6.0)[:, None, None]),
            lambda x: x + torch.arange(10),
        )
    ),
    "masks": Case(
        lambda: On(
            Known(lambda x, m: x.masked_fill(m, 2.0), MAP_MASK),
            Known(lambda x, m: x.masked_fill(m, float("-inf")).softmax(-1), MAP_MASK),
            Known(lambda x, m: torch.where(m, x, x.exp()), MAP_MASK),
            Known(lambda x, m: torch.where(m, x, 0.0), MAP_MASK),
            Known(lambda x, m: torch.where(m, 1.0, x), MAP_MASK),
        )
    ),
    "sums and means": Case(
        lambda: On(
            lambda x: x.mean((2, 3)),
            lambda x: x.mean((2, 3), keepdim=True),
            lambda x: x.mean(1),
            lambda x: x.mean(-1, keepdim=True),
            lambda x: x.mean([1, 3]),
            lambda x: x.sum(1),
            lambda x: x.sum((1, -1), keepdim=True),
            lambda x: x.amax(1),
            lambda x: x.amax((2, 3), keepdim=True),
            lambda x: x.max(2)[0],
            lambda x: x.max(1, keepdim=True).values,
        )
    ),
    "variances": Case(
        lambda: On(
            lambda x: x.var((2, 3)),
            lambda x: x.var(1, unbiased=False),
            lambda x: x.var(-1, correction=3, keepdim=True),
            lambda x: x.std(1),
            lambda x: x.std((1, 2), correction=0, keepdim=True),
            lambda x: torch.cat(torch.var_mean(x, 1, keepdim=True), 1),
            lambda x: torch.var_mean(x, (2, 3), correction=0)[1],
            lambda x: aten.var.dim(x, [1], True, False),
            lambda x: aten.var.dim(x, [2, 3], False, True),
        )
    ),
    "norms": Case(
        lambda: On(
            lambda x: F.normalize(x, dim=1),
            lambda x: x.norm(dim=-1, keepdim=True),
            lambda x: torch.linalg.vector_norm(x, dim=(2, 3)),
            lambda x: aten.norm.ScalarOpt_dim(x, 2, [1], False),
        )
    ),
    "norms of other orders": Case(
        lambda: On(
            lambda x: x.norm(p=1, dim=1),
            lambda x: torch.linalg.vector_norm(x, float("inf"), (2, 3), keepdim=True),
            lambda x: F.normalize(x, p=1.0, dim=1),
        )
    ),
    "products, least and places": Case(
        lambda: On(
            lambda x: x.prod(1),
            lambda x: x.amin((2, 3)),
            lambda x: x.min(1, keepdim=True)[0],
            lambda x: x.argmax(1).float(),
            lambda x: x.argmin(-1, keepdim=True) * 0.5 + x,
            lambda x: x.max(2)[1].float(),
            lambda x: x.min(3)[1].float(),
            lambda x: torch.logsumexp(x, 1),
            lambda x: torch.logsumexp(x, (2, 3), keepdim=True),
        )
    ),
    "running sums": Case(lambda: On(lambda x: x.cumsum(1), lambda x: x.cumsum(-1), lambda x: x.cumprod(2))),
    "the largest few": Case(
        lambda: On(
            lambda x: x.topk(2, 1)[0],
            lambda x: x.topk(3, -1, largest=False)[0],
            lambda x: x.flatten(1).topk(5)[1].float(),
            lambda x: x.sort(1)[0],
            lambda x: x.sort(2, descending=True)[1].float(),
        )
    ),
    "comparisons": Case(
        lambda: On(
            lambda x: (x > 0).float(),
            lambda x: x * (x >= 0.1),
            lambda x: (x < x.mean((2, 3), keepdim=True)).type_as(x),
            lambda x: (x <= x.relu()) * 2.0,
            lambda x: x * (x.relu() == 0) + (x.relu() != 0),
            lambda x: x * (x == x.relu()) + (x != x.abs()),
            lambda x: x * (x <= 0.2) + (x >= x.mean(1, keepdim=True)),
            Weighted(lambda x, w: x * (x > w), 6, 1, 1),
        )
    ),
    "logic": Case(
        lambda: On(
            lambda x: x * ((x > 0) & (x < 1)),
            lambda x: x * ((x > 1) | ~(x > -1)),
            lambda x: x * torch.logical_xor(x > 0, x.exp() > 2),
            lambda x: x * torch.logical_and(x > 0, torch.logical_not(x > 0.5)),
            lambda x: x * torch.logical_or(x > 0.3, x < -0.3),
            lambda x: x * ((x > 0) ^ (x < 1)),
            lambda x: x * aten.bitwise_and.Tensor(x > 0, x < 1),
            lambda x: x * aten.bitwise_or.Tensor(x > 0, x < -1),
            lambda x: x * aten.bitwise_xor.Tensor(x > 0, x < 1),
        )
    ),
    "choices by computed masks": Case(
        lambda: On(
            lambda x: torch.where(x > 0, x, x.exp()),
            lambda x: torch.where(x.mean((2, 3), keepdim=True) > 0, x, 0.0),
            lambda x: torch.where(x.permute(0, 2, 3, 1) > 0, 1.0, x.mean(1, keepdim=True).permute(0, 2, 3, 1)),
            lambda x: x.masked_fill(x > 0.3, 2.0),
            lambda x: x.masked_fill(x > 0.3, float("-inf")).softmax(-1),
            lambda x: aten.where.Scalar(x > 0, 2.0, -1.0),
        )
    ),
    "other types and back": Case(
        lambda: On(
            lambda x: (x * 3).long().float(),
            lambda x: (x * 3).int() * 0.5,
            lambda x: x.bool().float() + x.to(torch.bool),
        )
    ),
    "recurrent": Case(
        lambda: Tokens(
            Recurrent(nn.LSTM(6, 4, batch_first=True)),
            Recurrent(nn.GRU(6, 4, batch_first=True)),
            Recurrent(nn.RNN(6, 4, batch_first=True, bias=False)),
            Recurrent(nn.RNN(6, 4, nonlinearity="relu", batch_first=True)),
            lambda x: x,
        ),
        (3, 3, 4),
    ),
    "recurrent in both directions and several layers": Case(
        lambda: Tokens(
            Recurrent(nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True)),
            Recurrent(nn.GRU(6, 4, 2, batch_first=True, bidirectional=True, bias=False)),
            Recurrent(nn.LSTM(6, 4, 2, dropout=0.3, bias=False)),
            Recurrent(nn.GRU(6, 4, 2, dropout=0.3)),
        ),
        (3, 3, 4),
    ),
    "recurrent over rows": Case(lambda: On(Rows())),
    "samples of a map": Case(
        lambda: On(
            *(
                Transformed(mode=mode, padding_mode=padding, align_corners=corners)
                for mode in ("bilinear", "nearest")
                for padding in ("zeros", "border", "reflection")
                for corners in (True, False)
            ),
            Transformed(mode="bicubic", padding_mode="zeros", align_corners=False),
            Known(lambda x, t: F.grid_sample(x, t.expand(x.shape[0], -1, -1, -1), align_corners=True), PLACES),
        )
    ),
    "embedding of positions": Case(
        lambda: Tokens(
            Embedded(lambda x, table: x + table(torch.arange(70))),
            Embedded(lambda x, table: x + table(torch.arange(70).unsqueeze(0).expand(x.shape[0], -1))),
            Embedded(lambda x, table: x[:, :6] + table(INDEX).reshape(6, 6)),
        )
    ),
    "embedding of tokens": Case(lambda: On(Embedded(lambda x, table: table((x[:, 0] * 3).clamp(0, 69).long())))),
    # products
    "linear": Case(
        lambda: Tokens(
            nn.Linear(6, 4), nn.Linear(6, 4, bias=False), nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))
        )
    ),
    "linear of a map's axes": Case(
        lambda: On(
            nn.Sequential(Permuted(0, 2, 3, 1), nn.Linear(6, 4), Permuted(0, 3, 1, 2)),
            nn.Linear(10, 4),
            nn.Sequential(Permuted(0, 3, 1, 2), nn.Linear(7, 5, bias=False)),
            nn.Sequential(nn.Flatten(), nn.Linear(420, 5)),
            nn.Sequential(nn.Flatten(2), nn.Linear(70, 9)),
        )
    ),
    "linear with a computed weight": Case(
        lambda: Tokens(
            Weighted(lambda x, w: F.linear(x, w * 2, w.sum(1)), 4, 6),
            Weighted(lambda x, w: F.linear(x, w, w.sum(1)), 4, 6),
        )
    ),
    "matmul": Case(
        lambda: On(
            lambda x: x @ x.transpose(2, 3),
            lambda x: x.transpose(2, 3) @ x,
            lambda x: x @ x[:, :1].transpose(2, 3),
            lambda x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)),
            lambda x: x.mean(1) @ x[:, 0].transpose(1, 2),
            Weighted(lambda x, w: x @ w, 10, 4),
            Weighted(lambda x, w: torch.mm(x.mean((2, 3)), w), 6, 4),
            Weighted(lambda x, w: w @ x, 3, 7),
            Known(lambda x, t: x @ t, torch.arange(40.0).reshape(10, 4) / 40),
        )
    ),
    "matmul with a sum": Case(
        lambda: On(
            Weighted(lambda x, w: torch.addmm(w[0], x.mean((2, 3)), w, beta=2, alpha=0.5), 6, 4),
            Weighted(
                lambda x, w: torch.baddbmm(w, x.flatten(2), x.flatten(2).transpose(1, 2), beta=0.5, alpha=2), 1, 6, 6
            ),
        )
    ),
    "einsum": Case(
        lambda: On(
            lambda x: torch.einsum("nchw,ncij->nhwij", x, x[:, :, :2, :3]),
            lambda x: torch.einsum("nchw -> nwc", x),
            Weighted(lambda x, w: torch.einsum("nCHW,CK->nKHW", x, w), 6, 4),
            lambda x: torch.einsum("bchw,bcHw->bhH", x, x),
        )
    ),
    "einsum, what is left out and what is broadcast": Case(
        lambda: On(
            lambda x: torch.einsum("n...w,...w->...n", x[:, :, :4], x[:, :, :1].relu()).movedim(-1, 0),
            lambda x: torch.einsum("nc...,nc...->n...", x, x.exp()),
            lambda x: torch.einsum("nchw,nchw", x, x)[None],
            lambda x: torch.einsum("nbaw,nbAw", x, x.exp()),
            lambda x: torch.einsum("nchw,nchw->nhw", x, x.mean((1, 3), keepdim=True)),
            Weighted(lambda x, w: torch.einsum("nchw,nck->nkhw", x, w), 1, 6, 4),
            Weighted(lambda x, w: torch.einsum("...hw,wk->...kh", x, w), 10, 4),
        )
    ),
    "attention": Case(lambda: On(attended(), attended(is_causal=True), attended(scale=0.7))),
    "attention with a mask": Case(
        lambda: On(
            Known(attended(), MASK),
            Known(attended(), torch.arange(441.0).reshape(1, 1, 21, 21) / 441),
            Weighted(attended(), 2, 21, 21),
            lambda x: attended()(x, x.reshape(-1, 2, 21, 10)[..., :1] * torch.ones(21)),
        )
    ),
    "attention module": Case(
        lambda: Tokens(SelfAttention(True), SelfAttention(False), SelfAttention(True, bias=False))
    ),
    "encoder layer": Case(
        lambda: Tokens(
            nn.TransformerEncoderLayer(6, 2, 12, batch_first=True),
            nn.TransformerEncoderLayer(6, 2, 12, batch_first=True, norm_first=True),
        )
    ),
    "windows": Case(lambda: On(Windows())),
    # shapes
    "permute and transpose": Case(
        lambda: On(
            lambda x: x.permute(0, 2, 3, 1),
            lambda x: x.permute(0, 3, 1, 2),
            lambda x: x.transpose(1, -1),
            lambda x: x.swapaxes(2, 3),
            lambda x: x.movedim(-1, 1),
            lambda x: x.movedim((1, 3), (2, -3)),
            lambda x: x.swapdims(1, 2),
            lambda x: x.mT,
            lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2) + x,
            lambda x: aten.swapaxes(x, 1, 2),
            lambda x: aten.swapdims(x, 1, 3),
            lambda x: aten.mT(x),
        )
    ),
    "transposes of matrices": Case(
        lambda: On(
            Weighted(lambda x, w: x.mean((2, 3)) @ w.t(), 4, 6),
            Weighted(lambda x, w: x.mean((2, 3)) @ w.T, 4, 6),
            Weighted(lambda x, w: x @ aten.numpy_T(w.exp()), 4, 10),
            lambda x: (x.mean((2, 3)).t() * 2).t(),
        )
    ),
    "reshape": Case(
        lambda: On(
            lambda x: x.view(-1, 420),
            lambda x: x.reshape(x.shape[0], 3, 2, 7, 10),
            lambda x: x.reshape(x.shape[0], 6, -1),
            lambda x: x.flatten(1, 2),
            lambda x: x.flatten(1),
            lambda x: x.reshape(-1, 7, 10).mean(1).reshape(-1, 6, 10),
            lambda x: x.permute(0, 2, 3, 1).reshape(-1, 70, 6),
            lambda x: x.unflatten(1, (2, 3)),
            lambda x: x.unflatten(-1, (-1, 5)),
            lambda x: x.reshape(x.shape[0], 21, 20).transpose(1, 2).reshape(x.shape[0], 6, 7, 10),
            lambda x: aten._unsafe_view(x, [x.shape[0], 6, 70]),
            lambda x: x.mean((2, 3)).view(-1, 6, 1, 1),
        )
    ),
    "reshape as another": Case(
        lambda: On(lambda x: x.transpose(1, 2).reshape_as(x), lambda x: x.view_as(x.flatten(2)))
    ),
    "axes of size one": Case(
        lambda: On(
            lambda x: x.unsqueeze(1),
            lambda x: x.unsqueeze(-1),
            lambda x: x[:, None, :, None],
            lambda x: x.mean(2, keepdim=True).squeeze(2),
            lambda x: x.mean((2, 3), keepdim=True).squeeze((2, 3)),
            lambda x: x.mean((1, 3), keepdim=True).squeeze(-1),
            lambda x: x.mean(1, keepdim=True).squeeze(2),
            lambda x: x.mean((2, 3), keepdim=True).squeeze(),
        )
    ),
    "expand and repeat": Case(
        lambda: On(
            lambda x: x.mean(1, keepdim=True).expand(-1, 4, -1, -1),
            lambda x: x.mean((2, 3), keepdim=True).expand_as(x),
            lambda x: x.repeat(1, 2, 1, 3),
            lambda x: x.mean(1).repeat(1, 1, 2),
            Weighted(lambda x, w: w.expand(x.shape[0], -1, -1), 1, 4, 5),
            Weighted(lambda x, w: w.repeat(x.shape[0], 1, 2), 1, 4, 5),
            Weighted(lambda x, w: w.expand(x.shape[0], 3, -1), 4),
            lambda x: x.tile(2, 1, 3),
            lambda x: x.tile(1, 1, 2, 1),
        )
    ),
    "repetitions of each element": Case(
        lambda: On(
            lambda x: x.repeat_interleave(2, 1),
            lambda x: x.permute(0, 2, 3, 1).repeat_interleave(3, -1),
            lambda x: x.repeat_interleave(4, 0).reshape(-1, 4, 6, 7, 10),
            Weighted(lambda x, w: x[..., :6] + w.repeat_interleave(2), 3),
        )
    ),
    "weights repeated for the batch, in another shape": Case(
        lambda: On(
            Weighted(lambda x, w: x.flatten(2) + w.tanh().reshape(1, 10, -1).mT.expand(1, 7, 10).reshape(1, 1, 70), 10),
            Weighted(lambda x, w: x + (w * torch.ones(x.shape[0], 6, 70)).reshape(x.shape[0], 6, 7, -1), 70),
            Weighted(lambda x, w: x.flatten(1) * (w + torch.zeros(x.shape[0], 6, 1)).reshape(x.shape[0], -1), 70),
        )
    ),
    "cat and stack": Case(
        lambda: On(
            lambda x: torch.cat([x, x.exp()], 1),
            lambda x: torch.cat([x, x[:, :2]], dim=-3),
            lambda x: torch.cat([x.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2)[..., :2]], -1),
            lambda x: torch.concat([x, x], 2),
            lambda x: torch.stack([x, x.exp()], 1),
            lambda x: torch.stack([x, x], -1),
            Known(lambda x, t: torch.cat([x, t.expand(x.shape[0], 2, 7, 10)], 1), torch.arange(10.0)),
            lambda x: aten.concat([x, x], 1),
            lambda x: torch.cat([x, x.new_zeros(x.shape[0], 1, 7, 10)], 1),
            lambda x: torch.cat([torch.ones_like(x), x], 1),
            Weighted(lambda x, w: x + torch.cat([w, w, torch.ones(2)]), 4),
            Weighted(lambda x, w: x + torch.cat([torch.ones(8, 2), w])[:, 1], 2, 2),
        )
    ),
    "class token": Case(lambda: Tokens(ClassToken())),
    "slices": Case(
        lambda: On(
            lambda x: x[:, 1:4],
            lambda x: x[..., 1::2],
            lambda x: x[:, :, :-2, 3:],
            lambda x: x.narrow(1, 2, 3),
            lambda x: x[:, 2],
            lambda x: x[..., -1],
            lambda x: x.select(2, 3),
            lambda x: x[:, ::3, 1:7:2],
            lambda x: x[:, -4:-1],
        )
    ),
    "splits": Case(
        lambda: On(
            lambda x: torch.cat(x.unbind(1)[::-1], 1),
            lambda x: x.split(4, 1)[1],
            lambda x: x.split([1, 2, 3], 1)[2],
            lambda x: x.chunk(4, -1)[3],
            lambda x: x.chunk(2, 1)[1],
            lambda x: aten.split.sizes(x, [5, 5], 3)[1],
            lambda x: x.unbind(-1)[3],
        )
    ),
    "rolls and flips": Case(
        lambda: On(
            lambda x: x.roll(2, 1), lambda x: x.roll((-3, 2), (2, 3)), lambda x: x.flip(1), lambda x: x.flip((2, -1))
        )
    ),
    "index by known arrays": Case(
        lambda: On(
            Known(lambda x, i: x[:, i], INDEX),
            Known(lambda x, i: x[..., i], INDEX),
            Known(lambda x, i: x[:, :, i[0]], INDEX),
            Known(lambda x, i: x.index_select(1, i[1]), INDEX),
            lambda x: x[:, [2, 0]],
            Known(lambda x, i: x.index_select(3, i[0]), INDEX),
        )
    ),
    "index over several axes": Case(
        lambda: On(
            Known(lambda x, i: x[:, i, i + 1], INDEX),
            Known(lambda x, i: x[:, :, i[:, 1:], i[1]], INDEX[:, 1:]),
            Known(lambda x, i: x[:, i, :, -i].transpose(0, 2).transpose(1, 2), INDEX),
            Known(lambda x, m: x[:, :, m], MAP_MASK),
            Known(lambda x, m: x[:, :, m[:, 0]], MAP_MASK),
            Known(lambda x, i: x.permute(0, 2, 3, 1)[:, i[0], i[1]], INDEX),
            Weighted(lambda x, w: x + w[INDEX, INDEX - 1][0, 0], 6, 6),
        )
    ),
    "windows along an axis": Case(
        lambda: On(
            lambda x: x.unfold(2, 3, 2),
            lambda x: x.unfold(-1, 5, 5).unfold(2, 2, 1),
            lambda x: x.unfold(2, 3, 3),
        )
    ),
    "relative position bias": Case(
        lambda: On(
            Weighted(lambda x, w: x + w[INDEX.view(-1)].view(2, 3, 10).permute(0, 1, 2).reshape(6, 1, 10), 6, 10)
        )
    ),
    "pad": Case(
        lambda: On(
            lambda x: F.pad(x, (1, 2)),
            lambda x: F.pad(x, (1, 0, 0, 2), value=3.0),
            lambda x: F.pad(x, (0, 0, 0, 0, 2, 1)),
            lambda x: F.pad(x, (-1, -2, 1, 0)),
            nn.ReflectionPad2d((2, 1, 3, 0)),
            nn.ReplicationPad2d((2, 1, 3, 0)),
            nn.CircularPad2d((2, 1, 3, 0)),
            conv(6, 4, 3, padding=1, padding_mode="circular"),
            nn.ZeroPad2d(1),
            lambda x: aten.constant_pad_nd(x, [1, 1, -2, 3], 0.5),
            lambda x: F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 1, 1, 0)),
        )
    ),
    "shuffles": Case(
        lambda: On(
            nn.PixelShuffle(2),
            nn.PixelUnshuffle(2),
            nn.ChannelShuffle(3),
            lambda x: x.view(-1, 2, 6, 8, 10).transpose(1, 2).reshape(-1, 12, 8, 10),
            stem=conv(3, 12, 3, padding=1),
        ),
        (3, 8, 10),
    ),
    # what changes nothing here
    "nothing": Case(
        lambda: On(
            lambda x: x.contiguous() + 1,
            lambda x: x.clone(),
            lambda x: x.detach(),
            lambda x: x.to(torch.float32) * 2,
            lambda x: x.float(),
            lambda x: x.type_as(x * 2),
            lambda x: aten.alias(x),
            lambda x: aten._to_copy(x, dtype=torch.float32),
            lambda x: aten.lift_fresh_copy(x),
            lambda x: x.to(x.device),
            lambda x: aten.to.dtype(x, torch.float32),
            lambda x: aten.to.device(x, torch.device("cpu"), torch.float32),
            lambda x: (x * 2).detach_(),
            lambda x: aten.to.dtype_layout(x, dtype=torch.float32),
        )
    ),
    "dropout": Case(lambda: On(nn.Dropout(0.4), nn.Dropout2d(0.4), nn.Dropout(0.0))),
    "alpha dropout": Case(lambda: On(nn.AlphaDropout(0.4), nn.FeatureAlphaDropout(0.4), nn.AlphaDropout(0.0))),
    "stochastic depth": Case(
        lambda: On(StochasticDepth(0.3, "row"), StochasticDepth(0.3, "batch"), StochasticDepth(0.0, "row"))
    ),
}


class Recorder(OpTable):
    """The translator's table, which remembers what was looked up."""

    def __init__(self) -> None:
        super().__init__("recorded", OPS)
        self.hit: set[str] = set()

    def __getitem__(self, name: str):
        self.hit.add(name)
        return super().__getitem__(name)


class Translated(NamedTuple):
    module: nn.Module
    translation: Translation
    hit: set[str]


@functools.cache
def translated(name: str) -> Translated:
    case, recorder = CASES[name], Recorder()
    module = randomised(case.make())
    return Translated(module, translate(module, torch.zeros(1, *case.image), recorder), recorder.hit)


def randomised(module: nn.Module) -> nn.Module:
    """Weights and statistics under which every one of them matters."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
        for name, buffer in module.named_buffers():
            if "running_mean" in name:
                buffer.normal_()
            elif "running_var" in name:
                buffer.uniform_(0.5, 2)
    return module.eval()


def flat(values) -> list:
    return [leaf for value in values for leaf in flat(value)] if isinstance(values, list | tuple) else [values]


def channels_last(x: torch.Tensor) -> np.ndarray:
    return x.movedim(1, -1).numpy()


def called(model: keras.Model) -> Callable:
    """Under JAX as one program: operation by operation it would compile thousands."""
    call = functools.partial(model, training=False)
    if keras.config.backend() != "jax":
        return call
    import jax

    return jax.jit(call)


def differences(module: nn.Module, model: keras.Model, x: torch.Tensor) -> list[float]:
    """Of each output: largest difference, over the largest value if that is more than 1."""
    with torch.no_grad():
        wanted = [y.numpy() for y in flat(module(x))]
    with load_backend().full_precision():
        outputs = [keras.ops.convert_to_numpy(y) for y in flat(called(model)(channels_last(x)))]
    assert [y.shape for y in outputs] == [y.shape for y in wanted]
    return [float(np.abs(a - b).max() / max(1, np.abs(b).max())) for a, b in zip(outputs, wanted, strict=True)]


@elsewhere_slow
@pytest.mark.parametrize("name", CASES)
def test_op_is_pytorchs(name: str) -> None:
    done = translated(name)
    x = torch.randn(2, *CASES[name].image, generator=torch.Generator().manual_seed(1))
    found = differences(done.module, done.translation.model, x)
    assert max(found) <= 1e-5, [f"{difference:.1e}" for difference in found]


@pytest.mark.parametrize("name", CASES)
def test_what_an_op_becomes_may_be_loaded_from_a_file_that_may_be_anyones(name: str) -> None:
    check_config(translated(name).translation.model.to_json())


def test_every_op_has_a_case() -> None:
    hit = set().union(*(translated(name).hit for name in CASES))
    assert sorted(set(OPS) - hit) == [], "add cases that use these"
