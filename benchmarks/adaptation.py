"""What `--unlabelled` gives on drawings of another vendor: every way to adapt, and the one that is chosen.

    python benchmarks/adaptation.py ../shared/data/emoji_vendors > benchmarks/adaptation.md

Training images are one vendor's, those without labels the other's training part, test images the other's test part,
whose labels judge and do nothing else. A run tries every way itself, so its card.json has all figures. Nearly every
drawing of the one training part is in the other too, as the other vendor has it; "no pairs" takes every second drawing
from the one and the rest from the other. "Labelled" trains on the other vendor's training part, labels and all. Rows
are kept in runs/adaptation/rows.jsonl (`--results`) as they come.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from zoo import Row, kept_in, versions

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("none", "norm", "coral", "transport", "norm+coral", "norm+transport")
TASKS = ("google -> twitter", "twitter -> google")
KINDS = ("pairs", "no pairs", "labelled")
SIZE, BACKBONE = "96", "pypi/efficientnet_lite0"


@dataclass(frozen=True)
class Run:
    """task: from which vendor to which.  kind: "pairs", "no pairs" or "labelled"."""

    task: str
    kind: str
    backend: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}, {self.kind}, {self.backend}, seed {self.seed}"


def runs(arguments: argparse.Namespace) -> Iterator[Run]:
    """The first task on every backend, all else on the first backend alone: features differ by rounding."""
    for backend in arguments.backends:
        yield from (Run(TASKS[0], KINDS[0], backend, seed) for seed in range(arguments.seeds))
    for kind in arguments.kinds:
        for task in TASKS if kind != KINDS[0] else TASKS[1:]:
            yield from (Run(task, kind, arguments.backends[0], seed) for seed in range(arguments.seeds))


def measure(run: Run, data: Path, cache: Path) -> Row:
    """Figures of every way on the test images. Raises RuntimeError with the run's last words."""
    with tempfile.TemporaryDirectory(prefix="multitl-adaptation-") as scratch:
        folder = Path(scratch)
        options = ["--unlabelled", str(folder / "unlabelled")] if write_data(run, data, folder) else []
        words = [sys.executable, "-m", "multitl", "finetune", str(folder / "table.csv"), *options, "--unfreeze", "none",
                 "--backbone", BACKBONE, "--image-size", SIZE, "--seed", str(run.seed), "--backend", run.backend,
                 "--out", str(folder / "run")]  # fmt: skip
        places = os.pathsep.join(str(ROOT / part) for part in ("", "backends"))
        environment = os.environ | {"PYTHONPATH": places, "MULTITL_CACHE": str(cache), "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{run.name}: {done.stderr.strip()[-500:]}")
        card, metrics = (json.loads((folder / "run" / name).read_text()) for name in ("card.json", "metrics.json"))
    about = {"name": run.name, "task": run.task, "kind": run.kind, "backend": run.backend, "seed": run.seed}
    test = {"log_loss": metrics["test"]["log_loss"], "accuracy": metrics["test"]["accuracy"]}
    return about | {"test": test, "adaptation": card["adaptation"]}


def write_data(run: Run, data: Path, folder: Path) -> bool:
    """table.csv with the labelled images, and a folder of the others; False where there are none."""
    source, target = (data / vendor for vendor in run.task.split(" -> "))
    train = images_of((target if run.kind == "labelled" else source) / "train")
    others = [] if run.kind == "labelled" else images_of(target / "train")
    if run.kind == "no pairs":
        train = [path for path in train if is_second(path)]
        others = [path for path in others if not is_second(path)]
    with (folder / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for split, paths in (("train", train), ("test", images_of(target / "test"))):
            rows.writerows([path, path.parent.name, split] for path in paths)
    (folder / "unlabelled").mkdir()
    for index, path in enumerate(others):
        shutil.copy(path, folder / "unlabelled" / f"{index}{path.suffix}")
    return bool(others)


def images_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.png"))


def is_second(path: Path) -> bool:
    """The same for a drawing's two versions, whose files are called the same."""
    return hashlib.sha256(path.name.encode()).digest()[0] % 2 == 1


def page(rows: Sequence[Row], made_by: str) -> str:
    """Markdown: a table a task and kind, a line a way."""
    lines = [
        "# Adapting to images without labels: `--unlabelled`",
        "",
        __doc__.partition("\n\n    ")[0],
        "",
        made_by,
        "",
    ]
    kinds = [kind for kind in ("pairs", "no pairs") if any(row["kind"] == kind for row in rows)]
    for kind in kinds:
        for task in TASKS:
            for backend in dict.fromkeys(row["backend"] for row in rows):
                chosen = [row for row in rows if (row["task"], row["kind"], row["backend"]) == (task, kind, backend)]
                if chosen:
                    labelled = [row for row in rows if (row["task"], row["kind"]) == (task, "labelled")]
                    lines += [f"## {task}, {kind}, {backend}", "", *table(chosen, labelled), ""]
    return "\n".join(lines)


def table(rows: Sequence[Row], labelled: Sequence[Row]) -> list[str]:
    """Means over seeds, in points what is gained over "none"."""
    lines = ["| way | test accuracy | gain | log loss | there and back | entropy | chosen |",
             "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    by_way = {way: [find(row, way) for row in rows] for way in WAYS}
    plain = np.array([one["figures"]["test"]["accuracy"] for one in by_way["none"]])
    picked = [find(row, row["adaptation"]["chosen"]) for row in rows]
    for title, found in [*by_way.items(), ("**chosen**", picked)]:
        accuracy = np.array([one["figures"]["test"]["accuracy"] for one in found])
        cells = [spread(accuracy), f"{100 * (accuracy - plain).mean():+.1f}"]
        cells += [f"{np.mean([one['figures']['test']['log_loss'] for one in found]):.3f}"]
        cells += [f"{np.mean([one[name] for one in found]):.3f}" for name in ("log_loss", "entropy")]
        count = sum(row["adaptation"]["chosen"] == title for row in rows)
        lines.append(f"| {' | '.join([title, *cells, str(count) if title in WAYS else ''])} |")
    if labelled:
        accuracy = np.array([row["test"]["accuracy"] for row in labelled])
        loss = np.mean([row["test"]["log_loss"] for row in labelled])
        gain = 100 * (accuracy.mean() - plain.mean())
        lines.append(f"| labelled | {spread(accuracy)} | {gain:+.1f} | {loss:.3f} | | | |")
    return lines


def find(row: Row, way: str) -> Row:
    return next(one for one in row["adaptation"]["tried"] if one["name"] == way)


def spread(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1) if len(values) > 1 else 0:.3f}"


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA", help="the folder emoji_vendors")
    parser.add_argument("--backends", nargs="+", default=["tensorflow", "jax", "torch"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("runs/adaptation/rows.jsonl"))
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    by_name = {run.name: run for run in runs(arguments)}

    def made(names: list[str]) -> Iterator[Row]:
        for name in names:
            try:
                yield measure(by_name[name], arguments.data, arguments.results.parent / "cache")
            except RuntimeError as error:
                print(error, file=sys.stderr, flush=True)

    found = kept_in(arguments.results, by_name, made, lambda row: f"{row['name']}: {row['test']['accuracy']:.3f}")
    made_by = f"Made by `python benchmarks/adaptation.py DATA`, {datetime.date.today()}, {BACKBONE} at {SIZE} px, "
    print(page([found[name] for name in by_name if name in found], f"{made_by}`--unfreeze none`, {versions()}."))


if __name__ == "__main__":
    main()
