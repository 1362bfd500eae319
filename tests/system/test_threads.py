from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from multitl.system.threads import default_threads, map_batches


def jitter(item: int) -> int:
    time.sleep(0.001 * (item * 7 % 5))
    return item * item


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_results_come_in_order(threads, ahead):
    batches = [[3, 1, 2], [], [9], list(range(20))]
    expected = [[item * item for item in batch] for batch in batches]
    assert list(map_batches(jitter, batches, threads=threads, ahead=ahead)) == expected


def test_work_goes_on_while_the_consumer_is_busy():
    done = threading.Event()
    results = map_batches(lambda item: done.set() if item == 3 else None, [[1], [2], [3], [4]], threads=1, ahead=2)
    next(results)
    assert done.wait(10)


def test_only_so_many_batches_are_taken_ahead():
    taken = []
    batches = (taken.append(number) or [number] for number in range(100))
    results = map_batches(jitter, batches, threads=2, ahead=2)
    next(results)
    assert taken == [0, 1, 2]
    results.close()
    assert taken == [0, 1, 2]


def test_an_exception_reaches_the_consumer_and_stops_the_rest():
    begun = []

    def fail_at_five(item: int) -> int:
        begun.append(item)
        if item == 5:
            raise ValueError("five")
        time.sleep(0.001)
        return item

    results = map_batches(fail_at_five, [[number] for number in range(1000)], threads=2, ahead=500)
    with pytest.raises(ValueError, match="five"):
        list(results)
    assert len(begun) < 1000


def test_threads_end_when_the_consumer_leaves():
    results = map_batches(jitter, [[number] for number in range(50)], threads=4, ahead=10)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("multitl")]


@pytest.mark.parametrize("ending", ["sys.exit(3)", "raise KeyboardInterrupt", "os.kill(os.getpid(), signal.SIGINT)"])
def test_the_interpreter_exits_in_the_middle(ending):
    """An iterator that somebody holds on to does not keep the process alive."""
    code = f"""
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
from multitl.system.threads import map_batches
results = map_batches(lambda item: time.sleep(0.01), ([number] * 4 for number in range(10**9)), threads=2, ahead=3)
for result in results:
    {ending}
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert finished.returncode != 0


def test_default_threads_is_what_the_process_may_use():
    assert default_threads() >= 1
    if sys.platform == "linux":
        code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        code += "from multitl.system.threads import default_threads; print(default_threads())"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "1"
