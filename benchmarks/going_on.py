"""Real photos, five classes, then seven: what `--from` gives beside training on all at once.

    python benchmarks/going_on.py ../shared/data/clothing_medium > benchmarks/going_on.md

The folder's parts (train, validation, test) stay as they are, and the backbone too, so its features are computed once.
A row is one choice of classes, drawn by its seed: a run on five of them (`five`), one that goes on from it with all
images of seven (`seven`), one on the seven at once, and one that goes on from the first with nothing new (`again`).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

OLD, ALL = 5, 7
HEADER = """| classes | test images | | old classes: five | seven from five | at once | new: seven from five | at once \
| again |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="train|validation|test/class/images")
    parser.add_argument("--backend", default="tensorflow")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    os.environ["KERAS_BACKEND"] = options.backend
    names = sorted(path.name for path in (options.data / "train").iterdir())
    print("# Going on with more classes\n")
    print(f"Accuracy on the test images of {options.data.name}, {options.backend}, frozen backbone, solved head.")
    print("`again` is the largest difference of a probability that the same five classes have, gone on from.\n")
    print(HEADER)
    for seed in range(options.seeds):
        chosen = [names[index] for index in np.random.default_rng(seed).permutation(len(names))[:ALL]]
        with tempfile.TemporaryDirectory() as root:
            print(row(options.data, chosen, Path(root)), flush=True)


def row(data: Path, chosen: Sequence[str], root: Path) -> str:
    """A line of the table. chosen: OLD classes that are known first, then the new ones."""
    old, new = chosen[:OLD], chosen[OLD:]
    five, seven = link(data, root / "five", old), link(data, root / "seven", chosen)
    first = run(five, root / "run-five")
    more = run(seven, root / "run-seven", from_run=str(first))
    at_once, again = run(seven, root / "run-at-once"), run(five, root / "run-again", from_run=str(first))
    before, after = (told(one).probabilities for one in (first, again))
    figures = [accuracy(first, old), *(accuracy(one, part) for part in (old, new) for one in (more, at_once))]
    counts = " + ".join(str(int(np.isin(told(more).labels, places(more, part)).sum())) for part in (old, new))
    cells = " | ".join(f"{one:.3f}" for one in figures)
    return f"| {', '.join(old)} + {', '.join(new)} | {counts} | | {cells} | {np.abs(before - after).max():.1e} |"


def link(data: Path, target: Path, names: Sequence[str]) -> Path:
    """Some classes of every part, as links to the same files."""
    for part in ("train", "validation", "test"):
        for name in names:
            (target / part / name).mkdir(parents=True)
            for path in (data / part / name).iterdir():
                (target / part / name / path.name).symlink_to(path.resolve())
    return target


def run(data: Path, output: Path, **options: str) -> Path:
    import multitl

    multitl.finetune(data, output=output, unfreeze="none", **options)
    print(f"{output.name}: done", file=sys.stderr, flush=True)
    return output


def told(output: Path):  # type: ignore[no-untyped-def]  # Predictions: multitl is loaded once the backend is known
    from multitl.judging.predictions import read_predictions

    return read_predictions(output / "predictions.csv").of("test")


def places(output: Path, names: Sequence[str]) -> list[int]:
    return [told(output).class_names.index(name) for name in names]


def accuracy(output: Path, names: Sequence[str]) -> float:
    """On the test images of some classes, of all that the run knows."""
    found = told(output)
    chosen = np.isin(found.labels, places(output, names))
    return float((found.probabilities.argmax(axis=1) == found.labels)[chosen].mean())


if __name__ == "__main__":
    main()
