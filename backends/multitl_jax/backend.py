"""The JAX backend: satisfies `multitl.contracts.Backend`."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import metadata
from typing import Any

import jax
import keras

from multitl.contracts import Forward, Gradient, Peers
from multitl.system.chatter import import_tensorflow_quietly
from multitl_jax.depthwise import fast_depthwise
from multitl_jax.insides import DEPTHWISE
from multitl_jax.sharing import initialise
from multitl_jax.step import Step, inference, input_gradient

import_tensorflow_quietly()
name = "jax"
is_slow_on_cpu = True  # EfficientNet-Lite0 at 0.6 of onnxruntime's speed
_OLDEST_BFLOAT16_GPU = 8.0  # Ampere


def versions() -> dict[str, str]:
    """JAX and the compiler it runs on, with the plug-ins (CUDA, Metal, TPU) that are installed."""
    plugins = {entry.dist.name for entry in metadata.entry_points(group="jax_plugins") if entry.dist}
    return {package: metadata.version(package) for package in ["jax", "jaxlib", *sorted(plugins)]}


def devices() -> list[str]:
    """One name a device, such as "NVIDIA H100 80GB HBM3" or "TPU v4", or ["CPU"]."""
    return ["CPU"] if jax.default_backend() == "cpu" else [device.device_kind for device in jax.devices()]


def make_deterministic(seed: int, *, is_strict: bool = True) -> None:
    """Call before the first computation: XLA reads the flag once. XLA on CPU is deterministic as it is.

    JAX has no random state of its own to seed.
    """
    flag, flags = "--xla_gpu_deterministic_ops=true", os.environ.get("XLA_FLAGS", "")
    if is_strict and flag not in flags and metadata.entry_points(group="jax_plugins"):
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def join(peers: Peers) -> None:
    """By `jax.distributed`."""
    if peers.size > 1:
        initialise(peers.endpoints()[0], peers.size, peers.rank)


def make_step(model: keras.Model, prepare: Callable[..., Any], accumulate: int, peers: Peers | None = None) -> Step:
    """One program for the whole step."""
    return Step(model, prepare, accumulate, peers)


def make_forward(model: keras.Model, *, is_for_long: bool = False) -> Forward:
    """One program for each shape."""
    return inference(model)


def make_gradient(model: keras.Model) -> Gradient:
    """One program for each shape."""
    return input_gradient(model)


def mixed_precision() -> str:
    """bfloat16 wherever the device computes with it: CPUs, TPUs and GPUs since Ampere."""
    return "mixed_float16" if _is_old_gpu(jax.local_devices()[0]) else "mixed_bfloat16"


def fast_paths() -> AbstractContextManager[None]:
    """Depthwise convolution on CPU."""
    return fast_depthwise()


def missing_insides() -> list[str]:
    """What closes a fast path."""
    return [*DEPTHWISE.faults]


def full_precision() -> AbstractContextManager[None]:
    """Matrix products and convolutions; the rest is in float32 anyway."""
    return jax.default_matmul_precision("highest")


def quick_float32() -> AbstractContextManager[None]:
    """On a TPU, which has no TF32, as JAX has it."""
    return jax.default_matmul_precision("tensorfloat32" if jax.default_backend() == "gpu" else "default")


def synchronize() -> None:
    """Wait for every array that is still being computed."""
    jax.block_until_ready(jax.live_arrays())


def peak_device_bytes() -> int:
    """Of arrays and of what computations needed beside them; what JAX keeps in reserve is not counted."""
    statistics = None if jax.default_backend() == "cpu" else jax.local_devices()[0].memory_stats()
    return int((statistics or {}).get("peak_bytes_in_use", 0))


def _is_old_gpu(device: jax.Device) -> bool:
    capability = str(getattr(device, "compute_capability", ""))  # "9.0" by NVIDIA, "gfx90a" by AMD, none elsewhere
    return capability.replace(".", "").isdigit() and float(capability) < _OLDEST_BFLOAT16_GPU
