"""The errors multitl raises on purpose. Each says what was wrong and the next thing to do.

A user meets these on the command line (exit code 2, no traceback) and in Python (ordinary exceptions). Write the
message for somebody who has never seen the code: `problem` is one sentence, `fix` a command or an edit they can make.
"""

from __future__ import annotations

import copyreg
import difflib
import errno
import os
import traceback
from collections.abc import Iterable
from typing import Any

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of an OSError; EFBIG: a file may not grow any more
LOST = 75  # exit code: sysexits.h calls it a temporary failure, after which to try again
BELOW = "\n            "  # what comes next stands below the first word after "  received: "
NO_ROOM = tuple(os.strerror(number) for number in DISK_FULL)  # as libraries tell it that have their own errors


class MultitlError(Exception):
    """Base of all errors that are the input's or the machine's fault, never a bug in multitl.

    problem: one sentence.  expected / received: what would have been right, and what came.
    nearest: valid names close to the received one.  fix: the command or edit that mends it.
    """

    def __init__(
        self, problem: str, *, fix: str, expected: str = "", received: str = "", nearest: Iterable[str] = ()
    ) -> None:
        self.problem, self.fix, self.expected, self.received = problem, fix, expected, received
        self.nearest = tuple(nearest)
        details = {
            "expected": expected,
            "received": received,
            "nearest": ", ".join(self.nearest),
            "to mend": fix,
        }
        super().__init__("\n".join([problem, *(f"  {key}: {text}" for key, text in details.items() if text)]))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy what is held: `Exception` would call the class with its text alone, and `fix` is missing."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the message, and below it where the user's own code came to it."""
        own = os.path.dirname(__file__)  # noqa: PTH120  (of text that is no path at all, such as "<string>")
        frames = [
            frame
            for frame in traceback.extract_tb(self.__traceback__)
            if not frame.filename.startswith(own) and "/IPython/" not in frame.filename.replace(os.sep, "/")
        ]
        return [f"{type(self).__name__}: {self}", "", *(line.rstrip() for line in traceback.format_list(frames))]


class BackendError(MultitlError):
    """A backend is unknown, not installed, or at odds with the one already chosen."""


class BackboneError(MultitlError):
    """A backbone name, variant, stage or layer pattern that does not exist."""


class WeightsError(MultitlError):
    """A weights file that is missing, unsafe, damaged, or made for another network."""


class TranslationError(MultitlError):
    """A network whose graph cannot be translated, or whose translation does not compute what the original does.

    missing: names of the operations that have no translation.
    """

    def __init__(
        self, problem: str, *, fix: str, expected: str = "", received: str = "", missing: tuple[str, ...] = ()
    ) -> None:
        super().__init__(problem, fix=fix, expected=expected, received=received)
        self.missing = missing


class DataError(MultitlError):
    """A data set that cannot be trained on or judged with."""


class RecipeError(MultitlError):
    """An option outside its range, or a recipe file with unknown keys."""


class RunError(MultitlError):
    """A run folder that exists already, is incomplete, belongs to another recipe, or cannot be written."""


class GroupError(MultitlError):
    """Processes that are to work on one run together and cannot: one is missing, unlike the others, or misinformed."""


class LostPeerError(GroupError):
    """One of the processes is gone, or silent for too long. What was saved is kept, and `resume` goes on from there,
    with as many processes or fewer. The command line's exit code is `LOST`.
    """


class CacheError(MultitlError):
    """What is asked of the cache cannot be."""


class PortError(MultitlError):
    """A model that cannot leave in the form asked for, or that computed something else once it had."""


class ServeError(MultitlError):
    """A server that cannot start: what is to answer, where it listens, or what it needs is missing."""


def tells_full_disk(error: BaseException | str) -> bool:
    """Whether an error that a library met while writing, or its text, means that there was no room."""
    return (isinstance(error, OSError) and error.errno in DISK_FULL) or any(text in str(error) for text in NO_ROOM)


def full_disk(told: object) -> RunError:
    """For a full disk that is met far from where it is known which file it was. told: the operating system's words."""
    return RunError(
        f"There is no room left to write to: {told}.",
        expected="some free space where the output, the run folder, the cache and temporary files (TMPDIR) go",
        fix="free some space; finetune and demo then go on with --resume",
    )


def nearest_names(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """The `count` members of `choices` most similar to `name`, ignoring case; best first, possibly none."""
    by_key = {choice.lower(): choice for choice in choices}
    matches = difflib.get_close_matches(name.lower(), by_key, n=count, cutoff=0.5)
    return [by_key[match] for match in matches]


def shorten(names: Iterable[str], most: int = 5, between: str = ", ") -> str:
    """ "a, b, c and 7 more" """
    listed = list(names)
    rest = f"{between.lstrip(',')}and {len(listed) - most} more" if len(listed) > most else ""
    return between.join(listed[:most]) + rest
