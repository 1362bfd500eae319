"""The gate lets faithful translations pass, and names the first layer that a broken op table spoils."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import torch
from keras import ops as K  # noqa: N812
from multitl_torch.fx import OPS, translate
from multitl_torch.randomising import randomise
from multitl_torch.verifying import as_torch, first_divergence, outputs, probes, verify
from torch import nn

from multitl.errors import TranslationError
from multitl.translation.parity import MAX_REL

EXAMPLE = torch.zeros(2, 3, 24, 20)


class Block(nn.Module):
    """Two convolutions beside a shortcut, its ReLU in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=2)
        self.norm2 = nn.GroupNorm(2, channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        return self.act(x + self.norm2(self.conv2(y)))


class Net(nn.Module):
    """Convolutions, then attention over positions, then a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.blocks = nn.Sequential(Block(8), nn.Dropout(0.2), Block(8))
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.blocks(self.stem(x)).flatten(2).mT)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.head(mixed.mean(1))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    module = Net()
    randomise(module, as_torch(probes((3, 24, 20), 8)))
    return module


def spoiled(op: str, path: str, wrong: Callable) -> dict[str, Callable]:
    """The table's function for `op`, but with `wrong` after it in the module at `path`."""

    def function(build, *arguments):
        y = OPS[op](build, *arguments)
        return y.with_tensor(wrong(y.tensor)) if build.path == path else y

    return {op: function}


@pytest.mark.every_backend
def test_a_faithful_translation_passes(net: nn.Module):
    parity = verify(net, translate(net, EXAMPLE), EXAMPLE)
    assert 0 < parity.max_rel < 1e-5 and parity.max_spread < 1e-5
    assert (parity.top1, parity.inputs) == (1.0, 4)
    assert first_divergence(net, EXAMPLE) is None


@pytest.mark.every_backend
@pytest.mark.skipif(keras.config.backend() != "torch", reason="JAX compiles for minutes; translations run under torch")
@pytest.mark.parametrize(
    ("op", "path"),
    [
        ("conv2d", "stem"),
        ("conv2d", "blocks.0.conv1"),
        ("relu", "blocks.0.act"),
        ("batch_norm", "blocks.2.norm1"),
        ("group_norm", "blocks.2.norm2"),
        ("layer_norm", "norm"),
        ("scaled_dot_product_attention", "attention"),
        ("linear", "head"),
    ],
)
def test_the_first_layer_that_diverges_is_named(net: nn.Module, op: str, path: str):
    table = OPS.replaced(spoiled(op, path, lambda tensor: K.multiply(tensor, 1.01)))
    translation = translate(net, EXAMPLE, table)
    with pytest.raises(TranslationError) as caught:
        verify(net, translation, EXAMPLE, table)
    assert f"first seen at {path} (op {op}" in str(caught.value)
    found = first_divergence(net, EXAMPLE, table)
    assert found is not None and found.module == path and found.op.startswith(op)
    assert found.max_rel == pytest.approx(0.01, rel=0.1)


def test_where_the_batch_is_a_number_the_first_layer_that_diverges_is_named():
    class Counting(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.stem(x).view(int(x.shape[0]), 8, 30).transpose(1, 2)).mean(1))

    table = OPS.replaced(spoiled("layer_norm", "norm", lambda tensor: K.multiply(tensor, 1.01)))
    found = first_divergence(Counting(), EXAMPLE, table)
    assert found is not None and found.module == "norm"


def test_a_fault_of_one_pixel_is_found(net: nn.Module):
    mask = np.zeros((1, 6, 5, 8), "float32")
    mask[0, 5, 4, 7] = 1
    table = OPS.replaced(spoiled("batch_norm", "blocks.0.norm1", lambda tensor: K.add(tensor, mask)))
    found = first_divergence(net, EXAMPLE, table)
    assert found is not None and found.module == "blocks.0.norm1"


def test_of_an_operation_in_place_it_is_the_operation_not_what_it_wrote_to(net: nn.Module):
    table = OPS.replaced({"relu": lambda build, x: x.with_tensor(K.tanh(x.tensor))})
    found = first_divergence(net, EXAMPLE, table)
    assert found is not None and (found.op, found.module) == ("relu_.default", "blocks.0.act")


def test_a_translation_of_other_weights_is_refused_though_no_operation_is_wrong(net: nn.Module):
    translation = translate(net, EXAMPLE)
    kernel = translation.model.get_layer("head").kernel
    kernel.assign(kernel + 0.1)
    with pytest.raises(TranslationError, match="no operation by itself"):
        verify(net, translation, EXAMPLE)


def test_verifying_leaves_the_module_as_it_was():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten()).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    verify(module, translate(module, EXAMPLE), EXAMPLE)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(part.training for part in module.modules())


def test_outputs_are_those_of_evaluation(net: nn.Module):
    images = probes((3, 24, 20), 2)
    net.train()
    assert np.array_equal(outputs(net, images), outputs(net.eval(), images))
    assert outputs(net, images).shape == (2, 5)
    assert tuple(as_torch(images).shape) == (2, 3, 24, 20)


def test_the_gate_is_stricter_than_a_swapped_epsilon(net: nn.Module):
    def other_epsilon(build, x, weight, bias, mean, variance, training, momentum, epsilon, cudnn):
        return OPS["batch_norm"](build, x, weight, bias, mean, variance, training, momentum, 1e-3, cudnn)

    found = first_divergence(net, EXAMPLE, OPS.replaced({"batch_norm": other_epsilon}))
    assert found is not None and found.op == "batch_norm.default" and found.max_rel > MAX_REL
