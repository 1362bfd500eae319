"""Freed memory is kept while it should be, and given back afterwards."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from multitl.system.heap import VARIABLES, kept_heap

# numpy maps 64 MB anew each time by default: 16,384 pages of 4 kB, or fewer and larger ones
FAULTS = """
import resource, numpy as np
from multitl.system.heap import kept_heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(1 << 26, "uint8")[::4096] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

faults()
before = faults()
with kept_heap():
    faults()
    within, held_within = faults(), held()
print(before, within, held_within - held(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of glibc")
def test_freed_memory_is_kept_and_then_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, within, given_back, after = map(int, done.stdout.split())
    assert within < before / 10
    assert given_back > 1 << 25
    assert after > before / 2


def test_the_users_own_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("touched"))
    with kept_heap():
        pass
