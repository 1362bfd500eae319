"""Readers that do what no reader may, whatever they are given: the harness is tried on them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from multitl.errors import WeightsError

Read = Callable[[Path], object]


def accepts() -> Read:
    """Reads, and writes where it may."""

    def read(path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            (path.parents[1] / "tmp" / "absent").unlink()
        (path.parents[1] / "tmp" / "made").write_bytes(path.read_bytes())

    return read


def refuses() -> Read:
    def read(path: Path) -> None:
        raise WeightsError(f"{path} is not liked.", fix="none")

    return read


def raises() -> Read:
    return lambda path: {}[path]  # type: ignore[var-annotated]


def runs_text() -> Read:
    return lambda path: eval(path.read_text())


def swallows_what_stops_it() -> Read:
    def read(path: Path) -> None:
        with contextlib.suppress(BaseException):
            exec("found = 1")

    return read


def unpickles() -> Read:
    return lambda path: pickle.loads(pickle.dumps(print))


def starts_program() -> Read:
    return lambda path: subprocess.run(["true"], check=True)


def starts_python() -> Read:
    return lambda path: subprocess.run([sys.executable, "-c", "1"], check=True)


def starts_worker_that_opens_socket() -> Read:
    """A worker may be started, but has the same guard."""

    def read(path: Path) -> None:
        module = path.parents[1] / "tmp" / "multitl" / "worker.py"
        module.parent.mkdir()
        module.with_name("__init__.py").touch()
        module.write_text("import socket\nsocket.socket()\n")
        places = os.environ["PYTHONPATH"].split(os.pathsep)
        search = os.pathsep.join([str(module.parents[1]), *places])
        command = [sys.executable, "-P", "-m", "multitl.worker"]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": search}, check=False)

    return read


def starts_shell() -> Read:
    return lambda path: os.system("true")


def forks() -> Read:
    return lambda path: os.fork() or os._exit(0)


def opens_socket() -> Read:
    return lambda path: socket.socket()


def writes_outside() -> Read:
    return lambda path: (path.parents[2] / "outside").write_text("")


def writes_through_link() -> Read:
    def read(path: Path) -> None:
        link = path.parents[1] / "tmp" / "link"
        link.symlink_to("/tmp")
        (link / "multitl-fuzz-outside").write_text("")

    return read


def removes_outside() -> Read:
    return lambda path: (path.parents[2] / "absent").unlink(missing_ok=True)


def writes_beside_natively() -> Read:
    """As native code does, of which no hook is told."""

    def read(path: Path) -> None:
        libc = ctypes.CDLL(None)
        libc.close(libc.creat(b"left", 0o600))

    return read


def crashes() -> Read:
    return lambda path: os.kill(os.getpid(), signal.SIGSEGV)


def crashes_natively() -> Read:
    return lambda path: ctypes.string_at(0)


def ends_early() -> Read:
    return lambda path: os._exit(3)


def loops() -> Read:
    def read(path: Path) -> None:
        while True:
            pass

    return read


def waits() -> Read:
    return lambda path: signal.pause()


def claims_memory() -> Read:
    """More than there may be, at once."""
    return lambda path: np.empty(2**35, np.uint8)


def claims_memory_and_hides_it() -> Read:
    def read(path: Path) -> None:
        try:
            np.empty(2**35, np.uint8)
        except MemoryError as error:
            raise WeightsError("It is too large.", fix="none") from error

    return read


def fills_memory() -> Read:
    """Little by little, and gives it back."""

    def read(path: Path) -> None:
        held: list[Any] = [np.ones(2**25, np.uint8) for _ in range(36)]
        held.clear()

    return read
