"""TensorFlow and Triton, the compiler that PyTorch brings along for NVIDIA's GPUs, in one process.

Each has an LLVM of its own. Where Triton comes second, the process ends: with TensorFlow 2.21, Triton 3.9 and PyTorch
2.15 "Option 'bitcode-mdindex-threshold' registered more than once!", and no exception.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def triton_kept_out() -> Iterator[None]:
    """While open, Triton looks as if it were not installed, if TensorFlow came first. PyTorch asks for it when it
    traces, and traces without it.
    """
    if "tensorflow" not in sys.modules or "triton" in sys.modules:
        yield
        return
    sys.modules["triton"] = None  # type: ignore[assignment]  # to import it raises ImportError
    try:
        yield
    finally:
        del sys.modules["triton"]
