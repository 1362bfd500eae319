"""Functions of frameworks run another way for a while, and put back, as long as they are what they were.

Whatever Keras, PyTorch or TensorFlow do not promise is declared as an `Inside` in the file insides.py of whoever uses
it, and nowhere else. It is looked up once, when it is first wanted: files that hold declarations alone load nothing.
Where a release has moved it, or it takes other arguments, the `FastPath` that needs it stays closed: all else works, at
the framework's own speed.
"""

from __future__ import annotations

import contextlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any


@contextlib.contextmanager
def swapped(owner: object, name: str, replacement: object) -> Iterator[None]:
    """While open, `owner.name` is the replacement. What a class only inherits is its parent's again afterwards."""
    is_own, before = name in vars(owner), vars(owner).get(name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


class Inside:
    """A function inside a framework: where it is, what it takes, and why we reach for it."""

    def __init__(self, place: str, parameters: str, why: str) -> None:
        """place: "keras.layers:Conv2D.call".  parameters: their names in order; "..." for others after them."""
        self.place, self.parameters, self.why = place, tuple(parameters.split()), why

    @cached_property
    def original(self) -> Any:
        """The framework's own, as it was before anything was swapped; None where it is gone."""
        try:
            return pkgutil.resolve_name(self.place)
        except (ImportError, AttributeError):
            return None

    def swapped(self, replacement: Callable[..., Any]) -> contextlib.AbstractContextManager[None]:
        """While open, the replacement runs instead. Raises AttributeError where there is a `fault`."""
        if self.fault:
            raise AttributeError(self.fault)
        owner, _, name = self.place.rpartition("." if "." in self.place.partition(":")[2] else ":")
        return swapped(pkgutil.resolve_name(owner), name, replacement)

    @cached_property
    def fault(self) -> str:
        """What is not as declared, in a few words; "" if all is."""
        if not callable(self.original):
            return f"{self.place} is gone"
        try:
            found = tuple(inspect.signature(self.original).parameters)
        except ValueError:  # a function that is not written in Python
            found = ()
        wanted = [name for name in self.parameters if name != "..."]
        compared = found[: len(wanted)] if "..." in self.parameters else found
        taken = ", ".join(found) or "unknown"
        return "" if compared == tuple(wanted) else f"{self.place} takes other arguments ({taken})"


class FastPath:
    """Insides that are replaced together, or not at all."""

    def __init__(self, name: str, *insides: Inside, trial: Callable[[], object] | None = None) -> None:
        """trial: touches what else it needs that no signature tells of, and raises where that is not as it was."""
        self.name, self.insides, self._trial = name, insides, trial

    @cached_property
    def faults(self) -> tuple[str, ...]:
        """What is not as it was; none if the path is open."""
        found = [inside.fault for inside in self.insides if inside.fault]
        if self._trial and not found:
            try:
                self._trial()
            except Exception as error:  # a later release may keep it otherwise in any way
                found.append(str(error) if isinstance(error, AttributeError) else repr(error))
        return tuple(f"{self.name}: {fault}" for fault in found)

    @contextlib.contextmanager
    def replaced(self, *replacements: Callable[..., Any]) -> Iterator[None]:
        """While open, the replacements run, one for each inside, in order. Nothing is done if the path is closed."""
        with contextlib.ExitStack() as stack:
            for inside, replacement in zip(self.insides, replacements, strict=True) if not self.faults else ():
                stack.enter_context(inside.swapped(replacement))
            yield
