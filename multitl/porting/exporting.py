"""`port`: a model leaves for another ecosystem, and is kept only if it still gives the same answers there.

An artefact is written under the backend that can, in a process of its own; then its own ecosystem's runtime opens it in
another one, without Keras, and its answers are compared with those of the model it came from, on real images.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import to_builtins

from multitl.adapters import BACKENDS, SOURCES, is_present, short_name
from multitl.contracts import Backend, ExportJob, Format, Parity, Takes
from multitl.errors import BackendError, MultitlError, PortError, nearest_names
from multitl.judging.evaluation import Run, load_run
from multitl.models.preprocessing import normalise
from multitl.porting.formats import FORMATS, find_format, missing_packages
from multitl.porting.references import Reference, make_reference, size_of
from multitl.porting.translate import translate
from multitl.runs.cards import is_port
from multitl.runs.locks import locked, place_lock
from multitl.system.progress import console
from multitl.system.scratch import temporary_folder
from multitl.system.threads import default_threads
from multitl.system.workers import run_worker, save_array
from multitl.system.writing import cannot_write, read_json, umask, write_json
from multitl.training.recording import describe_machine
from multitl.translation import parity
from multitl.translation.divergence import first_divergence

MIN_AGREEMENT = 0.9  # share of images with the same class, of an artefact of 8 bits,
MAX_LOSS = 0.03  # unless it is hardly less accurate: images that the model is unsure of change sides both ways
TAKES = {
    "pixels": "RGB pixels, uint8, 0 to 255",
    "unit": "RGB, float32, 0 to 1",
    "normalised": "float32, normalised as backbone.preprocess says",
}


@dataclass(frozen=True, eq=False)
class Ported:
    """An artefact that was written and proved. `card` is card.json, which lies in `output` beside it."""

    output: Path
    card: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Departure:
    """A model that is about to leave, and the answers that it shall give wherever it goes. name: as the user has it."""

    name: str
    run: Run
    reference: Reference
    backend: Backend


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
) -> tuple[list[Ported], list[MultitlError]]:
    """Write a model in some formats: see `multitl.port`. What goes wrong with one of them does not stop the others.

    output: of one format its folder, of several the folder that theirs are made in.
    """
    folders = {to: _output(model, to, output, alone=len(formats) == 1) for to in formats}
    ported: list[Ported] = []
    faults: list[MultitlError] = []
    with ExitStack() as stack:
        for to, folder in folders.items():
            check_format(to)
            stack.enter_context(locked(place_lock(folder), folder))
            _put_back(folder)
            check_output(folder, overwrite=overwrite)
        departure = stack.enter_context(
            departing(model, backend, images=images, calibration=calibration, weights=weights, image_size=image_size)
        )
        for to, folder in folders.items():
            try:
                ported.append(port(departure, to, folder, preprocess=preprocess, overwrite=overwrite))
            except MultitlError as error:
                faults.append(error)
    return ported, faults


def _output(model: str, to: str, output: str | os.PathLike[str] | None, *, alone: bool) -> Path:
    if output is None:
        return Path(default_output(model, to))
    return Path(output) if alone else Path(output, to)


@contextmanager
def departing(
    model: str,
    backend: Backend,
    *,
    images: str | os.PathLike[str] | None,
    calibration: str | os.PathLike[str] | None,
    weights: str,
    image_size: int,
) -> Iterator[Departure]:
    """Open a model and ask it: see `multitl.port` for what it may be, and `references.make_reference`."""
    with temporary_folder() as scratch:
        folder = _folder_of(model)
        if folder is None:
            folder = scratch / "network"
            translate(
                _source_name(model), weights=weights, image_size=image_size, head="keep", preprocess="auto",
                backend=backend, output=folder, overwrite=False,
            )  # fmt: skip
        run = load_run(folder)
        yield Departure(model, run, make_reference(run, images, calibration), backend)


def default_output(model: str, to: str) -> str:
    """Beside a run's folder, else in runs/."""
    folder = _folder_of(model)
    if folder:
        return f"{folder}-{to}"
    name = short_name(_source_name(model))
    return f"runs/{''.join(c if c.isalnum() or c in '._-' else '-' for c in name)}-{to}"


def _folder_of(model: str) -> Path | None:
    """The folder of a run or a translated network that `model` names, by itself or by its model.keras."""
    path = Path(model).expanduser()
    try:
        if path.is_dir():
            return path
        is_saved = path.is_file() and path.name == "model.keras"
        return path.parent if is_saved and (path.parent / "card.json").is_file() else None
    except (OSError, ValueError):  # ValueError: a NUL
        return None


def _source_name(model: str) -> str:
    """What `load_pretrained` takes. Raises PortError for what is neither a path nor the name of a network."""
    if Path(model).expanduser().is_file():
        return f"file:{model}"
    if model.startswith("file:") or model.partition("/")[0] in SOURCES:
        return model
    raise PortError(
        f"There is no model {model!r}.",
        expected="the folder of a finished run, a .keras or .h5 file, or a network such as torchvision/resnet50",
        received=model,
        nearest=nearest_names(model, (str(card.parent) for card in Path("runs").glob("*/card.json"))),
        fix="multitl backbones, or look into runs/",
    )


def port(departure: Departure, to: str, output: Path, *, preprocess: bool, overwrite: bool) -> Ported:
    """Write a model in one format and prove it: see `multitl.port`."""
    chosen = check_format(to)
    check_output(output, overwrite=overwrite)
    takes: Takes = chosen.takes if preprocess else "normalised"
    _check_calibration(chosen, to, departure.reference)
    with _folder_in_the_making(output, overwrite=overwrite) as work, temporary_folder() as scratch:
        console().print(f"writing {to} under {chosen.backend or departure.backend.name}", markup=False)
        written = _write(departure, to, takes, work, scratch)
        outputs, milliseconds, opened_by = _open_again(departure, to, takes, work, scratch)
        proof = _prove(departure, outputs, to, scratch)
        card = _card(departure, to, takes) | {
            "written_by": written,
            "opened_by": opened_by,
            "proof": proof,
            "bytes": size_of(work, chosen.files),
            "latency": {"milliseconds": round(milliseconds, 3), "threads": default_threads(), "images": 1},
        }
        write_json(work / "card.json", card)
    return Ported(output, card)


def check_format(to: str) -> Format:
    """The format, if this machine has what it takes. Raises PortError for an unknown one, BackendError for packages."""
    chosen = find_format(to)
    if missing := missing_packages(chosen):
        raise BackendError(
            f"The format {to} cannot be written here.",
            expected=f"the Python packages {', '.join(chosen.packages)}",
            received=f"no {', '.join(missing)}",
            fix=f"pip install 'multitl[{chosen.extra}]'",
        )
    return chosen


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raises PortError where something lies at `output` that may not be replaced: an older port may be, if asked."""
    if not os.path.lexists(output):
        return
    replaceable = is_port(output)
    if replaceable and overwrite:
        return
    raise PortError(
        f"{output} exists already.",
        expected="a new folder" + (", or permission" if replaceable else ""),
        received=f"{output}: {'a port' if replaceable else 'something else, which is left alone'}",
        fix="add --overwrite to replace it, or choose another --out" if replaceable else "choose another --out",
    )


def _check_calibration(chosen: Format, to: str, reference: Reference) -> None:
    if chosen.bits < 32 and not reference.are_photos:
        raise PortError(
            f"The format {to} rounds numbers, which made-up images can neither guide nor judge.",
            expected="photos of the kind that the model is for",
            received="a model that no photos are known of",
            fix="name a folder of photos with --images",
        )


@contextmanager
def _folder_in_the_making(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder beside `output`, which takes its place if all goes well and leaves no trace if not."""
    try:
        with temporary_folder(output.parent) as work:
            yield work
            _open_to_others(work)
            if overwrite and output.exists():  # the older port goes only once the new one stands in its place
                output.rename(_older(output))
            work.rename(output)
            _put_back(output)
    except OSError as error:
        raise cannot_write(output, error) from error


def _older(output: Path) -> Path:
    """Where an older port waits until the new one stands in its place."""
    return output.parent / f".{output.name}.older"


def _put_back(output: Path) -> None:
    """An older port goes back to its place if a process was killed between taking it away and filling the place."""
    older = _older(output)
    if not (older / "card.json").is_file():
        return
    if os.path.lexists(output):
        shutil.rmtree(older, ignore_errors=True)
    else:
        older.rename(output)


def _open_to_others(folder: Path) -> None:
    """What a user's own programs would be allowed: temporary folders, and safetensors' files, are for their owner."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask())


def _write(departure: Departure, to: str, takes: Takes, work: Path, scratch: Path) -> dict[str, Any]:
    """Returns what wrote it: a backend and versions."""
    chosen, calibration = FORMATS[to], ""
    if chosen.is_calibrated:
        calibration = str(scratch / "calibration.npy")
        save_array(scratch / "calibration.npy", as_taken(departure.reference.calibration, takes, departure.run))
    job = ExportJob(to, str(departure.run.folder.resolve()), takes, calibration)
    arguments, backend = [json.dumps(asdict(job)), str(work)], chosen.backend or departure.backend.name
    run_worker("multitl.porting.export_worker", arguments, backend, work, task=f"writes {to}", extra=chosen.extra)
    written = read_json(work / "written.json", missing="multitl port")
    (work / "written.json").unlink()
    return written


def _open_again(
    departure: Departure, to: str, takes: Takes, work: Path, scratch: Path
) -> tuple[np.ndarray, float, str]:
    """The artefact's answers, the median time of one image, and what opened it, from a process of its own."""
    inputs = scratch / "inputs.npy"
    save_array(inputs, as_taken(departure.reference.pixels, takes, departure.run))
    arguments, backend = [to, str(work), str(inputs)], FORMATS[to].backend or another(departure.backend.name)
    run_worker("multitl.porting.proof_worker", arguments, backend, work, task=f"opens {to}", extra=FORMATS[to].extra)
    with np.load(work / "proof.npz") as proof:
        answer = proof["outputs"], float(np.median(proof["milliseconds"])), str(proof["opened_by"])
    (work / "proof.npz").unlink()
    return answer


def as_taken(pixels: np.ndarray, takes: Takes, run: Run) -> np.ndarray:
    """uint8 pixels as an artefact takes them."""
    if takes == "unit":
        return pixels.astype("float32") / np.float32(255)
    return normalise(pixels, run.preprocess) if takes == "normalised" else pixels


def another(backend: str) -> str:
    """An installed backend other than this one, if there is one: Keras' own format shall be proved elsewhere."""
    return next((name for name in BACKENDS if name != backend and is_present(name)), backend)


def _prove(departure: Departure, outputs: np.ndarray, to: str, scratch: Path) -> dict[str, Any]:
    """The figures for the card. Raises PortError where the answers are not the same."""
    chosen, reference = FORMATS[to], departure.reference
    found = parity.compare(reference.outputs, outputs)
    before, after = _accuracy(reference, reference.outputs), _accuracy(reference, outputs)
    if not _is_same(found, chosen, before, after):
        limit = f"the same class on {MIN_AGREEMENT:.0%} of the images, or at most {MAX_LOSS:g} less accuracy"
        accuracies = "" if before is None else f"; accuracy {before:.3f}, now {after:.3f}"
        raise PortError(
            f"The model in the format {to} does not give the answers of the one it came from, so it was not kept.",
            expected=limit if chosen.bits < 32 else f"an error of at most {parity.MAX_REL:g} of the largest output",
            received=f"{parity.describe(found)}{accuracies}{_where(departure, chosen, scratch)}",
            fix="choose another format (multitl ports lists them), and report this with the network",
        )
    return {
        "on": reference.origin,
        "calibrated_on": reference.calibrated_on if chosen.is_calibrated else None,
        **asdict(found),
        "accuracy_before": before,
        "accuracy_after": after,
    }


def _where(departure: Departure, chosen: Format, scratch: Path) -> str:
    """The first place that differs, where another backend may be to blame."""
    if chosen.bits < 32 or chosen.backend in ("", departure.backend.name):
        return ""
    images = normalise(departure.reference.pixels[:2], departure.run.preprocess)
    return f"; {first_divergence(departure.run.folder, images, chosen.backend, scratch)}"


def _is_same(found: Parity, chosen: Format, before: float | None, after: float | None) -> bool:
    if chosen.bits == 32:
        return parity.is_close(found)
    keeps_accuracy = before is not None and after is not None and after >= before - MAX_LOSS
    return found.top1 >= MIN_AGREEMENT or keeps_accuracy


def _accuracy(reference: Reference, outputs: np.ndarray) -> float | None:
    return None if reference.labels is None else float(np.mean(outputs.argmax(1) == reference.labels))


def _card(departure: Departure, to: str, takes: Takes) -> dict[str, Any]:
    """What the artefact is, where it comes from, and how its images are made."""
    chosen, how = FORMATS[to], departure.run.preprocess
    about = to_builtins(departure.run.card.backbone)
    kept = {name: value for name, value in about.items() if name not in ("tensors", "classifier", "unused")}
    return describe_machine(departure.backend) | {
        "port": {"format": to, "files": list(chosen.files), "summary": chosen.summary, "runtime": chosen.runtime},
        "source": {
            "model": departure.name,
            "bytes": (departure.run.folder / "model.keras").stat().st_size,
            "milliseconds": round(departure.reference.milliseconds, 3),
        },
        "takes": {"images": TAKES[takes], "shape": [None, how.height, how.width, 3]},
        "gives": {"probabilities": [None, len(departure.run.class_names)]},
        "class_names": list(departure.run.class_names),
        "backbone": kept,
    }
