"""`python -m fuzz.quick_workers FOLDER`: reads HDF5 for mutants' processes in forks of this one, which has imported it.

A reader of HDF5 starts `multitl.files.hdf5_worker` for each file, and Python takes ten times as long to start as to
read it. In a campaign `quick_worker.sh` is started in place of Python, and this process does what was asked for, by
the same function, with the same guard, and with its output and its end handed on. The tests that run always do without.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path

from .guard import install

SECONDS = 10  # of a processor
PATIENCE = 30  # by the clock
MOST_FILE = 2**29  # bytes


def main(folder: Path) -> None:
    """folder: where the pipe `ask` is made, and `quick_worker.sh` makes its own for the answer."""
    from multitl.files import hdf5_worker

    os.mkfifo(folder / "ask")
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    with open(folder / "ask", "r+b", buffering=0) as asked:  # noqa: PTH123  (r+: it has no end)
        while line := _line(asked.fileno(), sys.stdin.fileno()):
            process, place, *command = line.rstrip("\x1f").split("\x1f")
            arguments = command[command.index("multitl.files.hdf5_worker") + 1 :]
            child = os.fork()
            if child == 0:
                _run(hdf5_worker.main, arguments, int(process), Path(place))
            _answer(folder / f"answer.{process}", _wait(child))


def _line(asked: int, lasting: int) -> str:
    """The next thing that is asked; "" once nobody can ask any more, which shows at the other pipe."""
    text = b""
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([asked, lasting], [], [])
        if asked not in ready:
            return ""
        text += os.read(asked, 2**16)
    return text.decode().rstrip("\n")


def _run(work, arguments: list[str], process: int, place: Path) -> None:
    """In the fork: as a new Python would, with the output of the process that asked."""
    code = 1
    try:
        for descriptor, theirs in ((1, 3), (2, 4)):
            os.dup2(os.open(f"/proc/{process}/fd/{theirs}", os.O_WRONLY), descriptor)
        for kind, most in (
            (resource.RLIMIT_CPU, SECONDS),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, MOST_FILE),
        ):
            resource.setrlimit(kind, (most, most))
        os.chdir(place / "work")
        install(place)
        code = work(arguments)
        sys.stdout.flush()
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
    finally:
        os._exit(code)


def _wait(child: int) -> int:
    """Exit code, or minus the signal's number."""
    handle = os.pidfd_open(child)
    in_time, _, _ = select.select([handle], [], [], PATIENCE)
    os.close(handle)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _answer(pipe: Path, status: int) -> None:
    """Who asked may not be there any more to read it."""
    for _ in range(200):
        with contextlib.suppress(OSError):  # not opened yet, or never again
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            os.write(descriptor, f"{status}\n".encode())
            os.close(descriptor)
            return
        time.sleep(0.005)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
