"""What a run sets of its process while it goes on: seeds, determinism, arithmetic; and how long its parts took."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import keras

from multitl.contracts import Backend
from multitl.recipes import Recipe
from multitl.system.heap import kept_heap


class Clock(dict):
    """Seconds by name of the step, in all."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self[name] = round(self.get(name, 0.0) + time.perf_counter() - started, 3)


@contextmanager
def session(recipe: Recipe, backend: Backend) -> Iterator[None]:
    """Seeds, determinism, arithmetic and memory of this run; the caller's dtype policy comes back afterwards."""
    policy = keras.config.dtype_policy()
    random.seed(recipe.seed)  # Keras draws the seeds of layers without one here; its set_random_seed loads TensorFlow
    backend.make_deterministic(recipe.seed, is_strict=recipe.deterministic)
    keras.config.set_dtype_policy(_dtype_policy(recipe, backend))
    is_exact = recipe.precision == "float32"
    try:
        with kept_heap(), backend.full_precision() if is_exact else backend.quick_float32():
            yield
    finally:
        keras.config.set_dtype_policy(policy)


def _dtype_policy(recipe: Recipe, backend: Backend) -> str:
    if recipe.precision == "mixed":
        return backend.mixed_precision()
    return f"mixed_{recipe.precision}" if recipe.precision in ("bfloat16", "float16") else "float32"
