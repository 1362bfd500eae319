"""Below a cell of a notebook: a display that is written anew in its place. It takes no widgets."""

from __future__ import annotations

import html
import sys
from dataclasses import dataclass
from typing import Any


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel. Loads nothing: a kernel has loaded what tells."""
    kernel = sys.modules.get("ipykernel.zmqshell")
    if kernel is None:
        return False
    from IPython import get_ipython

    return isinstance(get_ipython(), kernel.ZMQInteractiveShell)


@dataclass(frozen=True)
class Line:
    """share: of the work that is done, 0 to 1; None where nobody can count."""

    text: str
    share: float | None


class Display:
    """Lines below the cell that runs, the same ones however often they are shown."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, lines: list[Line]) -> None:
        from IPython.display import display

        content = {"text/plain": "\n".join(line.text for line in lines), "text/html": "".join(map(_draw, lines))}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def _draw(line: Line) -> str:
    bar = "" if line.share is None else f'<progress max="1" value="{line.share:.3f}"></progress> '
    return f'<div style="font-family: monospace; white-space: pre-wrap">{bar}{html.escape(line.text)}</div>'
