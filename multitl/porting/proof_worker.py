"""Open an artefact as its users will and let it answer: `python -m multitl.porting.proof_worker FORMAT FOLDER INPUTS`,
and perhaps the name of a second OUTPUT.

Keras is not imported here, unless the artefact is Keras' own. Writes proof.npz into FOLDER: the outputs, and how long
a single image takes.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import cast

import numpy as np

from multitl.adapters import load_function
from multitl.contracts import Answer, Runtime
from multitl.onnx_graphs.running import run_onnx
from multitl.porting.formats import FORMATS, Format
from multitl.system.hiding import hide
from multitl.system.latency import latencies
from multitl.system.workers import report_errors

BATCH = 32


def answer(name: str, folder: Path, inputs: np.ndarray, second: str = "") -> None:
    """Outputs (n, ...) and milliseconds (runs,), as proof.npz; and `others`, those of a second output of ONNX if its
    name is given.
    """
    if not FORMATS[name].runtime.endswith("keras"):
        hide(frozenset({"keras"}))  # TensorFlow would import it
    run = cast(Runtime, load_function(FORMATS[name].runtime))(folder)
    outputs = _all(run, inputs)
    others = _all(run_onnx(str(folder / "model.onnx"), output=second), inputs) if second else np.empty(0)
    by, milliseconds = opened_by(FORMATS[name]), latencies(run, inputs[:1])
    np.savez(folder / "proof.npz", outputs=outputs, others=others, milliseconds=milliseconds, opened_by=by)


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
    """FORMAT, FOLDER of the artefact, INPUTS as .npy, and the name of a second output."""
    name, folder, inputs, second = arguments[0], Path(arguments[1]), Path(arguments[2]), "".join(arguments[3:])
    return report_errors(lambda: answer(name, folder, np.load(inputs), second), folder / "error.json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
