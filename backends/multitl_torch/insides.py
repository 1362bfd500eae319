"""What Keras and PyTorch do not promise, and this backend uses all the same: here and nowhere else, each with its
reason.
"""

from __future__ import annotations

from typing import Any

import torch

from multitl.errors import BackendError
from multitl.models.insides import BATCH_NORM_CALL, adam_moments, try_adam_moments
from multitl.system.swapping import FastPath, Inside

__all__ = ["ADAM", "BATCH_NORM_CALL", "CHANNELS_LAST", "adam_moments", "arguments_of"]

_NN = "keras.src.backend.torch.nn"
TO_CHANNELS_FIRST = Inside(
    f"{_NN}:_transpose_spatial_inputs", "inputs", "Keras copies all images for PyTorch's kernels"
)
TRANSPOSE_KERNEL = Inside(f"{_NN}:_transpose_conv_kernel", "kernel", "Keras copies a convolution's weight at each step")
BATCH_NORMALIZATION = Inside(
    f"{_NN}:batch_normalization",
    "x mean variance axis offset scale epsilon",
    "inference composes it of elementary operations, and nothing public chooses another kernel",
)
CONVOLUTION_CALL = Inside("keras.layers:Conv2D.call", "self inputs", "Keras adds the bias to a copy of the result")
ADAM_STEP = Inside(
    "keras.src.backend.torch.optimizers.torch_adam:Adam._parallel_update_step",
    "self grads variables learning_rate",
    "the public update_step is asked for one variable at a time, the kernel takes all",
)
CHANNELS_LAST = FastPath(
    "channels last", TO_CHANNELS_FIRST, TRANSPOSE_KERNEL, BATCH_NORMALIZATION, BATCH_NORM_CALL, CONVOLUTION_CALL
)
ADAM = FastPath("fused Adam", ADAM_STEP, trial=try_adam_moments)
KNOWN_TORCH = "2.13"  # the release whose insides these are


def arguments_of(op: Any) -> list[Any]:
    """What an ATen op takes, in its schema's order: `name`, `default_value`, `kwarg_only` of each.

    Why: the public torch.fx.operator_schemas renames some, and promises no compatibility either. Raises BackendError.
    """
    try:
        return list(op._schema.arguments)
    except AttributeError as error:
        raise BackendError(
            f"PyTorch {torch.__version__} does not tell the arguments of its ops where multitl looks for them.",
            expected=f"PyTorch {KNOWN_TORCH}, which multitl was tested with",
            received=f"PyTorch {torch.__version__}",
            fix=f"pip install 'torch=={KNOWN_TORCH}.*', or a newer multitl",
        ) from error
