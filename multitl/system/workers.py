"""Work in a process of its own: another framework, and its crashes, never enter this one.

A worker is a module's `main`, started by `children.run`. What is the input's or the machine's fault it writes down as
error.json in the folder it was given, and this process raises it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from multitl import errors
from multitl.adapters import BACKENDS
from multitl.errors import BackendError, MultitlError, TranslationError, full_disk, tells_full_disk
from multitl.system import children
from multitl.system.writing import write_json

NOT_NEEDED = frozenset({*BACKENDS, "pandas", "sklearn"})  # Keras imports what it finds of these: seconds for nothing
FULL = 28  # exit code of a worker for whose last words there was no room


def run_worker(
    module: str,
    arguments: Sequence[str],
    backend: str,
    folder: Path,
    *,
    task: str,
    extra: str,
    packages: Collection[str] = (),
) -> None:
    """Run a worker under a Keras backend, on the CPU, since this process may hold the whole GPU's memory (JAX does).

    folder: where it writes.  task: what it does, for people ("translates timm/resnet18").  extra: of multitl's, which
    installs what it needs.  packages: frameworks that it imports beside the backend's; others look absent to it.
    Raises what the worker wrote down; TranslationError if it ended early.
    """
    environment = os.environ | {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONDONTWRITEBYTECODE": "1"}
    ended = children.run(module, arguments, environment, hidden=NOT_NEEDED - {backend, *packages})
    report = folder / "error.json"
    if report.is_file():
        raise read_error(report)
    if ended.code:
        raise _ended_early(task, backend, extra, ended)


def save_array(path: Path, array: np.ndarray) -> None:
    """np.save, but a full disk has its errno: NumPy has its own way to write to what it knows as an ordinary file."""
    with path.open("w+b") as file:
        np.save(file, array, allow_pickle=False)


def report_errors(work: Callable[[], None], report: Path) -> int:
    """A worker's exit code. What is the input's or the machine's fault goes into `report`, for `read_error`."""
    try:
        try:
            work()
        except MultitlError as error:
            _write_error(error, report)
            return 2
        return 0
    except Exception as error:  # whatever library it came from
        if not tells_full_disk(error):
            raise
        return FULL


def _write_error(error: MultitlError, report: Path) -> None:
    values = {name: getattr(error, name) for name in ("problem", "fix", "expected", "received")}
    values |= {"kind": type(error).__name__, "nearest": list(error.nearest)}
    values["missing"] = list(error.missing) if isinstance(error, TranslationError) else []
    write_json(report, values)


def read_error(report: Path) -> MultitlError:
    """The error that a worker wrote down, as it was; the file goes."""
    values = json.loads(report.read_text(encoding="utf-8"))
    report.unlink()
    kind = getattr(errors, values["kind"])
    arguments = {name: values[name] for name in ("problem", "fix", "expected", "received")}
    more = "missing" if kind is TranslationError else "nearest"
    return kind(**arguments, **{more: tuple(values[more])})


def _ended_early(task: str, backend: str, extra: str, ended: children.Ended) -> MultitlError:
    last = children.last_words(ended)
    if ended.code == FULL or tells_full_disk(last):
        return full_disk(f"the process that {task} met a full disk")
    if last == f"ModuleNotFoundError: No module named '{backend}'":
        return BackendError(
            f"The process that {task} needs {backend}.",
            expected=f"the Python package {backend}, whatever backend the network is used on afterwards",
            received="it is not installed",
            fix=f"pip install 'multitl[{extra}]'",
        )
    return TranslationError(
        f"The process that {task} ended early.",
        expected="exit code 0",
        received=f"exit code {ended.code}: {last}",
        fix="multitl doctor; if the machine is short of memory, choose a smaller network",
    )
