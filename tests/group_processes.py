"""Groups of processes on this machine, each a `multitl finetune` of its own; and peers that are threads."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from multitl.distribution.channel import connect
from multitl.distribution.group import Group
from multitl.distribution.peers import Several

PROGRAM = "import sys; from multitl.cli.main import main; sys.exit(main())"


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def together(size: int, work: Callable[[Several], Any]) -> list[Any]:
    """What `work` gives on each of `size` peers, which are threads here."""
    address = free_address()

    def one(rank: int) -> Any:
        peers = Several(connect(Group(rank, size, address), 20.0))
        given = work(peers)
        peers.leave()
        return given

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


@contextmanager
def started(arguments: Sequence[list[str]], timeout: float = 20) -> Iterator[list[subprocess.Popen]]:
    """A process for each list of arguments, with the environment that torchrun gives; killed at the end at the latest.

    timeout: seconds of silence after which one is lost.
    """
    address, size, processes = free_address(), len(arguments), list[subprocess.Popen]()
    try:
        for rank, given in enumerate(arguments):
            own = Group(rank, size, address).environment() if size > 1 else {}
            variables = {"MULTITL_PEER_TIMEOUT": str(timeout)}
            command = [sys.executable, "-c", PROGRAM, "finetune", *given]
            processes.append(
                subprocess.Popen(
                    command, env=os.environ | {"OMP_NUM_THREADS": "1"} | variables | own, stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, text=True,
                )
            )  # fmt: skip
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def run_group(*arguments: list[str]) -> list[tuple[int, str, str]]:
    """Exit code, output and messages of each, by rank."""
    with started(arguments) as processes:
        told = [process.communicate(timeout=600) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


def figures(run: Path) -> np.ndarray:
    """What history.csv says, but for the seconds."""
    with (run / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[name]) for name in rows[0] if name not in ("phase", "seconds")] for row in rows])


def answers(run: Path) -> tuple[list[str], np.ndarray]:
    """predictions.csv: who was predicted what, and the probabilities."""
    with (run / "predictions.csv").open(encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    names = [row[1] + row[2] + row[3] for row in rows]
    return names, np.array([[float(cell) for cell in row[4:]] for row in rows])
