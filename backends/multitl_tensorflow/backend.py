"""The TensorFlow backend: satisfies `multitl.contracts.Backend`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from multitl.system.chatter import no_start_up_notes

if TYPE_CHECKING:  # Keras after TensorFlow, whose import below is kept quiet
    import keras

    from multitl.contracts import Forward, Gradient, Peers
    from multitl_tensorflow.step import Step

with no_start_up_notes():
    import tensorflow as tf

name = "tensorflow"
is_slow_on_cpu = False  # EfficientNet-Lite0 at 1.0 to 1.2 times onnxruntime's speed
_OLDEST_BFLOAT16_GPU = (8, 0)  # Ampere


def versions() -> dict[str, str]:
    """TensorFlow, whichever package (tensorflow, tensorflow-cpu) it came in."""
    return {"tensorflow": tf.__version__}


def devices() -> list[str]:
    """One name a GPU, such as "NVIDIA H100 80GB HBM3", or ["CPU"]."""
    return [str(details.get("device_name", "GPU")) for details in _gpus()] or ["CPU"]


def make_deterministic(seed: int, *, is_strict: bool = True) -> None:
    """Strictly: from here on TensorFlow refuses operations that have no deterministic version, and unseeded random
    numbers; it knows no way back."""
    tf.random.set_seed(seed)
    if is_strict:
        tf.config.experimental.enable_op_determinism()


def join(peers: Peers) -> None:
    """By the cluster of a `MultiWorkerMirroredStrategy`."""
    if peers.size > 1:
        from multitl_tensorflow.sharing import initialise

        initialise(peers.endpoints(), peers.rank)


def make_step(model: keras.Model, prepare: Callable[..., Any], accumulate: int, peers: Peers | None = None) -> Step:
    """One graph for the whole step."""
    from multitl_tensorflow.step import Step

    return Step(model, prepare, accumulate, peers)


def make_forward(model: keras.Model, *, is_for_long: bool = False) -> Forward:
    """One graph."""
    from multitl_tensorflow.step import inference

    return inference(model)


def make_gradient(model: keras.Model) -> Gradient:
    """One graph."""
    from multitl_tensorflow.step import input_gradient

    return input_gradient(model)


def mixed_precision() -> str:
    """bfloat16 on CPUs and on GPUs since Ampere."""
    old = any(details.get("compute_capability", _OLDEST_BFLOAT16_GPU) < _OLDEST_BFLOAT16_GPU for details in _gpus())
    return "mixed_float16" if old else "mixed_bfloat16"


def fast_paths() -> AbstractContextManager[None]:
    """Batch normalisation and Adam on CPU."""
    from multitl_tensorflow.fused import fused_kernels

    return fused_kernels()


def missing_insides() -> list[str]:
    """What closes a fast path."""
    from multitl_tensorflow.insides import ADAM, BATCH_NORM

    return [*BATCH_NORM.faults, *ADAM.faults]


def full_precision() -> AbstractContextManager[None]:
    """TF32 is on by default."""
    return _tensor_float_32(False)


def quick_float32() -> AbstractContextManager[None]:
    """TF32, also where somebody switched it off."""
    return _tensor_float_32(True)


@contextlib.contextmanager
def _tensor_float_32(is_on: bool) -> Iterator[None]:
    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(is_on)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(allowed)


def synchronize() -> None:
    """Wait for every operation that was started eagerly."""
    tf.test.experimental.sync_devices()


def peak_device_bytes() -> int:
    """Of tensors; what TensorFlow keeps in reserve is not counted."""
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"]) if has_gpu else 0


def _gpus() -> list[dict]:
    return [tf.config.experimental.get_device_details(device) for device in tf.config.list_physical_devices("GPU")]
