"""A function of tensors as a flat program of PyTorch's operations, without the Python that calls them.

A layer of Keras costs the host some 0.2 ms in each call, whatever the size of its images: a training step of
MobileNet 0.25 (96 px, batch 32, two cores) takes 1.6 times as long as plain PyTorch's with it, and 1.1 times without;
features of EfficientNet-Lite0 (224 px) come 1.26 times as fast in batches of 32, 2.9 times one by one. On a GPU, which
waits for the host, there is more to gain.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from multitl_torch.simplifying import simplify

_ONE_AT_A_TIME = threading.Lock()  # while it traces, PyTorch replaces what all its modules are called by


def trace(function: Callable[..., Any], arguments: Sequence[torch.Tensor]) -> Callable[..., Any]:
    """The function, of tensors of these shapes and types alone; as it was given where it cannot be traced.

    It has to be pure: whatever else it reads, other than weights, is taken for a constant. Gradients flow as before.
    """
    with torch.no_grad():
        function(*arguments)  # weights take their order in memory: see channels_last.py
    try:
        with _ONE_AT_A_TIME:
            program = make_fx(function, pre_dispatch=True)(*arguments)
    except Exception:  # of any kind: the program that runs the function step by step is as right
        return function
    return simplify(program)
