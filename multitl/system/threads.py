"""Work in threads, results in order: decoding releases the interpreter lock, so threads are enough."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# of NumPy's libraries and PyTorch, of TensorFlow, of XLA
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC")


def thread_variables(threads: int) -> dict[str, str]:
    """The environment in which a new process computes with so many threads, whatever its framework."""
    return dict.fromkeys(VARIABLES, str(threads))


def default_threads() -> int:
    """The cores this process may use (a container or `taskset` often grants fewer than the machine has)."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_batches(
    function: Callable[[T], R], batches: Iterable[Iterable[T]], *, threads: int, ahead: int
) -> Iterator[list[R]]:
    """Yield `[function(item) for item in batch]` for each batch, in order, whatever the number of threads.

    ahead: batches that are worked on while the consumer is busy with the one it got; `batches` is read that far ahead.
    The first exception of `function` is raised in the consumer. However the iteration ends (exhausted, closed, Ctrl-C),
    work that has not begun is dropped and the threads end.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="multitl")
    pending: deque[list[Future[R]]] = deque()
    try:
        for batch in batches:
            pending.append([pool.submit(function, item) for item in batch])
            if len(pending) > ahead:
                yield [future.result() for future in pending.popleft()]
        while pending:
            yield [future.result() for future in pending.popleft()]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
