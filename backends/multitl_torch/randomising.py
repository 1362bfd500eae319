"""Random weights that make a network sensitive: what translations are proved with where no trained weights are at hand.

A fresh network flatters its translation. Scales are 1 and biases 0, so a swapped or forgotten one goes unnoticed; layer
scales of 1e-6 and branches that start at zero hide whole blocks; batch normalisation without statistics lets values
grow until every image gives the same output.
"""

from __future__ import annotations

import torch

NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)
TINY = 0.1  # a constant parameter below this is a scale meant to grow in training


def randomise(module: torch.nn.Module, images: torch.Tensor, seed: int = 0) -> None:
    """Give every constant parameter and every bias random values, and batch normalisations the statistics of `images`.

    images: (n, channels, height, width), n >= 2, roughly standardised.  Kernels keep their random first values. The
    module is in evaluation mode afterwards. Float64 and other devices do as well.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if (drawn := _drawn(name, parameter, random)) is not None:
                parameter.copy_(drawn)
        _calibrate(module, images)


def _drawn(name: str, parameter: torch.Tensor, random: torch.Generator) -> torch.Tensor | None:
    """Scales in [0.5, 1.5] times what they were, biases and other zeros from N(0, 0.1); None for what is random
    already.
    """
    is_constant = parameter.numel() > 0 and bool((parameter == parameter.flatten()[0]).all())
    if name.endswith("bias") and parameter.ndim <= 1:
        return torch.randn(parameter.shape, generator=random) * 0.1
    if not is_constant:
        return None
    value = float(parameter.flatten()[0])
    if value == 0 and (parameter.ndim > 1 or not name.endswith("weight")):
        return torch.randn(parameter.shape, generator=random) * 0.1
    return (torch.rand(parameter.shape, generator=random) + 0.5) * (value if abs(value) > TINY else 0.5)


def _calibrate(module: torch.nn.Module, images: torch.Tensor) -> None:
    """One pass in which only batch normalisation trains; its running statistics become exactly those of `images`."""
    norms = [part for part in module.modules() if isinstance(part, NORMS) and part.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    try:
        if norms:
            module(images)
    finally:
        module.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
