"""One worker's process, held by an object on the worker's own machine: ours, or the one where Ray has put it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from multitl.system import children
from multitl.system.scratch import temporary_folder

LAST = 2**16  # bytes of what a worker said that are kept for people
PATIENCE = 5.0  # seconds that a worker has to end by itself once it was asked to
CHUNK = 2**16


@dataclass(frozen=True)
class Job:
    """module, arguments: what runs.  variables: that the process has besides ours.  folder: that it works in.
    cores: that it may use; none named: all.  screen: columns and lines of the terminal that it shows its bars on.
    """

    module: str
    arguments: tuple[str, ...]
    variables: dict[str, str]
    folder: str
    cores: tuple[int, ...] = ()
    screen: tuple[int, int] | None = None


class Worker:
    """A process `python -m MODULE ARGUMENT...`, which ends with the process that holds this object, at the latest."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._kept = contextlib.ExitStack()
        self._files: Path | None = None
        self._told = {"out": 0, "errors": 0}
        self._screen: int | None = None

    def start(self, job: Job, *, is_heard: bool) -> None:
        """Begin.  is_heard: it writes to our own stdout and stderr; otherwise to files, which `read` reads.

        Raises FileNotFoundError where this machine has no such folder.
        """
        environment = os.environ | job.variables | {"PWD": job.folder}
        with contextlib.chdir(job.folder), _bound_to(job.cores):
            if is_heard:
                self._process = children.start(job.module, job.arguments, environment)
                return
            self._files = self._kept.enter_context(temporary_folder())
            with self._file("out").open("wb") as out, self._errors(job.screen) as errors:
                self._process = children.start(job.module, job.arguments, environment, out, errors)

    def code(self) -> int | None:
        """Its exit code, negative for a signal; None as long as it runs."""
        return self._process.poll() if self._process else None

    def look(self, seconds: float) -> tuple[int | None, bytes, bytes]:
        """Its exit code, and what it has written to stdout and stderr since we asked last; waits for news so long."""
        end = time.monotonic() + seconds
        while True:
            code = self.code()  # first: what it wrote before it ended is there then
            out, errors = self._rest("out"), self._shown() if self._screen is not None else self._rest("errors")
            if code is not None or out or errors or time.monotonic() >= end:
                return code, out, errors
            time.sleep(0.05)

    def words(self) -> str:
        """The end of what it wrote."""
        if not self._files:
            return ""
        texts = [_end_of(self._file(name)) for name in ("out", "errors")]
        return "\n".join(text for text in texts if text)

    def ask_to_end(self) -> None:
        if self._process and self.code() is None:
            self._process.terminate()

    def end(self, patience: float = PATIENCE) -> int | None:
        """Its exit code; until then it had so many seconds to end by itself. Nothing of it is left afterwards."""
        if not self._process:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        children.end(self._process)
        self._kept.close()
        if self._screen is not None:
            os.close(self._screen)
            self._screen = None
        return self._process.returncode

    def _file(self, name: str) -> Path:
        assert self._files
        return self._files / name

    @contextmanager
    def _errors(self, screen: tuple[int, int] | None) -> Iterator[int]:
        """Where it writes progress to: a file, or a terminal of its own, if people look at one."""
        if screen is None:
            with self._file("errors").open("wb") as file:
                yield file.fileno()
            return
        import pty
        import termios

        self._screen, theirs = pty.openpty()
        columns, lines = screen
        termios.tcsetwinsize(theirs, (lines, columns))
        os.set_blocking(self._screen, False)
        try:
            yield theirs
        finally:
            os.close(theirs)

    def _shown(self) -> bytes:
        assert self._screen is not None
        with contextlib.suppress(BlockingIOError, OSError):  # EIO: its other side is closed
            return os.read(self._screen, CHUNK)
        return b""

    def _rest(self, name: str) -> bytes:
        if not self._files:
            return b""
        with self._file(name).open("rb") as file:
            file.seek(self._told[name])
            text = file.read(CHUNK)
        self._told[name] += len(text)
        return text


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def _end_of(file: Path) -> str:
    with contextlib.suppress(OSError), file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - LAST))
        return opened.read().decode("utf-8", errors="replace").strip()
    return ""


@contextmanager
def _bound_to(cores: Collection[int]) -> Iterator[None]:
    """What is started in the block computes on these cores alone, from its first instruction on."""
    if not cores or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
