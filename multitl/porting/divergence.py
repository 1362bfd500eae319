"""Where a model written elsewhere begins to differ: `python -m multitl.porting.divergence FOLDER INPUTS OUTPUTS`.

An artefact's inside cannot be looked into, but what it was made from can: the same Keras model under the backend that
wrote it. Its operations are compared one by one with those of this process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np

from multitl.models.heads import backbone_of
from multitl.models.insides import nodes_of
from multitl.models.model_files import load_saved_model
from multitl.runs.cards import read_card
from multitl.system.workers import report_errors, run_worker, save_array
from multitl.translation import parity

LIMIT = 1e-3  # of an operation's largest value


def first_divergence(folder: Path, images: np.ndarray, backend: str, scratch: Path) -> str:
    """A sentence that names the first operation of the backbone whose values differ under another backend.

    folder: of the model.  images: as the backbone takes them, float32 (n, height, width, 3).
    """
    inputs, outputs = scratch / "traced.npy", scratch / "traced"
    outputs.mkdir()
    save_array(inputs, images)
    arguments = [str(folder), str(inputs), str(outputs)]
    task = f"traces the model under {backend}"
    run_worker("multitl.porting.divergence", arguments, backend, outputs, task=task, extra=backend)
    backbone = backbone_of(load_saved_model(read_card(folder).model_file(folder)))
    ours, names = values(backbone, images), json.loads((outputs / "names.json").read_text())
    with np.load(outputs / "values.npz") as theirs:
        for place, name in enumerate(names):
            if parity.deviation(ours[name], theirs[str(place)]) > LIMIT:
                return f"the first operation that differs under {backend} is {name}"
    return f"under {backend} the Keras model itself is the same, so the conversion or the runtime changed it"


def values(backbone: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """What each operation gives, by name, in order."""
    operations = [one for one in backbone.operations if not isinstance(one, keras.layers.InputLayer)]
    tensors = {one.name: nodes_of(one)[0].outputs[0] for one in operations}
    return parity.every_value(backbone, tensors, images)


def trace(folder: Path, inputs: Path, outputs: Path) -> None:
    """Write names.json and values.npz into `outputs`."""
    backbone = backbone_of(load_saved_model(read_card(folder).model_file(folder)))
    found = values(backbone, np.load(inputs))
    arrays = {str(place): array for place, array in enumerate(found.values())}
    np.savez(outputs / "values.npz", allow_pickle=False, **arrays)
    (outputs / "names.json").write_text(json.dumps(list(found)))


def main(arguments: list[str]) -> int:
    """FOLDER of a model, INPUTS as .npy, and the folder to write to."""
    folder, inputs, outputs = map(Path, arguments)
    return report_errors(lambda: trace(folder, inputs, outputs), outputs / "error.json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
