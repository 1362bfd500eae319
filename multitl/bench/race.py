"""`multitl bench`: check that contenders agree, then measure them in turn, as often as the budget allows.

Read `race` top to bottom. Each process does one job; contenders alternate (A B C A B C), so that a slow moment of the
machine does not hit one of them alone. Every record is on the disk before the next process starts.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from multitl import errors
from multitl.adapters import BACKENDS, folder_name, is_installed
from multitl.bench.board import Board
from multitl.bench.jobs import Cell, Job, Record, Stage
from multitl.bench.machine import describe_machine
from multitl.bench.options import Options
from multitl.bench.processes import ENVIRONMENT, missing_packages, pip_line, run_job
from multitl.bench.results import Results, append, identity, latest, read_results, rewrite, start_results
from multitl.runs.folders import is_used
from multitl.system import children
from multitl.system.workers import read_error
from multitl.system.writing import read_json

RESULTS, WEIGHTS = "results.jsonl", "weights"
MACHINE = ("processor", "cores", "multitl", "python")  # of a machine, besides its packages: what speed depends on
FEWEST, MOST, WINDOW_SECONDS = 3, 30, 0.25  # windows a repetition, and how long one should last at least
WANTED = 3  # repetitions to plan for
RESERVE = 6.0  # seconds of the budget for starting up and for writing the report


class Race:
    """One run of the command: its options, its folder, its clock and what is known so far."""

    def __init__(self, options: Options, folder: Path, board: Board) -> None:
        self.options, self.folder, self.board = options, folder, board
        self.ends = time.monotonic() + options.budget - RESERVE
        self.results = Results({})
        self.prepared: dict[str, tuple[str, int, float]] = {}

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.ends - time.monotonic()

    def claim(self, *, overwrite: bool, resume: bool) -> None:
        """Take the folder, and what an interrupted race left in it."""
        path, described = self.folder / RESULTS, asdict(self.options)
        if _check_folder(self.folder, overwrite=overwrite, resume=resume):
            self.results = read_results(path)
            _check_same(self.results.head.get("options", {}), json.loads(json.dumps(described)), self.folder)
            _check_same_machine(self.results.head.get("machine", {}), describe_machine(), self.folder)
            rewrite(path, self.results)
        else:
            shutil.rmtree(self.folder / WEIGHTS, ignore_errors=True)  # made for other options
            self.results = start_results(path, {"machine": describe_machine(), "options": described})

    def run(self) -> Results:
        """Everything that the budget allows. Raises BackendError if no contender can run here."""
        cells = self.options.cells()
        _insist_on_one(cells)
        self._prepare()
        for _, contest in itertools.groupby(cells, key=lambda cell: cell.contest):
            rivals = list(contest)  # where the budget is small, the first contests are complete
            self._check_all(rivals)
            self._run_all(self._job(cell, "measure", 0) for cell in self._affordable(rivals))
        self._run_whole_jobs([cell for cell in cells if cell.task == "head" and self._check_of(cell)])
        for repetition in range(1, self.options.repetitions):
            self._run_all(self._job(cell, "measure", repetition) for cell in self._affordable(cells))
        return self.results

    def _check_all(self, rivals: list[Cell]) -> None:
        """Each against the others. Kept are the seconds that measuring the checked ones takes, and as many again as a
        check may take: who cannot be measured afterwards need not be checked.
        """
        for cell in rivals:
            job = self._job(cell, "check", -1)
            checks = [check for rival in rivals if (check := self._check_of(rival))]
            kept = sum(self._cost(check.job.cell, FEWEST) for check in checks)
            dearest = max((self._start_up(check) + FEWEST * check.seconds["step"] for check in checks), default=0.0)
            share = (self.left - kept) / 2
            if job and share < dearest:
                self._keep(Record(job, "out of time", "not begun: what is left of the budget is for the others"))
            else:
                self._run_all([job], kept=kept + share)

    def _affordable(self, cells: list[Cell]) -> Iterator[Cell]:
        """Those that passed their check and of which one more repetition fits into what is left then."""
        return (cell for cell in cells if self._check_of(cell) and self.left > self._cost(cell, FEWEST))

    def _run_whole_jobs(self, cells: list[Cell]) -> None:
        """Each may take its share of what is left, one share being kept for further repetitions."""
        for number, cell in enumerate(cells if self.options.data else []):
            share = self.left / (len(cells) - number + 1)
            self._run_all([self._job(cell, "job", 0, seconds=share)])

    def _prepare(self) -> None:
        """One weights file a backbone."""
        for number, backbone in enumerate(self.options.backbones if set(self.options.tasks) != {"input"} else ()):
            file = self.folder / WEIGHTS / f"{number}-{folder_name(backbone)}.safetensors"  # names may be alike
            if not file.with_suffix(".json").is_file():
                self.board.say(f"preparing weights of {backbone}")
                prepare_weights(backbone, self.options, file, self.left)
            about = read_json(
                file.with_suffix(".json"), missing="start again with --overwrite", keys=["image_size", "check_rate"]
            )
            weights = str(file) if file.is_file() else self.options.weights
            self.prepared[backbone] = weights, about["image_size"], about["check_rate"]

    def _run_all(self, jobs: Iterable[Job | None], kept: float = 0.0) -> None:
        """kept: seconds of the budget that none of them may use."""
        for job in jobs:
            if job is None or self.left <= kept:
                continue
            self.board.start(job, self.left)
            left = self.left - kept
            limit = min(self.options.timeout, left) if job.stage != "job" else left
            self._keep(run_job(job, limit, is_last=limit >= left - 1))

    def _keep(self, record: Record) -> None:
        append(self.folder / RESULTS, record)
        self.results.records = latest([*self.results.records, record])
        self.board.show(self.results.records)

    def _job(self, cell: Cell, stage: Stage, repetition: int, seconds: float = 0.0) -> Job | None:
        """None if it was done before the race was interrupted. What failed is tried again: it may have been mended."""
        done = {identity(r.job) for r in self.results.records if r.state == "done"}
        if (cell, stage, repetition) in done:
            return None
        weights, size, rate = self.prepared.get(cell.backbone, ("", self.options.image_size or 224, 0.0))
        steps, window = self._windows(cell) if stage == "measure" else (FEWEST, 1)
        options = self.options
        return Job(
            cell, stage, weights, size, options.threads, repetition, steps=steps, window=window, seed=options.seed,
            data=options.data, epochs=options.epochs, accuracy=options.accuracy, seconds=seconds or options.timeout,
            check_rate=rate,
        )  # fmt: skip

    def _check_of(self, cell: Cell) -> Record | None:
        found = [r for r in self.results.records if r.job.cell == cell and r.job.stage == "check" and r.state == "done"]
        return found[0] if found else None

    def _windows(self, cell: Cell) -> tuple[int, int]:
        """How many windows, of how many steps: as many as fit where WANTED repetitions are to fit into the budget."""
        check = self._check_of(cell)
        if check is None or cell.task == "load":
            return FEWEST, 1
        step, cells = max(check.seconds["step"], 1e-4), len(self.options.cells())
        processes = max(cells, (WANTED + 1) * cells - len(self.results.records))  # the checks included
        window = max(1, math.ceil(WINDOW_SECONDS / step))
        share = self.left / processes - self._start_up(check)
        return min(MOST, max(FEWEST, int(share / (window * step)) - 2)), window

    def _cost(self, cell: Cell, windows: int) -> float:
        """Seconds that one more repetition will take at least."""
        check = self._check_of(cell)
        if check is None:
            return 0.0
        _, window = self._windows(cell)
        return self._start_up(check) + (windows * window + 2) * check.seconds["step"]

    def _start_up(self, check: Record) -> float:
        return sum(check.seconds[name] for name in ("import", "load", "compile"))


def prepare_weights(backbone: str, options: Options, file: Path, limit: float) -> None:
    """In a process of its own, on the backend that is quickest without compiling. Raises what went wrong there."""
    backend = next((name for name in ("torch", "tensorflow", "jax") if is_installed(name)), "")
    file.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | ENVIRONMENT | {"KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": "-1"}
    arguments = [backbone, options.weights, str(options.image_size), str(file)]
    report = file.with_suffix(".error.json")
    ended = children.run("multitl.bench.preparation", arguments, environment, limit)
    if report.is_file():
        raise read_error(report)
    if ended.code != 0:
        raise errors.RunError(
            f"The weights of {backbone} could not be prepared.",
            expected="exit code 0 within the budget",
            received="no answer in time" if ended.code is None else children.last_words(ended),
            fix="multitl doctor; or a larger --budget",
        )


def _insist_on_one(cells: list[Cell]) -> None:
    names = dict.fromkeys(cell.contender for cell in cells)
    missing = {name: missing_packages(name) for name in names}
    if all(missing.values()):
        raise errors.BackendError(
            "None of the contenders can run here.",
            expected="one of " + ", ".join(BACKENDS),
            received="; ".join(f"{name}: {', '.join(packages)} not installed" for name, packages in missing.items()),
            fix=f"{pip_line(min(missing.values(), key=len))}, or name others with --backends",
        )


def _check_folder(folder: Path, *, overwrite: bool, resume: bool) -> bool:
    """Whether a race is to go on there. Raises RunError where the folder is not free to use."""
    if overwrite and resume:
        raise errors.RunError(
            "--overwrite and --resume exclude each other.", expected="one of them", received="both",
            fix="--resume continues, --overwrite starts again",
        )  # fmt: skip
    is_ours = (folder / RESULTS).is_file()
    if is_used(folder) and not is_ours:
        raise errors.RunError(
            f"{folder} exists and holds no results of multitl bench, so it is left alone.",
            expected="a new or empty folder", received=str(folder), fix="choose another folder with --out",
        )  # fmt: skip
    if is_ours and not overwrite and not resume:
        raise errors.RunError(
            f"{folder} holds results already.", expected="a new folder, or permission", received=str(folder),
            fix="add --resume to go on, --overwrite to start again, or choose another --out",
        )  # fmt: skip
    return is_ours and resume


def _check_same(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    """A race goes on with its own options; only how long it may last can change."""
    changed = [name for name in new if old.get(name) != new[name] and name not in ("budget", "repetitions", "timeout")]
    if changed:
        raise errors.RunError(
            f"{folder} was started with other options.",
            expected=", ".join(f"{name} = {old.get(name)!r}" for name in changed),
            received=", ".join(f"{name} = {new[name]!r}" for name in changed),
            fix="repeat the first options, or choose another --out",
        )


def _check_same_machine(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    """Medians are over repetitions, which have to be of one machine and the same versions."""
    before, now = (_kinds(machine) for machine in (old, new))
    changed = [name for name in now if before.get(name, now[name]) != now[name]]
    if changed:
        raise errors.RunError(
            f"{folder} was started on another machine, or with other versions.",
            expected=", ".join(f"{name} {before[name]}" for name in changed),
            received=", ".join(f"{name} {now[name]}" for name in changed),
            fix="start again with another --out; multitl bench compare shows what changed between two",
        )


def _kinds(machine: dict[str, Any]) -> dict[str, Any]:
    """By name. What was installed since is no change."""
    about = dict[str, Any]({name: machine[name] for name in MACHINE if name in machine})
    versions = machine.get("versions")
    return about | (versions if isinstance(versions, dict) else {})
