"""SIGKILL of a worker at any moment of `multitl finetune --workers N`, and other faults of some of the machines:
`python benchmarks/worker_kills.py BACKEND KILLS DATA [--workers 2] [--engine ray] [--faults]`.

DATA: a folder of labelled images.  Prints a Markdown table, a row a fault.

The command runs once undisturbed. Then it runs KILLS times with an empty cache, and one worker, drawn by chance, is
killed: once in each of KILLS equal parts of the time that it took, so that features, head, fine-tuning and saving are
met. Each of these runs has to end by itself, with exit code 0, the same metrics, predictions and model; the features
that were in the store are not computed again; nothing that was started is alive afterwards. With --faults also: a
worker stops for 90 seconds; no file may grow beyond 1 MB, as on a full disk, and then it may; an image is cut off for
one worker alone.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kills import BACKBONE, SECONDS, TRAINING, Place, content

from multitl.engines.workers import free_port
from multitl.files.sealed_arrays import read_sealed

FILES = ("metrics.json", "predictions.csv", "model.keras")
STOPPED = 90.0  # seconds
LIMIT = 2**20  # bytes of a file, on the full disk


@dataclass
class Row:
    """One fault. moment: seconds from the start.  computed: features, by the run that ended."""

    fault: str
    moment: float
    rank: int
    seconds: float = 0.0
    starts: int = 1
    stored: int = 0
    computed: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = "; ".join(dict.fromkeys(self.faults)) or "none"
        return (
            f"| {self.fault} | {self.rank} | {self.moment:.1f} | {self.starts} | {self.seconds:.1f} | {self.stored} | "
            f"{self.computed} | {told} |"
        )


class Trial:
    """The same command, again and again, in one place."""

    def __init__(self, place: Place, options: argparse.Namespace) -> None:
        self.place, self.data = place, options.data
        engine = ("--engine", options.engine) if options.engine else ()
        self.more = ("--workers", str(options.workers), *engine)
        self.command = ("finetune", options.data, *BACKBONE, *TRAINING)
        self.whole, self.broken = place.folder / "whole", place.folder / "broken"
        started = time.perf_counter()
        if place.start(*self.command, *self.more, "--out", self.whole).wait():
            raise RuntimeError(place.said())
        self.seconds = time.perf_counter() - started
        self.images = self.features(self.whole)

    def features(self, run: Path) -> int:
        return int(json.loads((run / "card.json").read_text(encoding="utf-8"))["features"]["computed"])

    def disturb(self, row: Row, fault: Callable[[int], None]) -> Row:
        """Run with an empty cache, and let something happen to one worker at a moment."""
        for folder in (self.broken, self.place.folder / "cache"):
            shutil.rmtree(folder, ignore_errors=True)
        started = time.perf_counter()
        process = self.place.start(*self.command, *self.more, "--out", self.broken)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(row.moment)
        worker = self.worker(row.rank)
        if process.poll() is not None or worker is None:
            row.faults.append("it met nobody")
        else:
            row.stored = 0 if (self.broken / "card.json").is_file() else self.stored()  # with a card none is to come
            fault(worker)
        code = process.wait()
        row.seconds = time.perf_counter() - started
        self.judge(row, code)
        return row

    def judge(self, row: Row, code: int) -> None:
        """Compare what an end left with what the undisturbed one did."""
        ends = time.monotonic() + SECONDS
        while (alive := self.place.alive()) and time.monotonic() < ends:
            time.sleep(0.02)
        row.faults += [f"{len(alive)} processes alive after {SECONDS:.0f} s"] if alive else []
        if code:
            row.faults.append(f"exit code {code}: {self.place.said()}")
            return
        row.starts = 1 + self.place.said(whole=True).count("start again from what is saved")
        row.computed = self.features(self.broken)
        if row.stored + row.computed > self.images:
            row.faults.append(f"{row.stored} features were stored, and {row.computed} computed of {self.images}")
        row.faults += [f"left: {path}" for path in self.place.left()]
        row.faults += [
            f"{name} is another one" for name in FILES if content(self.whole / name) != content(self.broken / name)
        ]

    def worker(self, rank: int) -> int | None:
        """The number of the process that is a rank, None before it is there."""
        for number in self.place.alive():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
                command = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
                if f"RANK={rank}".encode() in words and b"multitl.system.children" in command and b"multitl" in command:
                    return number
        return None

    def stored(self) -> int:
        """Features on disk."""
        files = list((self.place.folder / "cache" / "features").rglob("*.safetensors"))
        return sum(len(read_sealed(file)[0]["features"]) for file in files)

    def fill_the_disk(self) -> Row:
        """No file of the command may grow beyond a limit; then it may."""
        row = Row("full disk, then room", 0.0, 0)
        shutil.rmtree(self.broken, ignore_errors=True)
        arguments = (*self.command, *self.more, "--out", self.broken)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
        try:
            process = self.place.start(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        if process.wait() != 2 or "free some space" not in self.place.said():
            row.faults.append(f"exit code {process.returncode}: {self.place.said()}")
        row.starts = 2
        self.judge(row, self.place.start(*arguments, "--resume").wait())
        return row

    def damage_for_one(self) -> Row:
        """Two workers by hand, each with a folder of images of its own, one of which is cut off in one of them."""
        row = Row("an image cut off for one worker", 0.0, 1)
        port, processes = str(free_port()), []
        for rank in range(2):
            folder = self.place.folder / f"own-{rank}"
            shutil.copytree(self.data, folder / "data")
            image = sorted((folder / "data").rglob("*.jpg"))[0]
            if rank:
                image.write_bytes(image.read_bytes()[:-100])
            group = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            arguments = ["finetune", "data", *BACKBONE, *TRAINING, "--out", str(self.place.folder / "damaged")]
            with (folder / "said").open("wb") as said:
                command = [sys.executable, "-m", "multitl", *arguments]
                processes.append(subprocess.Popen(
                    command, cwd=folder, env=self.place.environment | group, stdout=said, stderr=subprocess.STDOUT,
                ))  # fmt: skip
        codes = [process.wait() for process in processes]
        said = "".join((self.place.folder / f"own-{rank}" / "said").read_text() for rank in range(2))
        if 2 not in codes or "to mend" not in said or (self.place.folder / "damaged" / "card.json").exists():
            row.faults.append(f"exit codes {codes}: {said[-600:]}")
        return row


def stop_and_go_on(worker: int) -> None:
    """For a while; by then it may have been given up, and be gone."""
    os.kill(worker, signal.SIGSTOP)
    time.sleep(STOPPED)
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGCONT)


def main() -> None:
    """Print the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser()
    parser.add_argument("backend")
    parser.add_argument("kills", type=int)
    parser.add_argument("data")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", default="")
    parser.add_argument("--faults", action="store_true")
    options = parser.parse_args()
    options.data = str(Path(options.data).resolve())
    print(f"# Faults of {options.workers} workers on {options.backend}\n")
    print(f"Made by `python benchmarks/worker_kills.py {' '.join(sys.argv[1:])}`, {datetime.date.today()}.\n")
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        place = Place(Path(folder), options.backend)
        trial, drawn = Trial(place, options), random.Random(0)
        print(f"Undisturbed: {trial.seconds:.1f} s, {trial.images} images.\n")
        print("| fault | worker | after, s | starts | seconds | features stored then | computed at last | faults |")
        print("|---|---:|---:|---:|---:|---:|---:|---|", flush=True)
        for part in range(options.kills):
            row = Row(
                "SIGKILL", trial.seconds * (part + drawn.random()) / options.kills, drawn.randrange(options.workers)
            )
            print(trial.disturb(row, lambda worker: os.kill(worker, signal.SIGKILL)), flush=True)
        if options.faults:
            row = Row(f"SIGSTOP for {STOPPED:.0f} s", trial.seconds / 2, drawn.randrange(options.workers))
            print(trial.disturb(row, stop_and_go_on), flush=True)
            print(trial.fill_the_disk(), flush=True)
            print(trial.damage_for_one(), flush=True)


if __name__ == "__main__":
    main()
