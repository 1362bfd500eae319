"""What Keras does not promise, and this backend uses all the same: here and nowhere else, each with its reason."""

from __future__ import annotations

from multitl.models.insides import BATCH_NORM_CALL, adam_moments, try_adam_moments
from multitl.system.swapping import FastPath, Inside

__all__ = ["ADAM", "BATCH_NORM", "BATCH_NORM_CALL", "adam_moments"]

BATCH_NORMALIZATION = Inside(
    "keras.src.backend.tensorflow.nn:batch_normalization",
    "x mean variance axis offset scale epsilon",
    "inference composes it of elementary operations, and nothing public chooses another kernel",
)
ADAM_STEP = Inside(
    "keras.optimizers:Adam.update_step",
    "self gradient variable learning_rate",
    "a subclass would be saved by a name that plain Keras does not know",
)
BATCH_NORM = FastPath("fused batch normalisation", BATCH_NORMALIZATION, BATCH_NORM_CALL)
ADAM = FastPath("fused Adam", ADAM_STEP, trial=try_adam_moments)
