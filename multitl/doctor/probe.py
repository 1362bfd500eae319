"""Try one backend in a process of its own: an import that crashes or hangs must not take the caller along.

`python -m multitl.doctor.probe jax` trains one step and prints what it found as a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field

from multitl.adapters import is_installed, load_backend
from multitl.errors import BackendError
from multitl.system import children

SECONDS = 180  # a first import on a cold disk takes tens of seconds
# Three probes may share a GPU: none may grab all of its memory. TensorFlow's log is kept for the last words of a crash.
ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "TF_CPP_MIN_LOG_LEVEL": "0",
}


@dataclass(frozen=True)
class Probe:
    """What one backend does here. `error`: why it does not work, in one line. `seconds`: import and one step.

    missing: what of Keras or the framework is not as a fast path needs it, which is off therefore.
    """

    backend: str
    works: bool
    error: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    mixed_precision: str = ""
    seconds: float = 0.0
    missing: tuple[str, ...] = ()


def probe(backend: str, timeout: float = SECONDS) -> Probe:
    """Run this module in a new process for one backend; never raises."""
    if not is_installed(backend):
        return Probe(backend, works=False, error="not installed")
    ended = children.run(
        "multitl.doctor.probe", [backend], os.environ | ENVIRONMENT | {"KERAS_BACKEND": backend}, timeout
    )
    if ended.code is None:
        return Probe(backend, works=False, error=f"no answer within {timeout:g} s")
    if ended.code:
        return Probe(backend, works=False, error=children.last_words(ended))
    found = json.loads(ended.out.splitlines()[-1])
    found |= {name: tuple(found[name]) for name in ("devices", "missing")}
    return Probe(backend, works=True, **found)


def try_backend(name: str) -> dict:
    """The fields of a working `Probe`: loads the framework and Keras into this process."""
    started = time.perf_counter()
    backend = load_backend(name)
    import keras

    from multitl.models import insides

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.train_on_batch(keras.ops.ones((4, 4)), keras.ops.ones((4, 2)))
    backend.synchronize()
    return {
        "versions": backend.versions(),
        "devices": backend.devices(),
        "mixed_precision": backend.mixed_precision(),
        "missing": [*insides.missing_insides(), *backend.missing_insides()],
        "seconds": round(time.perf_counter() - started, 2),
    }


if __name__ == "__main__":
    try:
        print(json.dumps(try_backend(sys.argv[1])))
    except BackendError as error:
        sys.exit(error.received)
