"""How a race was run, in sentences: for the page and the Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multitl.bench.jobs import Record


def warnings_of(head: Mapping[str, Any]) -> list[str]:
    """What makes figures doubtful, to be read before them."""
    load, cores = head["machine"]["load"], head["machine"]["cores"]
    if load is None or load <= cores:
        return []
    return [
        f"The machine was busy when this began: a load of {load:g} on {cores} core{'s' if cores != 1 else ''}. "
        "Others took their share of it, so the figures are too low, and not equally for all."
    ]


def describe_method(head: Mapping[str, Any], records: Sequence[Record]) -> list[str]:
    """What a reader has to know before believing a figure."""
    options, measured = head["options"], [r for r in records if r.job.stage == "measure" and r.state == "done"]
    repetitions = 1 + max((record.job.repetition for record in measured), default=-1)
    threads = options["threads"]
    turns = f"in turn (A B C A B C), {_times(repetitions)}" if repetitions else "of which none was measured"
    notes = [
        f"A process for each contender and repetition, {turns}; each kept on the same {threads} "
        f"core{'s' if threads != 1 else ''}.",
        "Images a second are those of the steady state: the first step, which compiles, and a warm-up step are left "
        "out; the clock is read when the device is done. Figures are medians of repetitions, with the lowest and "
        "highest; ratios carry a 95 % bootstrap interval over repetitions and windows of steps.",
        "Import, load and compile add up to the time to the first step, the start of Python included.",
        "Before timing, every contender had to give the same logits, the same losses of four SGD steps and the same "
        "number of trained parameters; dropout and stochastic depth are off. Timed steps use Adam.",
        "Pixels are 8-bit when a step begins: each step includes the copy to the device and the normalisation. "
        "float32 is float32: TF32 is off for all.",
        "multitl runs as in every `multitl finetune`: deterministic, and with freed memory kept by the process "
        "(glibc's mallopt). Native loops run without either, as their frameworks do by themselves.",
    ]
    if options["weights"] == "none":
        notes.append("Weights are random, with batch statistics of synthetic images; speed does not depend on values.")
    if any(record.job.stage == "job" for record in records):
        notes.append(
            f"A whole job trains a new head for {options['epochs']} epochs on {options['data']}, from the start of the "
            "process. multitl's includes what `multitl finetune` does besides: looking at every file, judging the test "
            "images, saving and proving the model, the report. The native loops compute features once, too; the "
            "textbook loop computes the backbone anew in every epoch."
        )
    if repetitions == 1:
        notes.append("One repetition only: the intervals say nothing about other processes. A larger --budget helps.")
    return notes


def machine_facts(head: Mapping[str, Any], records: Sequence[Record]) -> dict[str, str]:
    """Label -> text."""
    machine = head["machine"]
    devices = dict.fromkeys(name for record in records for name in record.devices if name != "CPU")
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB" if machine["memory_bytes"] else "unknown"
    return {
        "processor": f"{machine['processor']}, {machine['cores']} cores, {memory} of memory",
        "accelerator": ", ".join([*machine["accelerators"], *devices][:4]) or "none",
        "system": machine["system"],
        "versions": ", ".join(
            [f"multitl {machine['multitl']}", f"Python {machine['python']}"]
            + [f"{name} {version}" for name, version in machine["versions"].items()]
        ),
        "load before the start": str(machine["load"]),
        "date": machine["created"],
    }


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
