"""Processes that do not outlive who started them: `python -P -m multitl.system.children PARENT HIDDEN MODULE ...`.

A parent that is killed by SIGKILL cannot end its children. So every child, before it does anything else, has the kernel
promise to kill it with its parent, where the kernel does (Linux), and else looks for its parent every second; then it
becomes `python -m MODULE ARGUMENT...`. What it forks is tied to it in the same way.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from multitl.system.hiding import hide
from multitl.system.scratch import temporary_folder, variables

PR_SET_PDEATHSIG = 1  # linux/prctl.h
Stream: TypeAlias = "IO[bytes] | int | None"


@dataclass(frozen=True)
class Ended:
    """code: the exit code, negative for a signal, None if the time was up.  out, errors: what it printed."""

    code: int | None
    out: str
    errors: str


def run(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], limit: float | None = None,
    *, hidden: Collection[str] = (),
) -> Ended:  # fmt: skip
    """Run a module of ours in a process of its own, for `limit` seconds at most, and wait for it.

    hidden: packages that look absent to it.

    Whatever happens here, Ctrl-C too, nothing that it started is left, nor are its temporary files. Raises OSError if
    there is no room for these. The thread that calls must live as long as the process.
    """
    with temporary_folder() as scratch:
        own = {**environment, **variables(scratch)}
        with (scratch / "out").open("wb") as out, (scratch / "errors").open("wb") as errors:
            code = _wait(start(module, arguments, own, out, errors, hidden=hidden), limit)
        return Ended(code, _text(scratch / "out"), _text(scratch / "errors"))


def start(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], out: Stream = None, errors: Stream = None,
    *, hidden: Collection[str] = (),
) -> subprocess.Popen:  # fmt: skip
    """Start a module of ours in a process and a session of its own; whoever does so ends it, with `end`.

    out, errors: where it writes to; by itself where this process does.  hidden: as for `run`. It lives no longer than
    the thread that calls.
    """
    # -P: a folder called torch in the working directory must not be imported
    ours = [str(os.getpid()), ",".join(hidden), module]
    command = [sys.executable, "-P", "-m", "multitl.system.children", *ours, *arguments]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True
    )


def last_words(ended: Ended) -> str:
    """The last line that a child that failed wrote to stderr, and the signal if one killed it; for people."""
    lines = [line.strip() for line in ended.errors.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("For simplicity, JAX", "-----"))]
    words = lines[-1][:300] if lines else "it said nothing"
    is_killed = ended.code is not None and ended.code < 0
    return f"{in_words(ended.code)}: {words}" if is_killed else words


def in_words(code: int | None) -> str:
    """How a process ended, for people: "killed by SIGKILL", "exit code 1"; None: it has not."""
    if code is None:
        return "it does not answer"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _wait(process: subprocess.Popen, limit: float | None) -> int | None:
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end(process)


def end(process: subprocess.Popen) -> None:
    """Kill what `start` started, with its session, so that what it forked goes too, and wait until it is gone."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def die_with(parent: int) -> None:
    """Tie this process to the one that started it, whose number is `parent`.

    On Windows a virtual environment's Python starts the real one and takes it along, so nobody else is its parent.
    """
    if sys.platform == "win32":
        return
    is_tied = sys.platform == "linux" and not ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if not is_tied:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it was dead before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Become a module's process."""
    parent, hidden, module = int(arguments[0]), arguments[1], arguments[2]
    die_with(parent)
    if hidden:
        hide(frozenset(hidden.split(",")))
    if sys.platform != "win32":
        me = os.getpid()
        os.register_at_fork(after_in_child=lambda: die_with(me))
    sys.argv[1:] = arguments[3:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
