"""Translated networks on disk: made once, in a process of their own, and then loaded without the framework they came
from.

An entry is a folder with `model.keras`, the whole network, and `card.json`: hash of the weights, versions, parity
figures, and where each tensor of the original went. It is made beside its place and renamed, so that it is complete or
not there; of two processes that want the same network at once, the second waits for the first one's.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from multitl import errors
from multitl.adapters import TRANSLATORS
from multitl.contracts import Job, Translation
from multitl.errors import tells_full_disk
from multitl.models.model_files import load_saved_model
from multitl.runs.cards import EntryCard, read_entry_card
from multitl.runs.locks import locked, place_lock
from multitl.system.messages import say
from multitl.system.scratch import temporary_folder
from multitl.system.workers import run_worker
from multitl.system.writing import cannot_write
from multitl.translation.entries import entry_folder


@dataclass(frozen=True, eq=False)
class Entry:
    """A translated network from the cache. card: what card.json says of it."""

    translation: Translation
    card: EntryCard


def translated(job: Job) -> Entry:
    """The network of a job: from the cache, else translated now by `multitl.translation.worker` in a new process.

    Raises what that process raised: WeightsError, TranslationError, BackendError for a missing package, ...
    """
    folder = entry_folder(job)
    entry = _find(folder)
    if entry is None:
        with locked(place_lock(folder), folder, wait=True):
            entry = _find(folder)  # another process may have made it meanwhile
            if entry is None:
                shutil.rmtree(folder, ignore_errors=True)
                _make(job, folder)
                entry = _load(folder)
    return entry


def _find(folder: Path) -> Entry | None:
    """None if it is not there, damaged, or of another Keras."""
    try:
        return _load(folder) if folder.is_dir() else None
    except (errors.MultitlError, OSError, ValueError, KeyError, TypeError) as error:
        if tells_full_disk(error):
            raise
        return None


def _load(folder: Path) -> Entry:
    card = read_entry_card(folder)
    model = load_saved_model(folder / "model.keras")
    return Entry(Translation(model, card.weights, card.stages, card.unused), card)


def _make(job: Job, folder: Path) -> None:
    say(f"translating {job.source}/{job.name}: once, then it comes from the cache")
    try:
        with temporary_folder(folder.parent) as work:
            _run_worker(job, work)
            work.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster, where there are no locks
            raise cannot_write(folder, error) from error


def _run_worker(job: Job, work: Path) -> None:
    arguments = [json.dumps(asdict(job)), str(work)]
    task = f"translates {job.source}/{job.name}"
    run_worker("multitl.translation.worker", arguments, TRANSLATORS[job.source][1], work, task=task, extra=job.source)
