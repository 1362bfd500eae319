"""Workers from their start to the end of their work: all of them go on from the checkpoint when one is lost.

A worker is lost where something that is not its fault ended it: a signal (memory, a spot instance, a person), a machine
that went away, or that it lost the others. Its own fault ends the work: wrong input would be wrong again.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from multitl.errors import LOST, GroupError
from multitl.system.children import in_words
from multitl.system.messages import warn

PERIOD = 0.1  # seconds between two looks at the workers
GRACE = 10.0  # seconds in which those that fail for one reason have all failed
LOG = "workers.log"  # in the run's folder: what workers said that were lost or failed
BEGUN = "recipe.toml"  # in a run's folder, written when the run begins
CHECKPOINT = "checkpoint.safetensors"
BUG, INPUT = 1, 2  # exit codes: a traceback; a message of what to mend


class Team(Protocol):
    """Started workers. A code is None as long as its worker runs; `words(rank)` are the last that it wrote."""

    def codes(self) -> Sequence[int | None]: ...

    def words(self, rank: int) -> str: ...

    def is_heard(self, rank: int) -> bool:
        """Whether people have read what it wrote."""


Start = Callable[[bool], AbstractContextManager[Team]]


def see_through(start: Start, run: Path, restarts: int, *, resumes: bool) -> None:
    """Have a team do its work, all workers started anew where one is lost: `restarts` times without a new checkpoint.

    start(resumes): starts a team, to go on with what there is or not, and ends it at the end of the block.
    run: the folder that it makes.
    Raises SystemExit with the code of a worker that failed by its own fault, once people were told; GroupError where
    too many were lost.
    """
    begun, saved, left = _state(run / BEGUN), _state(run / CHECKPOINT), restarts
    while True:
        with start(resumes) as team:
            first, codes = _watch(team)
            if all(code == 0 for code in codes):
                return
            _keep_words(run, team, codes)
            _leave_if_at_fault(team, first, codes)
        rank = _first_lost(codes)
        now = _state(run / CHECKPOINT)
        left, saved = (restarts if now != saved else left) - 1, now
        if left < 0:
            raise _too_often(run, rank, codes, restarts)
        resumes = resumes or _state(run / BEGUN) != begun
        warn(f"worker {rank} was lost ({in_words(codes[rank])}); all {len(codes)} start again from what is saved")


def _watch(team: Team) -> tuple[Sequence[int | None], Sequence[int | None]]:
    """Wait for all to be done, or until one is not going to be: the codes at that moment, and a little later."""
    while True:
        codes = team.codes()
        if all(code == 0 for code in codes):
            return codes, codes
        if any(codes):
            return codes, _last_codes(team)
        time.sleep(PERIOD)


def _last_codes(team: Team) -> Sequence[int | None]:
    """Those of all who fail for the same reason: the first one to be seen need not be whose fault it is."""
    end = time.monotonic() + GRACE
    while None in (codes := team.codes()) and time.monotonic() < end:
        if any(code is not None and code < 0 for code in codes):
            break  # whoever is killed has no more to say, and the others wait for it in vain
        time.sleep(PERIOD)
    return codes


def _leave_if_at_fault(team: Team, first: Sequence[int | None], codes: Sequence[int | None]) -> None:
    """Raises SystemExit where one failed by its own fault, and sees to it that people have read why.

    first: the codes when the first one was seen to fail; the others may only repeat what they heard of it.
    """
    is_killed = any(code is not None and code < 0 for code in codes)
    code = INPUT if INPUT in codes else BUG
    if code not in codes or (code == BUG and is_killed):  # a bug may be what follows
        return
    ranks = [rank for rank, found in enumerate(first) if found == code] or [codes.index(code)]
    if not any(team.is_heard(rank) for rank in ranks):
        print(f"worker {ranks[0]} of {len(codes)}:\n{_message(team.words(ranks[0]))}", file=sys.stderr)
    raise SystemExit(code)


def _message(words: str) -> str:
    """From the message of a MultitlError on, where there is one."""
    return words[max(0, words.rfind("multitl: ")) :]


def _first_lost(codes: Sequence[int | None]) -> int:
    """Who was killed, else who is gone without a code of its own, else who lost the others."""
    signs: list[Callable[[int | None], bool]] = [
        lambda code: code is not None and code < 0,
        lambda code: code not in (None, 0, LOST),
        lambda code: code is None,
        lambda code: code == LOST,
    ]
    return next(rank for sign in signs for rank, code in enumerate(codes) if sign(code))


def _keep_words(run: Path, team: Team, codes: Sequence[int | None]) -> None:
    """Add what workers wrote that nobody has read to the run's log; before the run has one, show it."""
    if not (run / BEGUN).is_file():
        for rank, code in enumerate(codes):
            if code not in (None, 0, INPUT, BUG) and not team.is_heard(rank):  # of faults people are told anyway
                print(f"worker {rank} of {len(codes)}:\n{_message(team.words(rank))}", file=sys.stderr)
        return
    with contextlib.suppress(OSError), (run / LOG).open("a", encoding="utf-8") as log:
        for rank, code in enumerate(codes):
            how = "running" if code is None else in_words(code)
            log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} worker {rank} of {len(codes)}: {how}\n")
            log.write(f"{team.words(rank)}\n")


def _state(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _too_often(run: Path, rank: int, codes: Sequence[int | None], restarts: int) -> GroupError:
    told = f"; {run / LOG} has what they said" if (run / LOG).is_file() else ""
    return GroupError(
        f"Workers of {run} were lost {restarts + 1} times without a new checkpoint in between.",
        expected="at most --restarts",
        received=f"worker {rank} at last: {in_words(codes[rank])}{told}",
        fix="mend what ends them (killed by SIGKILL is often a lack of memory: fewer workers, a smaller --batch-size), "
        "and run the same command with --resume",
    )
