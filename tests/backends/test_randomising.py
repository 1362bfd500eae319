"""Randomised networks notice a wrong weight: every parameter says something, and outputs follow the input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from multitl_torch.randomising import randomise
from multitl_torch.verifying import as_torch, probes
from torch import nn

IMAGES = as_torch(probes((3, 16, 16), 16))


class Branch(nn.Module):
    """What flatters: a layer scale of 1e-6, a position embedding of zeros, a branch whose last scale is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, momentum=0.3)
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        nn.init.zeros_(self.branch[1].weight)
        self.gamma = nn.Parameter(1e-6 * torch.ones(4, 1, 1))
        self.act = nn.PReLU(4)
        self.drop = nn.Dropout(0.4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x)) + self.position
        return self.drop(self.act(y + self.gamma * y + self.branch(y)))


@pytest.fixture
def module() -> Branch:
    torch.manual_seed(0)
    made = Branch()
    randomise(made, IMAGES)
    return made


def test_no_parameter_stays_constant_tiny_or_zero(module: Branch):
    for name, parameter in module.named_parameters():
        assert parameter.std() > 0.01, name
        assert parameter.abs().max() > 0.05, name


def test_scales_lie_in_range_and_kernels_keep_their_values(module: Branch):
    torch.manual_seed(0)
    fresh = Branch()
    assert torch.equal(module.conv.weight, fresh.conv.weight)
    for scale, size in (
        (module.norm.weight, 1),
        (module.gamma, 0.5),
        (module.act.weight, 0.25),
        (module.branch[1].weight, 0.5),
    ):
        assert 0.5 * size <= scale.min() and scale.max() <= 1.5 * size


def test_statistics_are_those_of_the_images(module: Branch):
    values = module.conv(IMAGES).detach()
    assert torch.allclose(module.norm.running_mean, values.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(module.norm.running_var, values.var((0, 2, 3)), rtol=1e-4)
    assert module.norm.momentum == 0.3


def test_it_ends_in_evaluation_with_dropout_as_it_was(module: Branch):
    assert not any(part.training for part in module.modules())
    assert module.drop.p == 0.4


def test_outputs_follow_the_input(module: Branch):
    y = module(IMAGES).detach().numpy()
    assert np.ptp(y, axis=0).max() > 0.3 * np.abs(y).max()


def test_same_seed_same_weights(module: Branch):
    for seed, same in ((0, True), (1, False)):
        torch.manual_seed(0)
        other = Branch()
        randomise(other, IMAGES, seed)
        assert torch.equal(other.norm.weight, module.norm.weight) is same
        assert torch.equal(other.position, module.position) is same


def test_without_batch_normalisation_nothing_runs():
    def refuse(*_):
        raise AssertionError("not needed")

    module = nn.Linear(3, 2)
    module.register_forward_hook(refuse)
    randomise(module, IMAGES)
    assert not module.training
