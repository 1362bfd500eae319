"""Open an artefact as its users will and let it answer: `python -m multitl.proof_worker FORMAT FOLDER INPUTS`.

Keras is not imported here, unless the artefact is Keras' own. Writes proof.npz into FOLDER: the outputs, and how long
a single image takes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import cast

import numpy as np

from multitl.adapters import FORMATS, load_function
from multitl.contracts import Format, Runtime
from multitl.hiding import hide

BATCH = 32
DISTRIBUTIONS = {"ai_edge_litert": "ai-edge-litert", "orbax": "orbax-checkpoint"}  # of packages, where they differ
WARM_UP, RUNS, MOST_SECONDS = 3, 50, 3.0  # of a single image


def answer(name: str, folder: Path, inputs: np.ndarray) -> None:
    """Outputs (n, ...) and milliseconds (runs,), as proof.npz."""
    if not FORMATS[name].runtime.endswith("keras"):
        hide(frozenset({"keras"}))  # TensorFlow would import it
    run = cast(Runtime, load_function(FORMATS[name].runtime))(folder)
    outputs = np.concatenate([run(inputs[first : first + BATCH]) for first in range(0, len(inputs), BATCH)])
    milliseconds = latencies(run, inputs[:1])
    np.savez(folder / "proof.npz", outputs=outputs, milliseconds=milliseconds, opened_by=opened_by(FORMATS[name]))


def opened_by(chosen: Format) -> str:
    """The runtime's package and version, and Keras' backend where it is Keras."""
    if chosen.runtime.endswith("keras"):
        keras = sys.modules["keras"]
        return f"keras {keras.__version__} on {keras.config.backend()}"
    package = chosen.packages[-1]
    return f"{package} {metadata.version(DISTRIBUTIONS.get(package, package))}"


def latencies(run: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    """Milliseconds of single calls, after some that do not count."""
    for _ in range(WARM_UP):
        run(image)
    taken: list[float] = []
    while len(taken) < RUNS and sum(taken) < MOST_SECONDS * 1000:
        started = time.perf_counter()
        run(image)
        taken.append((time.perf_counter() - started) * 1000)
    return np.array(taken)


if __name__ == "__main__":
    answer(sys.argv[1], Path(sys.argv[2]), np.load(sys.argv[3]))
