"""One job in a process of its own: `python -m multitl.bench.worker JOB FILE STARTED`.

JOB: a `Job` as JSON.  FILE: where its `Record` goes.  STARTED: the clock (time.time()) when the process was asked for.
Whatever goes wrong in a framework ends this process, not the comparison.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any, cast

from multitl.bench.jobs import MULTITL, NATIVE, PIPELINES, Contender, Job, Loop, Pipeline, Record
from multitl.contracts import Dataset
from multitl.errors import MultitlError
from multitl.system.writing import write_text

CHECKED_STEPS, CHECKED_IMAGES = 4, 8
POOL = 4  # different batches, which are used in turn


def main(arguments: list[str]) -> int:
    job, started = Job.from_mapping(json.loads(arguments[0])), float(arguments[2])
    write_text(arguments[1], json.dumps(run(job, started).to_json()))  # a loss may be NaN, which is a result
    return 0


def run(job: Job, started: float) -> Record:
    """Do the job. What it cannot do by design is said in the record; anything else raises."""
    pin(job.threads)
    try:
        return _read_files(job, started) if job.cell.task == "input" else _use_network(job, started)
    except LookupError as error:
        return Record(job, "not available", str(error))
    except MultitlError as error:
        return Record(job, "not available", error.problem)


def pin(threads: int) -> None:
    """Keep this process, and all threads it will start, on the first cores; frameworks count what they may use."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


class Feed:
    """Gives batches, and reads the clock where a window of steps begins or ends, when the device is done.

    The first step is a window of its own, and so are the warm-up steps.
    """

    def __init__(self, make: Callable[[int], Any], job: Job, wait: Callable[[], None]) -> None:
        self._make, self._wait = make, wait
        self._ends = {0, 1, 1 + job.warmup} | {1 + job.warmup + i * job.window for i in range(job.steps + 1)}
        self.windows, self.ticks = job.steps, list[float]()

    def __len__(self) -> int:
        return max(self._ends)

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self) + 1):
            if number in self._ends:
                self._wait()
                self.ticks.append(time.perf_counter())
            if number < len(self):
                yield self._make(number)

    @property
    def first(self) -> float:
        """Seconds of the first step."""
        return self.ticks[1] - self.ticks[0]

    @property
    def window_seconds(self) -> list[float]:
        """Of the timed windows."""
        seconds = [end - start for start, end in zip(self.ticks, self.ticks[1:], strict=False)]
        return seconds[-self.windows :]


def _use_network(job: Job, started: float) -> Record:
    if job.cell.contender in MULTITL:
        from multitl.system.session import leave_out_other_frameworks

        leave_out_other_frameworks(job.cell.contender)  # as the command line does
    contender = cast(Contender, _import_contender(job.cell.contender))
    imported = time.time()
    loop = contender.open_loop(job)
    loop.wait()
    seconds = {"import": imported - started, "load": time.time() - imported}
    stages = {"check": _check, "measure": _measure, "job": _whole_job}
    found = stages[job.stage](job, loop, seconds, started)
    versions, devices = contender.describe()
    return Record(
        job, seconds=seconds, host_bytes=peak_host_bytes(), device_bytes=loop.peak_device_bytes(),
        versions=versions, devices=devices, **found,
    )  # fmt: skip


def _import_contender(name: str) -> ModuleType:
    return importlib.import_module("multitl.bench.own_loop" if name in MULTITL else (NATIVE | PIPELINES)[name])


def _check(job: Job, loop: Loop, seconds: dict[str, float], started: float) -> dict[str, Any]:
    """Logits before training, then the losses of a few steps; their time helps to plan."""
    batches = _batches(job)
    clock = time.perf_counter()
    logits = loop.predict([batches[0][0]])[:CHECKED_IMAGES].tolist()
    found: dict[str, Any] = {"logits": logits, "trainable": loop.trainable()}
    pairs = [batches[1]] * CHECKED_STEPS  # one batch: its loss falls step by step, where others would scatter
    feed = Feed(pairs.__getitem__, replace(job, steps=CHECKED_STEPS - 1, warmup=0, window=1), loop.wait)
    if job.cell.task == "finetune":
        found["losses"] = loop.finetune(feed)
    else:
        loop.predict(pixels for pixels, _ in feed)
    if job.cell.task == "head":
        found["losses"] = loop.train_head(pairs)
    seconds["step"] = min(feed.window_seconds[:-1])
    seconds["compile"] = time.perf_counter() - clock - CHECKED_STEPS * seconds["step"]
    return found


def _measure(job: Job, loop: Loop, seconds: dict[str, float], started: float) -> dict[str, Any]:
    batches = _batches(job)
    if job.cell.task == "load":
        clock = time.perf_counter()
        loop.predict([batches[0][0]])
        seconds["compile"] = time.perf_counter() - clock
        return {}
    feed = Feed(lambda number: batches[number % POOL], job, loop.wait)
    if job.cell.task == "finetune":
        loop.finetune(feed)
    else:
        pixels = Feed(lambda number: batches[number % POOL][0], job, loop.wait)
        (loop.extract if job.cell.task == "head" else loop.predict)(pixels)
        feed = pixels
    usual = statistics.median(feed.window_seconds) / job.window
    seconds["compile"] = max(0.0, feed.first - usual)
    return {"window_seconds": feed.window_seconds, "trainable": loop.trainable()}


def _whole_job(job: Job, loop: Loop, seconds: dict[str, float], started: float) -> dict[str, Any]:
    """Files in, accuracy out. Where it takes longer than it may, the epochs that are missing are extrapolated."""
    dataset = _scan(job)
    before, note = time.time() - started, ""
    fitted = loop.fit(dataset.split("train"), dataset.split("validation"))
    curve = [[before + elapsed, accuracy] for elapsed, accuracy in fitted]
    seconds["job"] = time.time() - started
    if left := job.epochs - len(curve):
        note = f"extrapolated from {len(curve)} of {job.epochs} epochs"
        seconds["job"] += left * (curve[-1][0] - before) / len(curve)
    reached = next((at for at, accuracy in curve if accuracy >= job.accuracy), 0.0)
    return {"curve": curve, "note": note, "accuracy_seconds": reached if job.accuracy else 0.0}


def _read_files(job: Job, started: float) -> Record:
    pipeline = cast(Pipeline, _import_contender(job.cell.contender))
    imported = time.time()
    size = job.cell.batch_size
    examples = _scan(job).split("train")[: size * (1 + job.steps * job.window)]
    clock, ticks, counts = time.perf_counter(), list[float](), list[int]()
    for count in pipeline.read(job, examples):
        ticks.append(time.perf_counter())
        counts.append(count)
        if sum(counts) >= len(examples):  # a reader of folders knows no end before the folder's
            break
    versions, devices = pipeline.describe()
    if len(ticks) < 2:
        raise LookupError(f"{job.data} has fewer than two batches of {size} training images")
    window = size * job.window * (ticks[-1] - ticks[0]) / sum(counts[1:])
    seconds = {"import": imported - started, "load": 0.0, "compile": ticks[0] - clock, "step": window / job.window}
    return Record(
        job, seconds=seconds, window_seconds=[window], host_bytes=peak_host_bytes(),
        versions=versions, devices=devices,
    )  # fmt: skip


def _scan(job: Job) -> Dataset:
    """The examples that `multitl finetune` would find."""
    from multitl.data.scanning import scan_for_training
    from multitl.recipes import Recipe

    return scan_for_training(job.data, Recipe(seed=job.seed))


def _batches(job: Job) -> list[tuple[Any, Any]]:
    from multitl.bench.pictures import synthetic_labels, synthetic_pixels

    size = job.cell.batch_size
    return [
        (synthetic_pixels(size, job.image_size, number), synthetic_labels(size, job.classes, number))
        for number in range(POOL)
    ]


def peak_host_bytes() -> int:
    """Of this process, and the largest of the processes it started and waited for."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
