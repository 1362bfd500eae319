"""Packages that look absent to the rest of a process."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


def hide(names: frozenset[str]) -> None:
    """Make packages that have not been imported look as if they were not installed, in this process from now on."""
    hiding = _Hiding(names)
    sys.meta_path[:] = [hiding if finder is PathFinder else finder for finder in sys.meta_path]


class _Hiding(PathFinder):
    """Python's own finder, but some packages are not installed to whoever asks it.

    An import hook that raises would stop PyTorch, which asks for TensorFlow; a None in sys.modules would mislead scipy.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # type: ignore[override]
        return None if fullname in self._names else PathFinder.find_spec(fullname, path, target)
