"""Which function translates which op:

    ops = OpTable("torch.fx")

    @ops("conv2d")
    def conv2d(build: Builder, x: Activation, weight: Value, ...) -> Activation: ...

A table holds one function an op; what a graph has and no table holds is listed all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from multitl.errors import BELOW, TranslationError


class OpTable:
    """Name of an op -> the function that translates it."""

    def __init__(self, name: str, *tables: OpTable) -> None:
        """tables: whose entries this one takes over."""
        self.name = name
        self._functions: dict[str, Callable[..., Any]] = {}
        for table in tables:
            for op, function in table._functions.items():
                self._add(op, function)

    def __call__(self, *names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function for some ops. A second registration raises ValueError."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            for name in names:
                self._add(name, function)
            return function

        return register

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._functions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def replaced(self, functions: Mapping[str, Callable[..., Any]]) -> OpTable:
        """A copy in which some ops are translated otherwise."""
        copy = OpTable(self.name, self)
        copy._functions |= functions
        return copy

    def _add(self, name: str, function: Callable[..., Any]) -> None:
        if name in self._functions:
            raise ValueError(f"{self.name}: the op {name} is registered already")
        self._functions[name] = function


class Unsupported(Exception):  # noqa: N818  (a request to look elsewhere, not an error a user meets)
    """Raised by an op's function for arguments it has no translation for; the walk adds the node and goes on."""


def refuse_graph(what: str, missing: Mapping[str, Sequence[str]]) -> TranslationError:
    """The error for a graph with ops that have no translation. missing: op -> names of its nodes."""
    listed = [
        f"{op} ({len(nodes)}): {', '.join(nodes[:3])}{', ...' * (len(nodes) > 3)}" for op, nodes in missing.items()
    ]
    return TranslationError(
        f"{what} cannot be translated: {len(missing)} of its operations have no translation yet.",
        expected="a network of operations that multitl knows",
        received=BELOW.join(listed),
        fix="choose another network, or report this list at the project's issue tracker",
        missing=tuple(missing),
    )
