"""results.jsonl: the machine and the options on the first line, then a record a line, as they come; and results.csv."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multitl.bench.jobs import PHASES, Cell, Job, Record, Stage
from multitl.errors import RunError
from multitl.files.csv_cells import write_row
from multitl.system.regular_files import read_regular_text
from multitl.system.writing import cannot_write, write_text

FORMAT = 1
COLUMNS = (
    "backbone", "task", "batch_size", "dtype", "contender", "stage", "repetition", "state", "images_per_second",
    "import_seconds", "load_seconds", "compile_seconds", "job_seconds", "accuracy_seconds", "accuracy", "host_bytes",
    "device_bytes", "trainable", "note",
)  # fmt: skip


@dataclass
class Results:
    """head: {"multitl bench": format, "machine": ..., "options": ...}."""

    head: dict[str, Any]
    records: list[Record] = field(default_factory=list)


def start_results(path: Path, head: dict[str, Any]) -> Results:
    """A new file."""
    results = Results({"multitl bench": FORMAT} | head)
    rewrite(path, results)
    return results


def rewrite(path: Path, results: Results) -> None:
    """What was read, without a last line that was cut off: the next one would be added to it."""
    lines = [results.head, *(record.to_json() for record in results.records)]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def append(path: Path, record: Record) -> None:
    """One more line, on the disk at once: a race that is interrupted keeps what it has."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record.to_json()) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def read_results(path: str | Path) -> Results:
    """Raises RunError for a file that `multitl bench` did not write. A last line that was cut off is left out."""
    try:
        first, *lines = read_regular_text(path).removesuffix("\n").split("\n")
        return Results(_head(first), latest(_records(lines)))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"{path} holds no results of multitl bench.",
            expected="a results.jsonl that multitl bench wrote",
            received=str(error),
            fix="name the file results.jsonl in a folder that multitl bench made",
        ) from error


def identity(job: Job) -> tuple[Cell, Stage, int]:
    """What a job is: two of the same are one that was tried again."""
    return job.cell, job.stage, job.repetition


def latest(records: Iterable[Record]) -> list[Record]:
    """Of a job that was tried again, when there was more time, the last record."""
    return list({identity(record.job): record for record in records}.values())


def _head(line: str) -> dict[str, Any]:
    head = json.loads(line) if line else {}
    if not isinstance(head, dict) or head.get("multitl bench") != FORMAT:
        raise ValueError("the first line is not that of multitl bench")
    if not all(isinstance(head.get(name, {}), dict) for name in ("machine", "options")):
        raise ValueError("the first line is damaged")
    return head


def _records(lines: list[str]) -> Iterable[Record]:
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
        except ValueError:
            if number == len(lines):
                return
            raise
        record = Record.from_mapping(values)
        if not _is_whole(record):
            raise ValueError(f"line {number + 1} lacks figures, or has impossible ones")
        yield record


def _is_whole(record: Record) -> bool:
    """Whether it has what standings are made of."""
    cell, seconds = record.job.cell, record.seconds.keys()
    wanted = {"check": {*PHASES, "step"}, "measure": PHASES, "job": {"job"}}[record.job.stage]
    figures = [cell.batch_size, record.job.window, *record.window_seconds]
    if min(figures) <= 0 or not all(len(point) == 2 for point in record.curve):
        return False
    return record.state != "done" or (seconds >= set(wanted) and (record.job.stage != "job" or bool(record.curve)))


def write_csv(path: Path, records: Iterable[Record]) -> None:
    """A line a process."""
    text = io.StringIO()
    write_row(text, COLUMNS)
    for record in records:
        row = _row(record)
        write_row(text, [row.get(name, "") for name in COLUMNS])
    write_text(path, text.getvalue())


def _row(record: Record) -> dict[str, Any]:
    from multitl.bench.estimates import rate_of

    cell, job = record.job.cell, record.job
    seconds = {f"{name}_seconds": round(value, 4) for name, value in record.seconds.items()}
    return seconds | {
        "backbone": cell.backbone,
        "task": cell.task,
        "batch_size": cell.batch_size,
        "dtype": cell.dtype,
        "contender": cell.contender,
        "stage": job.stage,
        "repetition": job.repetition,
        "state": record.state,
        "images_per_second": round(rate_of(record.rates), 3) if record.window_seconds else "",
        "accuracy_seconds": round(record.accuracy_seconds, 3) or "",
        "accuracy": record.curve[-1][1] if record.curve else "",
        "host_bytes": record.host_bytes or "",
        "device_bytes": record.device_bytes or "",
        "trainable": record.trainable or "",
        "note": record.note,
    }
