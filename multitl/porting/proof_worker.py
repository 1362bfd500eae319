"""Open an artefact as its users will and let it answer: `python -m multitl.porting.proof_worker FORMAT FOLDER INPUTS`,
and perhaps the names of further OUTPUTS.

Keras is not imported here, unless the artefact is Keras' own. Writes proof.npz into FOLDER: the outputs, and how long
a single image takes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np

from multitl.adapters import load_function
from multitl.contracts import Answer, Runtime
from multitl.porting.formats import FORMATS, Format
from multitl.system.hiding import hide
from multitl.system.latency import latencies
from multitl.system.workers import report_errors

BATCH = 32


def answer(name: str, folder: Path, inputs: np.ndarray, also: Sequence[str] = ()) -> None:
    """Outputs (n, ...) and milliseconds (runs,), as proof.npz; and those of further outputs by their names."""
    if not FORMATS[name].runtime.endswith("keras"):
        hide(frozenset({"keras"}))  # TensorFlow would import it
    runtime = load_function(FORMATS[name].runtime)
    run = cast(Runtime, runtime)(folder)
    outputs = _all(run, inputs)
    others = {one: _all(runtime(folder, one), inputs) for one in also}
    by, milliseconds = opened_by(FORMATS[name]), latencies(run, inputs[:1])
    arrays: dict[str, Any] = {"outputs": outputs, "milliseconds": milliseconds, "opened_by": by, **others}
    np.savez(folder / "proof.npz", **arrays)


def _all(run: Answer, inputs: np.ndarray) -> np.ndarray:
    return np.concatenate([run(inputs[first : first + BATCH]) for first in range(0, len(inputs), BATCH)])


def opened_by(chosen: Format) -> str:
    """The runtime's package and version, and Keras' backend where it is Keras."""
    if chosen.runtime.endswith("keras"):
        keras = sys.modules["keras"]
        return f"keras {keras.__version__} on {keras.config.backend()}"
    package = chosen.packages[-1]
    distribution = metadata.packages_distributions()[package][0]  # of tensorflow it may be tensorflow-cpu
    return f"{package} {metadata.version(distribution)}"


def main(arguments: list[str]) -> int:
    """FORMAT, FOLDER of the artefact, INPUTS as .npy, and the names of further outputs."""
    name, folder, inputs = arguments[0], Path(arguments[1]), Path(arguments[2])
    return report_errors(lambda: answer(name, folder, np.load(inputs), arguments[3:]), folder / "error.json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
