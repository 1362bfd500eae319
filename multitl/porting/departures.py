"""Which model leaves: the folder of a run or of a translated network, a file, or the name of a network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from multitl.contracts import Backend
from multitl.judging.opening import Run, load_run
from multitl.porting.asked import folder_of, source_name
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
        folder = folder_of(model)
        if folder is None:
            folder = scratch / "network"
            translate(
                source_name(model), weights=weights, image_size=image_size, head="keep", preprocess="auto",
                backend=backend, output=folder, overwrite=False,
            )  # fmt: skip
        run = replace(load_run(folder), in_float32=True)  # as artefacts do
        with backend.full_precision():
            reference = make_reference(run, images, calibration)
        yield Departure(model, run, reference, backend)
