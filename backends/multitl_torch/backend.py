"""The PyTorch backend: satisfies `multitl.contracts.Backend`."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras
import torch

from multitl.contracts import Forward, Gradient, Peers
from multitl.system.chatter import import_tensorflow_quietly
from multitl_torch.channels_last import fast_channels_last
from multitl_torch.fused_adam import fused_adam
from multitl_torch.insides import ADAM, CHANNELS_LAST
from multitl_torch.sharing import initialise
from multitl_torch.step import Step, inference, input_gradient

import_tensorflow_quietly()
name = "torch"
is_slow_on_cpu = True  # EfficientNet-Lite0 at 0.2 to 0.5 of onnxruntime's speed


def versions() -> dict[str, str]:
    """PyTorch's own version names its build: "2.13.0+cpu", "2.13.0+cu130"."""
    return {"torch": str(torch.__version__)}


def devices() -> list[str]:
    """One name a device, in the order in which Keras looks for them, or ["CPU"]."""
    if torch.backends.mps.is_available():
        return ["Apple GPU (MPS)"]
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] or ["CPU"]


def make_deterministic(seed: int, *, is_strict: bool = True) -> None:
    """Strictly: operations that have no deterministic version warn and run all the same. Otherwise cuDNN measures which
    of its kernels is the fastest."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(is_strict, warn_only=True)
    torch.backends.cudnn.benchmark = not is_strict
    if is_strict:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    torch.utils.deterministic.fill_uninitialized_memory = False  # a pass over each new tensor; nothing here reads one


def join(peers: Peers) -> None:
    """By `torch.distributed`, with NCCL on GPUs and Gloo on CPUs."""
    if peers.size > 1:
        initialise(peers.endpoints()[0], peers.size, peers.rank)


def make_step(model: keras.Model, prepare: Callable[..., Any], accumulate: int, peers: Peers | None = None) -> Step:
    """A program, where nothing but weights changes."""
    return Step(model, prepare, accumulate, peers)


def make_forward(model: keras.Model, *, is_for_long: bool = False) -> Forward:
    """Eager at first, a program for each shape of which there are many batches."""
    return inference(model, is_for_long=is_for_long)


def make_gradient(model: keras.Model) -> Gradient:
    """Eager."""
    return input_gradient(model)


def mixed_precision() -> str:
    """bfloat16 on CPUs and wherever the GPU itself computes with it."""
    if torch.backends.mps.is_available():
        return "mixed_float16"
    emulated_at_best = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False)
    return "mixed_float16" if emulated_at_best else "mixed_bfloat16"


@contextlib.contextmanager
def fast_paths() -> Iterator[None]:
    """Images stay channels last in memory; Adam goes through the weights once."""
    with fast_channels_last(), fused_adam():
        yield


def missing_insides() -> list[str]:
    """What closes a fast path."""
    return [*CHANNELS_LAST.faults, *ADAM.faults]


def full_precision() -> AbstractContextManager[None]:
    """TF32 is on by default for convolutions."""
    return _tf32(False)


def quick_float32() -> AbstractContextManager[None]:
    """TF32 is off by default for matrix products."""
    return _tf32(True)


@contextlib.contextmanager
def _tf32(is_allowed: bool) -> Iterator[None]:
    settings = torch.backends.cuda.matmul, torch.backends.cudnn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch 2.9 and later prefer another way, which 2.6 does not know
        allowed = [setting.allow_tf32 for setting in settings]
        try:
            for setting in settings:
                setting.allow_tf32 = is_allowed
            yield
        finally:
            for setting, value in zip(settings, allowed, strict=True):
                setting.allow_tf32 = value


def synchronize() -> None:
    """Wait for the kernels that were queued; PyTorch on a CPU queues nothing."""
    if torch.backends.mps.is_available():
        torch.mps.synchronize()
    elif torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_device_bytes() -> int:
    """Of tensors; what the allocator keeps in reserve is not counted. Apple's GPUs keep no record."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
