"""`port`: a model leaves for another ecosystem, and is kept only if it still gives the same answers there.

An artefact is written under the backend that can, in a process of its own; then its own ecosystem's runtime opens it in
another one, without Keras, and its answers are compared with those of the model it came from, on real images.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import to_builtins

from multitl.adapters import BACKENDS, is_present
from multitl.contracts import RGB, VALUE, Backend, Preprocess, Takes
from multitl.errors import MultitlError
from multitl.judging.costs import cost_matrix
from multitl.judging.summaries import read_figures
from multitl.models.preprocessing import normalise
from multitl.porting.asked import check_goal, check_photos, output_of
from multitl.porting.departures import Departure, departing
from multitl.porting.export_worker import ExportJob
from multitl.porting.folders import check_output, folder_in_the_making, put_back, size_of
from multitl.porting.formats import FORMATS, check_format
from multitl.porting.model_cards import model_card
from multitl.porting.proofs import prove
from multitl.porting.second_outputs import second_output
from multitl.runs.locks import locked, place_lock
from multitl.standalone.programs import write_program
from multitl.system.progress import progress_bar
from multitl.system.scratch import temporary_folder
from multitl.system.threads import default_threads
from multitl.system.workers import run_worker, save_array
from multitl.system.writing import read_json, write_json, write_text
from multitl.training.recording import describe_machine

TAKES = {
    "pixels": "RGB pixels, uint8, 0 to 255",
    "unit": "RGB, float32, 0 to 1",
    "normalised": "float32, normalised as backbone.preprocess says",
}
OTHERWISE = {"pixels": "pixels of {} channels, uint8, 0 to 255", "unit": "{} channels, float32, 0 to 1"}  # than RGB


@dataclass(frozen=True, eq=False)
class Ported:
    """An artefact that was written and proved. `card` is card.json, which lies in `output` beside it."""

    output: Path
    card: dict[str, Any]


def port_all(
    model: str,
    formats: Sequence[str],
    output: str | os.PathLike[str] | None,
    *,
    backend: Backend,
    images: str | os.PathLike[str] | None,
    calibration: str | os.PathLike[str] | None,
    preprocess: bool,
    weights: str,
    image_size: int,
    overwrite: bool,
    also: Sequence[str] = (),
) -> tuple[list[Ported], list[MultitlError]]:
    """Write a model in some formats: see `multitl.port`. What goes wrong with one of them does not stop the others.

    output: of one format its folder, of several the folder that theirs are made in.
    """
    folders = {to: output_of(model, to, output, alone=len(formats) == 1) for to in formats}
    ported: list[Ported] = []
    faults: list[MultitlError] = []
    with ExitStack() as stack:
        for to, folder in folders.items():
            check_format(to)
            stack.enter_context(locked(place_lock(folder), folder))
            put_back(folder)
            check_output(folder, overwrite=overwrite)
        departure = stack.enter_context(
            departing(model, backend, images=images, calibration=calibration, weights=weights, image_size=image_size)
        )
        for to, folder in folders.items():
            try:
                ported.append(_port(departure, to, folder, preprocess=preprocess, overwrite=overwrite, also=also))
            except MultitlError as error:
                faults.append(error)
    return ported, faults


def _port(
    departure: Departure, to: str, output: Path, *, preprocess: bool, overwrite: bool, also: Sequence[str]
) -> Ported:  # fmt: skip
    """Write a model in one format, which this machine has what it takes for, and prove it."""
    chosen = FORMATS[to]
    takes: Takes = chosen.takes if preprocess else "normalised"
    check_goal(to, departure.run.card.recipe)
    check_photos(to, are_photos=departure.reference.are_photos)
    seconds = {name: second_output(name, departure) for name in also}
    with (
        folder_in_the_making(output, overwrite=overwrite) as work,
        temporary_folder() as scratch,
        progress_bar() as bar,
    ):
        task = bar.add_task(f"{to:<9}", total=3, note=f"writing under {chosen.backend or departure.backend.name}")
        written = _write(departure, to, takes, work, scratch, also)
        bar.update(task, completed=1, note="opening it again")
        outputs, milliseconds, opened_by, others = _open_again(departure, to, takes, work, scratch, also)
        bar.update(task, completed=2, note=f"comparing what {opened_by} gives")
        proof = prove(departure, outputs, to, scratch)
        proofs = {name: seconds[name].prove(values) for name, values in others.items()}
        card = departure.run.card
        runtime = chosen.runtime.partition(":")[2]
        costs = cost_matrix(card.recipe.costs, card.class_names)
        write_program(work, runtime, card.preprocess, takes, card.class_names, card.thresholds, costs)
        bar.update(task, completed=3, note="")
        about = _card(departure, to, takes, {name: values.shape[1:] for name, values in others.items()}) | {
            "written_by": written,
            "opened_by": opened_by,
            "proof": proof | proofs,
            "bytes": size_of(work, chosen.files),
            **{name: about for name in also if (about := seconds[name].about())},
            "latency": {"milliseconds": round(milliseconds, 3), "threads": default_threads(), "images": 1},
        }
        write_json(work / "card.json", about)
        write_text(work / "README.md", model_card(card, read_figures(departure.run), about))
    return Ported(output, about)


def _write(
    departure: Departure, to: str, takes: Takes, work: Path, scratch: Path, also: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    """Returns what wrote it: a backend and versions."""
    chosen, calibration, run = FORMATS[to], "", departure.run
    if chosen.is_calibrated:
        calibration = str(scratch / "calibration.npy")
        save_array(Path(calibration), as_taken(departure.reference.calibration, takes, run.card.preprocess))
    job = ExportJob(to, str(run.folder.resolve()), takes, calibration, also)
    arguments, backend = [json.dumps(asdict(job)), str(work)], chosen.backend or departure.backend.name
    run_worker(
        "multitl.porting.export_worker", arguments, backend, work,
        task=f"writes {to}", extra=chosen.extra, packages=chosen.packages,
    )  # fmt: skip
    written = read_json(work / "written.json", missing="multitl port")
    (work / "written.json").unlink()
    return written


def _open_again(
    departure: Departure, to: str, takes: Takes, work: Path, scratch: Path, also: Sequence[str]
) -> tuple[np.ndarray, float, str, dict[str, np.ndarray]]:
    """The artefact's answers, the median time of one image, what opened it, and its further outputs, from a process of
    its own.
    """
    inputs = scratch / "inputs.npy"
    save_array(inputs, as_taken(departure.reference.pixels, takes, departure.run.card.preprocess))
    chosen, arguments = FORMATS[to], [to, str(work), str(inputs), *also]
    backend = chosen.backend or another(departure.backend.name)
    run_worker(
        "multitl.porting.proof_worker", arguments, backend, work,
        task=f"opens {to}", extra=chosen.extra, packages=chosen.packages,
    )  # fmt: skip
    with np.load(work / "proof.npz") as proof:
        others, milliseconds = {name: proof[name] for name in also}, float(np.median(proof["milliseconds"]))
        answer = proof["outputs"], milliseconds, str(proof["opened_by"]), others
    (work / "proof.npz").unlink()
    return answer


def as_taken(pixels: np.ndarray, takes: Takes, preprocess: Preprocess) -> np.ndarray:
    """uint8 pixels as an artefact takes them."""
    if takes == "unit":
        return pixels.astype("float32") / np.float32(255)
    return normalise(pixels, preprocess) if takes == "normalised" else pixels


def _taken(takes: Takes, preprocess: Preprocess) -> str:
    """The same for people."""
    words = TAKES if preprocess.channels == RGB else {**TAKES, **OTHERWISE}
    return words[takes].format(preprocess.channels)


def another(backend: str) -> str:
    """An installed backend other than this one, if there is one: Keras' own format shall be proved elsewhere."""
    return next((name for name in BACKENDS if name != backend and is_present(name)), backend)


def _card(departure: Departure, to: str, takes: Takes, others: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What the artefact is, where it comes from, and how its images are made."""
    chosen, card = FORMATS[to], departure.run.card
    about = to_builtins(card.backbone)
    kept = {name: value for name, value in about.items() if name not in ("tensors", "classifier", "unused")}
    return describe_machine(departure.backend) | {
        "port": {"format": to, "files": list(chosen.files), "summary": chosen.summary, "runtime": chosen.runtime},
        "source": {
            "model": departure.name,
            "bytes": card.model_file(departure.run.folder).stat().st_size,
            "milliseconds": round(departure.reference.milliseconds, 3),
        },
        "takes": {"images": _taken(takes, card.preprocess), "shape": [None, *card.preprocess.shape]},
        "gives": {VALUE if card.scale else "probabilities": [None, len(card.class_names)]}
        | {name: [None, *shape] for name, shape in others.items()},
        "thresholds": list(card.thresholds),
        "costs": card.recipe.costs,
        "plausible": to_builtins(card.plausible),
        "class_names": list(card.class_names),
        "backbone": kept,
    }
