"""How long a model takes for a single image."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

WARM_UP, RUNS, MOST_SECONDS = 3, 50, 3.0


def latencies(run: Callable[[np.ndarray], Any], image: np.ndarray) -> np.ndarray:
    """Milliseconds (calls,) of single calls, after some that do not count. image: (1, height, width, 3)."""
    for _ in range(WARM_UP):
        run(image)
    taken: list[float] = []
    while len(taken) < RUNS and sum(taken) < MOST_SECONDS * 1000:
        started = time.perf_counter()
        run(image)
        taken.append((time.perf_counter() - started) * 1000)
    return np.array(taken)
