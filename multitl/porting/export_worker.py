"""Write one artefact in a process of its own: `python -m multitl.porting.export_worker JOB FOLDER`.

It runs under the backend that the format wants. What is the input's or the machine's fault goes into error.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import keras
import numpy as np

from multitl.adapters import load_backend, load_function
from multitl.contracts import CONTRIBUTIONS, FIRST_OUTPUT, Export, Takes, Writer
from multitl.explaining.explainers import contributions_of
from multitl.models.folding import fold_batch_norm
from multitl.models.heads import backbone_of, with_entrance
from multitl.models.joint import load_network
from multitl.models.strangeness import features_and_logits, strangeness_of
from multitl.porting.formats import FORMATS
from multitl.porting.originals import original_tensors
from multitl.runs.cards import read_card
from multitl.runs.familiarity import read_familiarity
from multitl.system.workers import report_errors
from multitl.system.writing import write_json


@dataclass(frozen=True)
class ExportJob:
    """An artefact to be written, as it travels to the process that writes it.

    model: a folder with model.keras and card.json.  takes: what the artefact will take.  calibration: an .npy file of
    what it takes (n, height, width, 3), "" where no numbers are rounded.  also: outputs beside the first, see
    `formats.SECOND`.
    """

    format: str
    model: str
    takes: Takes
    calibration: str = ""
    also: Sequence[str] = ()


def export(job: ExportJob, folder: Path) -> None:
    """Load the model, give it its entrance, and have the format's writer write it."""
    sys.setrecursionlimit(10_000)  # Keras walks nested structures recursively
    source, chosen, backend = Path(job.model), FORMATS[job.format], load_backend()
    card = read_card(source)
    model = load_network(card.model_file(source), card.output, in_float32=True)
    backbone = backbone_of(model)
    if chosen.is_folded:
        backbone = fold_batch_norm(backbone)
    entered = with_entrance(model, backbone, card.preprocess, job.takes)
    writer = cast(Writer, load_function(chosen.writer))
    writer(
        Export(
            model=_with_outputs(entered, job.also, source),
            name=card.backbone.name,
            class_names=card.class_names,
            preprocess=card.preprocess,
            takes=job.takes,
            calibration=np.load(job.calibration) if job.calibration else None,
            tensors=original_tensors(model, card) if chosen.is_state_dict else {},
            outputs=(FIRST_OUTPUT, *job.also),
        ),
        folder,
    )
    versions = {"keras": keras.__version__} | backend.versions()
    write_json(folder / "written.json", {"backend": backend.name, "versions": versions})


def _with_outputs(model: keras.Model, names: Sequence[str], run: Path) -> keras.Model:
    """The model, with further outputs. run: the folder that it came from, which knows how strange images are."""
    if not names:
        return model
    further = [contributions_of(model) if name == CONTRIBUTIONS else _strangeness_of(model, run) for name in names]
    return keras.Model(model.input, [model.output, *further], name=model.name)


def _strangeness_of(model: keras.Model, run: Path) -> keras.KerasTensor:
    return strangeness_of(model, read_familiarity(run, features_and_logits(model)[0].shape[-1]))


def main(arguments: list[str]) -> int:
    """JOB as JSON, and the folder to write to."""
    job, folder = ExportJob(**json.loads(arguments[0])), Path(arguments[1])
    return report_errors(lambda: export(job, folder), folder / "error.json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
