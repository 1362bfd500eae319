"""What people are told meanwhile: records of the logger "multitl", on stderr; in a notebook, below the cell.

    logging.getLogger("multitl").setLevel("WARNING")                             # warnings alone, and no progress
    logging.getLogger("multitl").addHandler(logging.FileHandler("multitl.log"))  # into a file as well

Its level is INFO unless the program has set one. Records go no further up, to the root logger: programs that log would
show each of them twice.
"""

from __future__ import annotations

import logging
import sys

from rich.console import Console

from multitl.system.notebooks import in_notebook
from multitl.system.printing import PIPE_WIDTH

LOGGER = logging.getLogger("multitl")


class Screen(logging.Handler):
    """Shows each message where people look at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        console().print(f"{prefix}{record.getMessage()}", markup=False)


LOGGER.setLevel(LOGGER.level or logging.INFO)
LOGGER.propagate = False
LOGGER.addHandler(Screen())


def say(text: str) -> None:
    """Tell what was found or done."""
    LOGGER.info("%s", text, stacklevel=2)


def warn(text: str) -> None:
    """Tell what may be wrong."""
    LOGGER.warning("%s", text, stacklevel=2)


def is_heard() -> bool:
    """Whether people want to be told what is going on."""
    return LOGGER.isEnabledFor(logging.INFO)


def console() -> Console:
    """Where messages for people go. Results go to stdout, so that they can be piped; a notebook shows both below the
    cell, and what comes on stderr as if it were an error.
    """
    if in_notebook():
        return Console(file=sys.stdout, force_jupyter=False, highlight=False, width=PIPE_WIDTH)
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)
