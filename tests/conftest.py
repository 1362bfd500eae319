"""Fixtures that several test files share. One process tests one backend: KERAS_BACKEND, jax if unset."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Tests, and the many processes that they start, compile the same programs again and again, most of them small: each
# is compiled once. `make clean` removes it.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# As JAX's own tests do: these programs run for milliseconds and take seconds to optimise. Not so in slow tests.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core: their threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if os.environ["KERAS_BACKEND"] == "torch":
    import torch  # noqa: F401  (first: a process that loads several frameworks may crash in another order)

from collections.abc import Callable

import numpy as np
import pytest
import selection
from live_processes import start  # noqa: F401  (a fixture)
from PIL import Image
from quick_runs import finished, linear, photos  # noqa: F401  (fixtures)

# For a test of our own code rather than a framework's that takes long: always under JAX, elsewhere only if slow.
ELSEWHERE_SLOW = [pytest.mark.every_backend, *([] if os.environ["KERAS_BACKEND"] == "jax" else [pytest.mark.slow])]


def elsewhere_slow(test: Callable) -> Callable:
    """Mark it so."""
    for mark in ELSEWHERE_SLOW:
        test = mark(test)
    return test


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    items.sort(key=lambda item: selection.place(item.nodeid.partition("::")[0]))


SHARED = Path(__file__).resolve().parents[2] / "shared"


def _shared(folder: str) -> Path:
    path = SHARED / folder
    if not path.is_dir():
        pytest.skip(f"needs the real files in {path}")
    return path


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests never see, or fill, the user's own feature cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["MULTITL_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def import_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line run inside the tests' process may hide frameworks; it must not hide them from later tests."""
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos, or skip."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """The folder of real weights, or skip."""
    return _shared("weights")


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """class/images: 3 easy classes (red, green, blue noise), 16 PNG images of 40 x 48 pixels each."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for channel, name in enumerate(["red", "green", "blue"]):
        (root / name).mkdir()
        for index in range(16):
            pixels = random.integers(0, 128, (40, 48, 3), dtype=np.uint8)
            pixels[..., channel] += 100
            Image.fromarray(pixels).save(root / name / f"{index:02}.png")
    return root
