"""How much faster several workers are: `python benchmarks/scaling.py [BACKEND DATA] [--rounds 3] > docs/scaling.md`.

DATA: a folder of labelled images, some hundreds; without one the model alone is written. For a machine that does
nothing else, of two cores at least.

Measured: the frozen pass and fine-tuning by one worker on one core (taskset), and by two on one core each, in turn;
medians of ROUNDS. Start-up is left out: the frozen pass is timed on all images and on half of them, and the
difference counts; of fine-tuning, all legs but the first, validation included.

Modelled, from a measured step: the efficiency of 8, 64 and 512 workers.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from startup import machine

STEPS, BATCH, SIZE = 64, 32, "128"
PARAMETERS = 3_371_024  # of EfficientNet-Lite0 without its classifier
BACKBONE = ("--backbone", "pypi/efficientnet_lite0", "--image-size", SIZE, "--batch-size", str(BATCH), "--seed", "0")
DEEP = ("--unfreeze", "all", "--steps", str(STEPS), "--learning-rate", "1e-3", "--augment", "light", "--budget", "none")
WORKERS = (8, 64, 512)
# Bandwidth between neighbours in bytes a second, and seconds until a message is there: as vendors state them.
NETWORKS = {
    "10 Gbit/s Ethernet": (10e9 / 8, 50e-6),
    "100 Gbit/s RoCE or EFA": (100e9 / 8, 20e-6),
    "400 Gbit/s InfiniBand": (400e9 / 8, 5e-6),
}
# Milliseconds a training step and parameters that train. The first is added by what is measured here.
STEPS_ELSEWHERE = {"ResNet-50, 224 px, 64 images on an H200 (benchmarks/translated_h200.md, JAX)": (0.0330, 25_557_032)}
OVERHEAD = """Each step ends with a ring all-reduce of all gradients (float32), which waits for the whole backward pass:

    seconds = step + 2 (N - 1) / N x bytes / bandwidth + 2 (N - 1) x latency        efficiency = step / seconds

The step is that of a worker's share, whose size stays as it is: N workers have a batch N times as large. Left out, so
that it is no promise: stragglers, other traffic, a slow disk, decoding. In favour: that nothing is overlapped or
compressed; within one machine NVLink is 10 to 50 times as fast, and rings of rings have far fewer hops than 2 (N - 1),
which is what 512 workers lose by here. The frozen pass exchanges nothing but its features at the end: its efficiency is
that of the slowest share."""


def all_reduce_seconds(count: int, workers: int, bandwidth: float, latency: float) -> float:
    """Of `count` bytes in a ring (Patarasu and Yuan, 2009)."""
    return 2 * (workers - 1) / workers * count / bandwidth + 2 * (workers - 1) * latency


def efficiency(step: float, parameters: int, workers: int, bandwidth: float, latency: float) -> float:
    """Share of the workers' time that is spent as one alone would. step: seconds."""
    return step / (step + all_reduce_seconds(4 * parameters, workers, bandwidth, latency))


def tables(data: Path, folder: Path) -> tuple[Path, Path, int]:
    """All images and half of them as CSV, and by how many they differ. Every image is for training or validation."""
    images = sorted(path for path in data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for name, chosen in (("all", images), ("half", images[::2])):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [(path.resolve(), path.parent.name, "train" if index % 8 else "validation")
                    for index, path in enumerate(chosen)]  # fmt: skip
            csv.writer(file).writerows([("path", "label", "split"), *rows])
    return folder / "all.csv", folder / "half.csv", len(images) - len(images[::2])


def run(table: Path, backend: str, workers: int, *more: str) -> Path:
    """The folder of a finished run by so many workers, on so many cores, with an empty cache."""
    out = Path(tempfile.mkdtemp(dir=table.parent))
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:workers]))
    command = ["taskset", "-c", cores, sys.executable, "-m", "multitl", "finetune", str(table), *BACKBONE, *more,
               "--backend", backend, "--workers", str(workers), "--out", str(out / "run")]  # fmt: skip
    done = subprocess.run(
        command, env=os.environ | {"MULTITL_CACHE": str(out / "cache")}, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return out / "run"


def features_seconds(table: Path, backend: str, workers: int) -> float:
    card = json.loads((run(table, backend, workers, "--unfreeze", "none") / "card.json").read_text(encoding="utf-8"))
    return float(card["seconds"]["features"])


def step_seconds(table: Path, backend: str, workers: int) -> float:
    """Of one step, its share of validation included."""
    with (run(table, backend, workers, *DEEP) / "history.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == "finetune"]
    legs = len(rows)
    return statistics.median(float(row["seconds"]) for row in rows[1:]) * legs / STEPS


def measure(data: Path, backend: str, rounds: int) -> dict[str, dict[int, list[float]]]:
    """Seconds by what was timed and by the number of workers, a value a round."""
    found: dict[str, dict[int, list[float]]] = {"frozen pass, images/s": {1: [], 2: []}, "steps/s": {1: [], 2: []}}
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        whole, half, more = tables(data, Path(folder))
        for _ in range(rounds):
            for workers in (1, 2):
                seconds = features_seconds(whole, backend, workers) - features_seconds(half, backend, workers)
                found["frozen pass, images/s"][workers].append(more / seconds)
                found["steps/s"][workers].append(1 / step_seconds(whole, backend, workers))
    return found


def table(options: argparse.Namespace) -> float:
    """Print what is measured; seconds of a step of one worker."""
    found = measure(options.data, options.backend, options.rounds)
    print(f"Two workers beside one, {options.backend}: EfficientNet-Lite0, {SIZE} px, a batch of {BATCH} in all,")
    print(f"{options.rounds} rounds in turn; one core and one thread a worker; start-up left out.\n")
    print("| | one worker | two workers | ratio of medians | of rounds |\n|---|---:|---:|---:|---:|")
    for name, by_workers in found.items():
        one, two = (statistics.median(by_workers[workers]) for workers in (1, 2))
        ratios = [b / a for a, b in zip(by_workers[1], by_workers[2], strict=True)]
        print(f"| {name} | {one:.2f} | {two:.2f} | {two / one:.2f} | {min(ratios):.2f} to {max(ratios):.2f} |")
    return 1 / statistics.median(found["steps/s"][1])


def model(steps: dict[str, tuple[float, int]]) -> None:
    """Print the efficiency of many workers. steps: what it is -> its seconds, parameters."""
    print(f"\n## More than can be had here: a model\n\n{OVERHEAD}\n")
    print("| step | network | " + " | ".join(f"{workers} workers" for workers in WORKERS) + " |")
    print("|---|---|" + "---:|" * len(WORKERS))
    for step, (seconds, parameters) in steps.items():
        for network, (bandwidth, latency) in NETWORKS.items():
            shares = [f"{efficiency(seconds, parameters, count, bandwidth, latency):.2f}" for count in WORKERS]
            print(
                f"| {step}: {seconds * 1000:.0f} ms, {4 * parameters / 1e6:.0f} MB | {network} | {' | '.join(shares)} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("backend", nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"# How much faster several workers are\n\n{machine()}; {datetime.date.today()}.")
    print(f"Made by `python {' '.join(['benchmarks/scaling.py', *sys.argv[1:]])}`.\n")
    steps = dict(STEPS_ELSEWHERE)
    if options.data:
        here = f"EfficientNet-Lite0, {SIZE} px, {BATCH} images on one core of this machine"
        steps[here] = (table(options), PARAMETERS)
    else:
        print("Two workers beside one were not measured: that takes a machine that does nothing else.")
    model(steps)


if __name__ == "__main__":
    main()
