"""Records of a race that nobody ran, for tests of what is made from records."""

from __future__ import annotations

from multitl.bench.jobs import Cell, Job, Record
from multitl.bench.results import Results

LOGITS = [[1.0, -2.0, 0.5], [0.25, 1.5, -1.0]]
LOSSES = [2.5, 2.0, 1.5]
SECONDS = {"import": 2.0, "load": 0.5, "compile": 8.0}


def job(
    contender: str, stage: str = "measure", repetition: int = 0, task: str = "finetune", dtype: str = "float32"
) -> Job:
    cell = Cell("torchvision/resnet18", task, 4, dtype, contender)
    return Job(cell, stage, "weights.safetensors", 64, 1, repetition)  # type: ignore[arg-type]


def check(contender: str, *, shift: float = 0.0, trainable: int = 1000) -> Record:
    logits = [[value + shift for value in row] for row in LOGITS]
    return Record(
        job(contender, "check", -1), seconds=SECONDS | {"step": 0.5}, logits=logits, losses=LOSSES, trainable=trainable
    )


def measured(contender: str, rate: float, repetition: int = 0) -> Record:
    """Three windows around `rate` images/s."""
    windows = [4 / (rate * factor) for factor in (0.98, 1.0, 1.02)]
    return Record(
        job(contender, "measure", repetition), seconds=SECONDS, window_seconds=windows, host_bytes=10**9,
        versions={contender: "1.0"}, devices=["CPU"],
    )  # fmt: skip


def race(rates: dict[str, list[float]]) -> list[Record]:
    """Checks of all, then repetitions in turn."""
    records = [check(name) for name in rates]
    for repetition in range(max(map(len, rates.values()))):
        records += [measured(name, values[repetition], repetition) for name, values in rates.items()]
    return records


def results(records: list[Record], name: str = "torchvision/resnet18") -> Results:
    machine = {
        "created": "2026-01-02T03:04:05+00:00", "multitl": "0.1.0", "python": "3.11.7", "system": "Linux",
        "processor": "AMD EPYC <9>", "cores": 2, "memory_bytes": 24 * 2**30, "accelerators": [], "load": 0.1,
        "versions": {"torch": "2.13.0"},
    }  # fmt: skip
    options = {"backbones": [name], "threads": 2, "weights": "none", "data": "", "epochs": 10}
    return Results({"multitl bench": 1, "machine": machine, "options": options}, records)
