"""Packages that must not meet in one process. TensorFlow is in most of them: Keras loads it where it is installed, to
ask whether a shape is one of its own.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def triton_kept_out() -> Iterator[None]:
    """While open, Triton looks as if it were not installed, if TensorFlow came first.

    Triton is the compiler that PyTorch brings along for NVIDIA's GPUs, and is asked for by whatever traces. It and
    TensorFlow each have an LLVM of their own, and where Triton comes second, the process ends without an exception:
    "Option 'bitcode-mdindex-threshold' registered more than once!" (TensorFlow 2.21, Triton 3.9 of PyTorch 2.15).
    """
    if "tensorflow" not in sys.modules or "triton" in sys.modules:
        yield
        return
    sys.modules["triton"] = None  # type: ignore[assignment]  # to import it raises ImportError
    try:
        yield
    finally:
        del sys.modules["triton"]


@contextlib.contextmanager
def tensorflow_unseen() -> Iterator[None]:
    """While open, TensorFlow looks as if nobody had loaded it.

    OpenVINO 2026.4 asks TensorFlow, where it is loaded, whether a model is its own, and fails on Python 3.13.
    """
    loaded = sys.modules.pop("tensorflow", None)
    try:
        yield
    finally:
        if loaded is not None:
            sys.modules["tensorflow"] = loaded
