"""What Keras does not promise, and this backend uses all the same: here and nowhere else, each with its reason."""

from __future__ import annotations

from multitl.models.insides import BATCH_NORM_CALL, adam_moments, try_adam_moments
from multitl.system.swapping import FastPath, Inside

__all__ = ["ADAM", "BATCH_NORM", "BATCH_NORM_CALL", "adam_moments", "allow_silence"]

DAY = 86_400_000  # milliseconds

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


def allow_silence(processes: int) -> None:
    """Let the processes of a cluster be silent for long, before it is joined: `distribution.channel` watches them.

    Why: a strategy asks for no other time than ten seconds, after which whoever was stopped for a moment is given up.
    Where TensorFlow has it elsewhere, these ten seconds stay.
    """
    try:
        from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob
        from tensorflow.python.eager import context
    except ImportError:
        return
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        heartbeat_timeout_in_ms=DAY,
        coordinated_jobs=[CoordinatedJob(name="worker", num_tasks=processes)],
    )
