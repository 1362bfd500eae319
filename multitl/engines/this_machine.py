"""Workers as processes of this machine: its cores and its GPUs are dealt out among them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from multitl.distribution.devices import VISIBLE
from multitl.distribution.group import Group
from multitl.engines.workers import PATIENCE, Job, Worker, free_port
from multitl.system import interrupts
from multitl.system.threads import default_threads, thread_variables


class LocalTeam:
    """Rank 0 writes where this process does; what the others write is kept."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []

    def start(self, jobs: Sequence[Job]) -> None:
        for rank, job in enumerate(jobs):
            self._workers.append(Worker())
            self._workers[-1].start(job, is_heard=not rank)

    def codes(self) -> list[int | None]:
        return [worker.code() for worker in self._workers]

    def words(self, rank: int) -> str:
        return self._workers[rank].words()

    def is_heard(self, rank: int) -> bool:
        return rank == 0

    def ask_to_end(self) -> None:
        for worker in self._workers:
            worker.ask_to_end()

    def end(self, patience: float = 0.0) -> None:
        for worker in self._workers:
            worker.end(patience)


@contextmanager
def local_team(
    arguments: Sequence[str], workers: int, gpus: Sequence[str], module: str = "multitl"
) -> Iterator[LocalTeam]:
    """Start the command line's `arguments` as so many workers; none of them is left at the end of the block.

    gpus: what CUDA calls those that there are, at least one a worker; none: the CPU's cores are dealt out.
    """
    team = LocalTeam()
    try:
        team.start(list(jobs(module, arguments, workers, gpus)))
        yield team
    except KeyboardInterrupt as interrupt:
        with interrupts.held_back():
            team.ask_to_end()
            team.end(PATIENCE)
        if team.codes()[0] in (130, 143):  # it has said how to go on
            raise SystemExit(interrupts.exit_code(interrupt)) from interrupt
        raise
    finally:
        with interrupts.held_back():
            team.end()


def jobs(module: str, arguments: Sequence[str], workers: int, gpus: Sequence[str]) -> Iterator[Job]:
    """Of one start: a port that was free just now is the place where they meet."""
    port, cores = free_port(), own_cores()
    share = max(1, len(cores) // workers)
    for rank in range(workers):
        own = cores[rank * share : (rank + 1) * share] if workers <= len(cores) else []
        device = {VISIBLE: gpus[rank]} if gpus else {}
        group = Group(rank, workers, f"127.0.0.1:{port}", rank).environment()
        yield Job(module, tuple(arguments), group | device | thread_variables(share), str(Path.cwd()), tuple(own))


def own_cores() -> list[int]:
    """The numbers of those that this process may use."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else list(range(default_threads()))
