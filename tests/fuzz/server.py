"""`python -m fuzz.server READER`: a process that has imported a reader, and forks for each file that it is given.

On stdin the folders of mutants, one a line; on stdout one line of JSON for each, the fields of its `Outcome`. A
mutant's folder holds `input` (the file or folder to read), `work` (the working directory, which has to stay empty) and
`tmp`.
"""

from __future__ import annotations

import ast
import faulthandler
import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from multitl.errors import MultitlError

from .guard import REPORT, VIOLATED, install

SECONDS = 10  # of a processor
PATIENCE = 30  # seconds by the clock: other processes may have the processors
MEGABYTES = 1024  # more than at the start
MOST_FILE = 2**29  # bytes that a file may grow to
MOST_TEXT = 20_000
Read = Callable[[Path], object]
# What PyTorch says that could not get memory, in a RuntimeError; C++ otherwise.
_NO_MEMORY = (b"can't allocate", b"cannot allocate", b"bad_alloc")


def main(arguments: list[str]) -> None:
    """arguments: "MODULE:FUNCTION"; the function takes no arguments and returns the reader."""
    module, _, function = arguments[0].partition(":")
    read: Read = getattr(importlib.import_module(module), function)()
    lines, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_RDWR)  # whatever a reader reads from stdin, or prints
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    gc.collect()
    gc.freeze()
    print("ready", file=answers, flush=True)
    for line in lines:
        print(json.dumps(_outcome(read, Path(line.rstrip("\n")))), file=answers, flush=True)


def _outcome(read: Read, folder: Path) -> dict[str, Any]:
    (target,) = (folder / "input").iterdir()
    start, before = time.monotonic(), _resident()
    with tempfile.TemporaryFile() as report:
        child = os.fork()
        if child == 0:
            _run(read, target, folder, report)
        status, usage = _wait(child)
        report.seek(0)
        text = report.read().decode("utf-8", "replace")[:MOST_TEXT]
    busy = usage.ru_utime + usage.ru_stime
    found = {"seconds": time.monotonic() - start, "megabytes": max(0.0, usage.ru_maxrss / 1024 - before)}
    return found | dict(zip(("kind", "detail"), _judge(status, text, found["megabytes"], busy, folder), strict=True))


def _judge(status: int | None, text: str, megabytes: float, busy: float, folder: Path) -> tuple[str, str]:
    """Kind and detail, by how the process ended (None: it did not), and by what it left.

    busy: seconds of a processor, its own and its workers'.
    """
    violation, kept = folder / REPORT, sorted(path.name for path in (folder / "work").iterdir())
    if violation.exists():
        return "violation", violation.read_text(encoding="utf-8")
    if kept:
        return "violation", f"left in the working directory: {kept[:8]}"
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU) or busy > SECONDS:
        return "hang", text
    if megabytes > MEGABYTES:
        return "memory", f"{megabytes:,.0f} MB\n{text}"
    if os.WIFSIGNALED(status):
        return "crash", f"{signal.Signals(os.WTERMSIG(status)).name}\n{text}"
    code = os.waitstatus_to_exitcode(status)
    if code:
        return "violation" if code == VIOLATED else "crash", f"exit code {code}\n{text}"
    kind, _, detail = text.partition("\n")
    return kind, detail


def _wait(child: int) -> tuple[int | None, resource.struct_rusage]:
    """Wait status (None if it took too long) and use of resources; nothing that it started is left."""
    handle = os.pidfd_open(child)
    in_time, _, _ = select.select([handle], [], [], PATIENCE)
    os.close(handle)
    if not in_time:
        _kill(child)
    _, status, usage = os.wait4(child, 0)
    _kill(child)
    return status if in_time else None, usage


def _kill(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:  # nobody is left
        return


def _resident() -> float:
    """Memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _run(read: Read, target: Path, folder: Path, report: IO[bytes]) -> None:
    """In the fork: read one mutant, write down what became of it, and end."""
    code = 1
    try:
        _enter(folder, report)
        kind, detail = _kind(read, target)
        report.write(f"{kind}\n{detail}"[:MOST_TEXT].encode("utf-8", "replace"))
        report.flush()
        code = 0
    except BaseException as error:  # of the harness itself
        os.write(report.fileno(), _trace(error).encode("utf-8", "replace"))
    finally:
        os._exit(code)


def _enter(folder: Path, report: IO[bytes]) -> None:
    os.setsid()
    os.chdir(folder / "work")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    os.environ |= {
        "TMPDIR": str(folder / "tmp"), "MULTITL_CACHE": str(folder / "tmp" / "cache"), "HOME": str(folder / "tmp"),
        "MULTITL_FUZZ_FOLDER": str(folder),
    }  # fmt: skip
    tempfile.tempdir = None
    if "MULTITL_FUZZ_WORKERS" in os.environ:
        sys.executable = str(Path(__file__).with_name("quick_worker.sh"))
    faulthandler.enable(report, all_threads=False)
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, most in (
        (resource.RLIMIT_AS, virtual + 2 * MEGABYTES * 2**20),  # what is touched of it is measured
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, MOST_FILE),
    ):
        resource.setrlimit(kind, (most, most + (kind == resource.RLIMIT_CPU)))  # at the hard limit it is SIGKILL
    install(folder)


def _kind(read: Read, target: Path) -> tuple[str, str]:
    try:
        read(target)
    except BaseException as error:
        for one in _causes(error):
            if _is_of_memory(one):
                return "memory", _trace(one)
        return ("refused", str(error)) if isinstance(error, MultitlError) else ("foreign", _trace(error))
    return "accepted", ""


def _trace(error: BaseException) -> str:
    """As Python shows it; its own function compiles the lines, to mark places in them, which the guard would stop."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}' for frame in frames]
    return "\n".join([*lines[:40], *lines[40:][-40:], f"{type(error).__name__}: {str(error)[:2000]}"])


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised for: a reader may have made an error of its own of it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_of_memory(error: BaseException) -> bool:
    places = traceback.extract_tb(error.__traceback__)
    if places and places[-1].filename == ast.__file__:
        return False  # Python's parser calls it so when something is nested too deeply for it
    text = str(error).encode("utf-8", "replace").lower()  # NumPy makes texts of which Python cannot make others
    says_so = any(words in text for words in _NO_MEMORY)
    return isinstance(error, MemoryError) or (says_so and isinstance(error, RuntimeError))


if __name__ == "__main__":
    main(sys.argv[1:])
