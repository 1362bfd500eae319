"""What frameworks print at their start that is for nobody who uses multitl; their errors are passed on.

TensorFlow 2.21 writes notes to file descriptor 2 before it reads TF_CPP_MIN_LOG_LEVEL, and Keras imports TensorFlow
under any backend, to save a model for instance. TF_CPP_MIN_LOG_LEVEL=0 shows them all, and the last words of an import
that kills the process.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType

_START_UP_NOTE = re.compile(rb"I0000 |WARNING: All log messages before absl::InitializeLog")


@contextmanager
def no_start_up_notes() -> Iterator[None]:
    """Drop TensorFlow's notes when TF_CPP_MIN_LOG_LEVEL asks for none; pass on everything else afterwards."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") in ("", "0"):
        yield
        return
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            os.write(2, b"".join(line for line in held if not _START_UP_NOTE.match(line)))


@contextmanager
def nothing_printed() -> Iterator[None]:
    """Drop what C++ prints to file descriptor 1, where results go: Gloo greets there, as JAX has it."""
    sys.stdout.flush()
    stdout, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(nowhere)


def import_tensorflow_quietly() -> None:
    """From now on, whoever imports it."""
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds what the others find, with a loader that is quiet."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        specs = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, specs), None)
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return spec
        loader, folders = _Loader(fullname, spec.loader.path), spec.submodule_search_locations
        return importlib.util.spec_from_file_location(
            fullname, spec.origin, loader=loader, submodule_search_locations=folders
        )


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        with no_start_up_notes():
            super().exec_module(module)
