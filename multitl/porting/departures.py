"""Which model leaves: the folder of a run or of a translated network, a file, or the name of a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from multitl.adapters import SOURCES, folder_name
from multitl.contracts import Backend
from multitl.errors import PortError, nearest_names
from multitl.judging.evaluation import Run, load_run
from multitl.porting.references import Reference, make_reference
from multitl.porting.translate import translate
from multitl.system.scratch import temporary_folder


@dataclass(frozen=True, eq=False)
class Departure:
    """A model that is about to leave, and the answers that it shall give wherever it goes. name: as the user has it."""

    name: str
    run: Run
    reference: Reference
    backend: Backend


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
    return f"runs/{folder_name(_source_name(model))}-{to}"


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
