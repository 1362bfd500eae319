"""A process that is the command line's alone: what it may do to itself, and must not do to a user's own program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from multitl.adapters import BACKENDS, choose_backend, is_installed
from multitl.system.cache import clear_cache
from multitl.system.hiding import hide
from multitl.system.scratch import all_temporary_files


@contextmanager
def session(backend: str | None) -> Iterator[None]:
    """What killed processes left is removed, all temporary files lie in one folder, one framework is there.

    backend: the one asked for, None for the usual choice.
    """
    with all_temporary_files():
        clear_cache()
        leave_out_other_frameworks(backend)
        yield


def leave_out_other_frameworks(requested: str | None) -> None:
    """Make the frameworks that this run does not use look absent.

    Keras imports TensorFlow under any backend if it can, when it saves a model for instance: 400 MB and seconds for
    nothing. So it does with pandas, which the command line does not need either.
    """
    chosen = choose_backend(requested)
    if chosen in BACKENDS and is_installed(chosen):
        hide(frozenset({*BACKENDS, "pandas"}) - {chosen})
