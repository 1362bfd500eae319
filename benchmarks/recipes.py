"""`multitl finetune` beside what a user could have had instead:
`python benchmarks/recipes.py DATA > benchmarks/recipes.md`.

DATA: the folder of the data sets (see multitl_rivals/tables.py). Every contender gets the same splits, the same pixels
and EfficientNet-Lite0's weights; each run is a process of its own with an empty cache, one at a time, so the machine
should do nothing else: beside a busy process PyTorch's two threads once cost ten times the seconds of one. Rows are
kept in runs/recipes/rows.jsonl (`--results`) as they come, so an interrupted table goes on where it was.

`--shots 5,10,25` compares the quick way with LogisticRegressionCV on so few images a class, three draws each.
"""

from __future__ import annotations

import argparse
import datetime
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from multitl_rivals import pages
from multitl_rivals.tables import DATA_SETS, FEW, count_splits, open_few, open_table
from zoo import Row, kept_in, versions

from multitl.errors import MultitlError
from multitl.judging.metrics import score
from multitl.judging.predictions import read_predictions

ROOT = Path(__file__).resolve().parents[1]
OWN = {  # multitl's contenders: options of `multitl finetune`
    "quick": ("--unfreeze", "none"),
    "default": (),
    "budget-2m": ("--budget", "2m"),
    "budget-20m": ("--budget", "20m"),
}
RIVALS = {"fastai": "fastai_finetune", "expert": "expert", "logistic": "logistic"}  # programs in multitl_rivals
CONTENDERS = (*OWN, *RIVALS)
SEEDS = 3  # where there are few training images
SHOT_DATA, SHOT_CONTENDERS = ("clothing_medium", "deeppcb_split"), ("quick", "logistic")


@dataclass(frozen=True)
class Run:
    """One row to be made. data: what the table calls it; table: its splits."""

    data: str
    contender: str
    seed: int
    table: Path
    size: int

    @property
    def name(self) -> str:
        return f"{self.data} {self.size} px, {self.contender}, seed {self.seed}"


@dataclass(frozen=True)
class Options:
    """Of the whole benchmark. fastai: the Python that has it, or None."""

    backend: str
    fastai: str | None


def runs(options: argparse.Namespace, missing: dict[str, str]) -> Iterator[Run]:
    """All that is asked for, data set by data set. What is not there goes into `missing` with the reason."""
    contenders = [one for one in options.contenders if one not in missing]
    for name in options.data_sets:
        size = options.size or DATA_SETS[name].size
        try:
            table = partial(open_table, options.results.parent / "tables", name, data=options.data)
            few = count_splits(table(seed=0))["train"] < FEW
        except MultitlError as error:
            missing[name] = error.problem
            continue
        for seed in range(options.seeds if few else 1):
            yield from (Run(name, contender, seed, table(seed=seed), size) for contender in contenders)


def few_shot_runs(options: argparse.Namespace) -> Iterator[Run]:
    """So many images a class, three draws."""
    for name in SHOT_DATA:
        size = options.size or DATA_SETS[name].size
        for shots in options.shots:
            for draw in range(options.seeds):
                table = open_few(options.results.parent / "tables", name, shots, draw, options.data)
                yield from (Run(f"{name}, {shots} a class", one, draw, table, size) for one in SHOT_CONTENDERS)


def command(run: Run, folder: Path, options: Options) -> list[str]:
    """What a contender is started with; it leaves FOLDER/predictions.csv."""
    if run.contender in OWN:
        return [sys.executable, "-m", "multitl", "finetune", str(run.table), *OWN[run.contender], "--image-size",
                str(run.size), "--seed", str(run.seed), "--backend", options.backend, "--out", str(folder)]  # fmt: skip
    python = (options.fastai or "python") if run.contender == "fastai" else sys.executable
    program = f"multitl_rivals.{RIVALS[run.contender]}"
    return [python, "-m", program, str(run.table), str(run.size), str(run.seed), str(folder / "predictions.csv")]


def environment(cache: str) -> Mapping[str, str]:
    """This checkout, also for a Python of another environment; nothing that an earlier run has stored."""
    places = os.pathsep.join(str(ROOT / part) for part in ("", "backends", "benchmarks"))
    return os.environ | {"PYTHONPATH": places, "MULTITL_CACHE": cache, "TF_CPP_MIN_LOG_LEVEL": "3"}


def measure(run: Run, options: Options) -> Row:
    """A contender's figures on the test images, and what they cost. Raises RuntimeError with its last words."""
    with tempfile.TemporaryDirectory(prefix="multitl-recipes-") as scratch:
        folder = Path(scratch, "run")
        if run.contender in RIVALS:
            folder.mkdir()
        before, started = cpu_seconds(), time.perf_counter()
        words = command(run, folder, options)
        done = subprocess.run(words, env=environment(f"{scratch}/cache"), capture_output=True, text=True)
        cost = {"cpu": cpu_seconds() - before, "wall": time.perf_counter() - started}
        if done.returncode:
            raise RuntimeError(f"{run.name}: {done.stderr.strip()[-500:]}")
        chosen = done.stdout.splitlines()[-1] if run.contender in RIVALS else ""
        return describe(run) | figures(folder / "predictions.csv") | cost | {"chosen": chosen}


def describe(run: Run) -> Row:
    return {"name": run.name, "data": run.data, "contender": run.contender, "seed": run.seed, "size": run.size} | {
        "images": count_splits(run.table)
    }


def figures(predictions: Path) -> Row:
    """Of the test images."""
    found = read_predictions(predictions).of("test")
    scores = score(found.labels, found.probabilities, found.class_names, resamples=1)
    return {name: scores[name] for name in pages.FIGURES}


def cpu_seconds() -> float:
    """User's and system's, of all children that have ended, with theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(wanted: list[Run], options: Options, results: Path, missing: dict[str, str]) -> list[Row]:
    """Rows in the order of `wanted`, those of an earlier start included. One that fails is tried again next time."""
    by_name = {run.name: run for run in wanted}
    results.parent.mkdir(parents=True, exist_ok=True)

    def made(names: list[str]) -> Iterator[Row]:
        for name in names:
            try:
                yield measure(by_name[name], options)
            except RuntimeError as error:
                missing[name] = str(error).splitlines()[-1]
                print(error, file=sys.stderr, flush=True)

    found = kept_in(results, by_name, made, lambda row: f"{row['name']}: {row['accuracy']:.3f}, {row['cpu']:.0f} s")
    return [found[name] for name in by_name if name in found]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--data-sets", nargs="+", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--size", type=int, default=0, help="pixels; 0: each data set's own")
    parser.add_argument("--shots", type=lambda text: [int(one) for one in text.split(",")], default=[])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="where there are few training images, and draws")
    parser.add_argument("--backend", default="tensorflow", help="of multitl's contenders")
    parser.add_argument("--fastai-python", metavar="PATH", help="a Python that has fastai; without it, it is left out")
    parser.add_argument("--results", type=Path, default=Path("runs/recipes/rows.jsonl"))
    return parser.parse_args()


def made_by(arguments: argparse.Namespace) -> str:
    """The line under the title."""
    shots = f" --shots {','.join(map(str, arguments.shots))}" if arguments.shots else ""
    threads = os.environ.get("OMP_NUM_THREADS", "default")
    return (
        f"Made by `python benchmarks/recipes.py DATA{shots}`, multitl under {arguments.backend}, "
        f"{datetime.date.today()}, {os.cpu_count()} cores (OMP_NUM_THREADS: {threads}), {versions()}."
    )


def main() -> None:
    arguments = read_arguments()
    missing: dict[str, str] = {}
    if not (arguments.fastai_python and Path(arguments.fastai_python).is_file()):
        missing["fastai"] = f"no Python with fastai ({arguments.fastai_python or '--fastai-python'})"
    wanted = list(few_shot_runs(arguments) if arguments.shots else runs(arguments, missing))
    options = Options(arguments.backend, arguments.fastai_python)
    rows = measured(wanted, options, arguments.results, missing)
    print(pages.page(rows, missing, made_by(arguments)))


if __name__ == "__main__":
    main()
