"""How long a mistake waits for its message: `python benchmarks/errors_quick.py [RUNS] > benchmarks/errors_quick.md`.

Every error here needs no framework to be found. Each figure is of RUNS fresh processes (default 5), after one that
warms the disk cache; no median may be longer than LIMIT. The last column is the least that a core had to work: what a
busy machine does not change.
"""

from __future__ import annotations

import datetime
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from startup import MULTITL, machine

LIMIT = 1.5  # seconds
# What is typed, and what the message has to say. In the folder: photos of two classes, a run, and a folder of notes.
CASES = {
    "train photos": "did you mean finetune?",
    "finetune photos --lr 0.1": "did you mean --learning-rate",
    "finetune phots": "nearest: photos",
    "finetune photos/cat": "has no class folders",
    "finetune photos --backbone keras/ResNet51": "nearest: keras/ResNet50",
    "finetune photos --backbone keras/MobileNet:alpha=0.3": "nearest: alpha=0.5",
    "finetune photos --backbone torchvision/resnet50:V3": "Unknown weights 'V3' of torchvision/resnet50",
    "finetune photos --backbone tfhub/./mobilenet": "no such file or folder",
    "finetune photos --backbone resnet50": "nearest: keras/ResNet50",
    "finetune photos --backbone file:mine.keras": "There is no model file mine.keras",
    "finetune photos --backbone keras/ResNet50,timm/resnet5O": "nearest: timm/resnet50",
    "finetune photos --weights resnet.pth": "There is no weights file resnet.pth",
    "finetune photos --unfreeze none --head-epochs 0": "This recipe trains nothing.",
    "finetune photos --dropout 2": "The option dropout cannot be 2.0.",
    "finetune photos --recipe mine.toml": "Cannot read the recipe mine.toml",
    "finetune photos --out notes": "is not a run of multitl",
    "finetune photos --backend pytorch": "Unknown backend 'pytorch'",
    "finetune paths.csv": "names 1 files that do not exist",
    "choose photos --backbones keras/ResNet50,keras/VGG17": "nearest: keras/VGG19",
    "choose photos --backbones keras/ResNet50,keras/VGG16 --out notes": "is no choice of multitl",
    "predict rum photos": "nearest: run",
    "predict notes photos": "to mend",
    "predict run phots": "nearest: photos",
    "evaluate rum photos": "nearest: run",
    "evaluate run phots": "nearest: photos",
    "evaluate run birds": "There are classes that the run does not know: crow",
    "translate keras/VGG91": "nearest: keras/VGG19",
    "translate torchvision/resnet18 --out notes": "is not a run of multitl",
    "port rum --to onnx": "There is no model 'rum'",
    "port run --to onx": "nearest: onnx",
    "port run --to keras --images phots": "nearest: photos",
    "port torchvision/resnet5O --to keras": "nearest: torchvision/resnet50",
    "port run --to keras --out notes": "something else, which is left alone",
    "bench --backbone keras/ResNet51": "nearest: keras/ResNet50",
    "bench --task head --data phots": "nearest: photos",
    "bench --out notes": "holds no results of multitl bench",
    "bench compare run photos": "holds no results of multitl bench",
    "backbones resnet5O": "No backbone matches",
    "cache --clear picture": "to mend",
}
CARD = {
    "status": "complete", "seed": 3, "data": {"class_names": ["cat", "dog"]}, "recipe": {}, "backend": {"name": "jax"},
    "backbone": {"name": "keras/MobileNet", "preprocess": {"height": 16, "width": 16, "shorter_side": 16}},
}  # fmt: skip


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"# Seconds to a message\n\n{machine()}; {runs} runs each; {datetime.date.today()}.\n")
    print("| `multitl ...` | median, s | slowest, s | of a core, s |\n|---|---:|---:|---:|")
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        furnish(Path(folder))
        for typed, said in CASES.items():
            seconds, of_core = zip(*[time_error(typed, said, folder) for _ in range(runs + 1)][1:], strict=True)
            median, least = statistics.median(seconds), min(of_core)
            print(f"| {typed} | {median:.2f} | {max(seconds):.2f} | {least:.2f} |", flush=True)
            slowest = max(slowest, median)
    if slowest > LIMIT:
        raise SystemExit(f"slower than {LIMIT} s: {slowest:.2f} s")


def furnish(folder: Path) -> None:
    """The files that `CASES` are typed beside."""
    for number, name in enumerate(["photos/cat/0.png", "photos/cat/1.png", "photos/dog/0.png", "birds/crow/0.png"]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(path)
    texts = {"run/card.json": json.dumps(CARD), "notes/todo.txt": "", "paths.csv": "path,label\nx.png,cat\n"}
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def time_error(typed: str, said: str, folder: str) -> tuple[float, float]:
    """Wall seconds, and seconds of a core, of one process that ends with that message."""
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    started, before = time.perf_counter(), of_children()
    command = [*MULTITL, *shlex.split(typed)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    seconds, of_core = time.perf_counter() - started, of_children() - before
    if done.returncode != 2 or said not in done.stderr:
        raise SystemExit(f"multitl {typed}: {done.returncode}\n{done.stdout}{done.stderr}")
    return seconds, of_core


def of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
