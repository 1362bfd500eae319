"""What `--unlabelled` gives on images of another domain: every way to adapt, and the one that is chosen.

    python benchmarks/adaptation.py ../shared/data > benchmarks/adaptation.md

Labelled images are of one domain, those without labels and the test images of another; labels of the other domain judge
and do nothing else. A run tries every way itself, so its card.json has all figures. "Pairs": drawings of emoji by one
vendor and by another, nearly all of the one's training part being in the other's too. "No pairs": every second drawing
is taken from the one, the rest from the other. "Made up": every second training image as it is, the rest and the test
images altered; "as it is" is no shift at all. "Labelled" trains on the other vendor's training part, labels and all.
Rows are kept in runs/adaptation/rows.jsonl (`--results`) as they come.
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
from PIL import Image, ImageFilter
from zoo import Row, kept_in, versions

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("none", "norm", "coral", "transport", "norm+coral", "norm+transport")
VENDORS = ("google -> twitter", "twitter -> google")
MADE_UP = tuple(f"{name} -> {change}" for name in ("clothing_tiny", "deeppcb_crops")
                for change in ("as it is", "blurred", "darker", "noisy"))  # fmt: skip
KINDS = {"pairs": VENDORS, "no pairs": VENDORS, "made up": MADE_UP, "labelled": VENDORS}
SUFFIXES = (".png", ".jpg", ".jpeg")
NOTE = """Where a head was solved it is fitted to the validation images too, so seeds of the split hardly differ:
three of them are no three measurements. Where onnxruntime is installed it computes the features of every backend, so
that their tables are equal. The test part of emoji_vendors has 175 images, the standard error of an
accuracy is 3.8 points; a gain of 3.4 points is six images. "There and back" is the log loss that chooses among norm,
coral and none; transport is chosen by counterparts alone (`multitl/training/transport.py`)."""
SIZE, BACKBONE = "96", "pypi/efficientnet_lite0"


@dataclass(frozen=True)
class Run:
    """task: from which domain to which, of those of `kind` in KINDS."""

    task: str
    kind: str
    backend: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}, {self.kind}, {self.backend}, seed {self.seed}"


def runs(arguments: argparse.Namespace) -> Iterator[Run]:
    """The first task on every backend, all else on the first backend alone: features differ by rounding."""
    first = (VENDORS[0], "pairs")
    for backend in arguments.backends:
        yield from (Run(*first, backend, seed) for seed in range(arguments.seeds))
    for kind in arguments.kinds:
        for task in (task for task in KINDS[kind] if (task, kind) != first):
            seeds = 1 if kind == "made up" else arguments.seeds
            yield from (Run(task, kind, arguments.backends[0], seed) for seed in range(seeds))


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
    train, others, test = made_up(run, data, folder) if run.kind == "made up" else of_vendors(run, data)
    with (folder / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "split"])
        for split, paths in (("train", train), ("test", test)):
            rows.writerows([path, path.parent.name, split] for path in paths)
    (folder / "unlabelled").mkdir()
    for index, path in enumerate(others):
        shutil.copy(path, folder / "unlabelled" / f"{index}{path.suffix}")
    return bool(others)


def of_vendors(run: Run, data: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Labelled images, the others, and those to judge by."""
    source, target = (data / "emoji_vendors" / vendor for vendor in run.task.split(" -> "))
    train, others, test = (images_of(part) for part in (source / "train", target / "train", target / "test"))
    if run.kind == "labelled":
        return others, [], test
    if run.kind == "no pairs":
        return [path for path in train if is_second(path)], [path for path in others if not is_second(path)], test
    return train, others, test


def made_up(run: Run, data: Path, folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    name, _, change = run.task.partition(" -> ")
    train, random = images_of(data / name / "train"), np.random.default_rng(0)
    others, test = [path for path in train if not is_second(path)], images_of(data / name / "test")
    altered = [[alter(path, change, folder / part / path.parent.name, random) for path in paths]
               for part, paths in (("others", others), ("judged", test))]  # fmt: skip
    return [path for path in train if is_second(path)], *altered


def alter(path: Path, change: str, folder: Path, random: np.random.Generator) -> Path:
    """A copy, as another camera might have taken it."""
    if change == "as it is":
        return path
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.open(path).convert("RGB")
    if change == "blurred":
        image = image.filter(ImageFilter.GaussianBlur(1.5 * min(image.size) / int(SIZE)))
    else:
        pixels = np.asarray(image, "float64")
        pixels = pixels * 0.35 if change == "darker" else pixels + random.normal(0, 30, pixels.shape)
        image = Image.fromarray(np.clip(pixels, 0, 255).astype("uint8"))
    image.save(folder / f"{path.stem}.png")
    return folder / f"{path.stem}.png"


def images_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*") if path.suffix in SUFFIXES)


def is_second(path: Path) -> bool:
    """The same for a drawing's two versions, whose files are called the same."""
    return hashlib.sha256(path.name.encode()).digest()[0] % 2 == 1


def page(rows: Sequence[Row], made_by: str) -> str:
    """Markdown: a table a task, a kind and a backend, a line a way."""
    about = " ".join((__doc__ or "").split("\n\n")[2].partition("\nRows are")[0].split())
    lines = ["# Adapting to images without labels: `--unlabelled`", "", about, "", NOTE, "", made_by, ""]
    for kind, tasks in KINDS.items():
        for task in tasks if kind != "labelled" else ():
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
    parser.add_argument("data", type=Path, metavar="DATA", help="the folder of the data sets")
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
                yield measure(by_name[name], arguments.data.resolve(), arguments.results.parent / "cache")
            except RuntimeError as error:
                print(error, file=sys.stderr, flush=True)

    found = kept_in(arguments.results, by_name, made, lambda row: f"{row['name']}: {row['test']['accuracy']:.3f}")
    made_by = f"Made by `python benchmarks/adaptation.py DATA`, {datetime.date.today()}, {BACKBONE} at {SIZE} px, "
    print(page([found[name] for name in by_name if name in found], f"{made_by}`--unfreeze none`, {versions()}."))


if __name__ == "__main__":
    main()
