"""Photos of classes that a run has never seen: how well `multitl predict` tells them from those of its own classes.

    KERAS_BACKEND=tensorflow python benchmarks/unknown.py ../shared/data clothing_medium > benchmarks/unknown.md

Pairs of classes, drawn at random, are left out of a data set; a run is made of the rest (`--unfreeze`, `--budget`), and
asked of all test images and of the validation images of the two classes. By `familiarity`: the area under the ROC
curve; the share of the known that is called unknown (5 % are promised) and of the others. Beside it the same area for
the confidence, for the energy alone and for the distance from the nearest prototype alone. Last, whether the sets of
plausible classes hold the true one for 90 % of the known test images, and how many classes they have.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from multitl_rivals.tables import DATA_SETS, Rows, open_table, read_rows, write_rows
from sklearn.metrics import roc_auc_score
from zoo import versions

import multitl
from multitl.judging.opening import Run, load_run

SCORES = ("familiarity", "confidence", "energy", "distance")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("name", choices=DATA_SETS)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--unfreeze", default="none")
    parser.add_argument("--budget", default="10m")
    options = parser.parse_args()
    how = "the head alone" if options.unfreeze == "none" else f"--budget {options.budget}"
    with tempfile.TemporaryDirectory(prefix="multitl-unknown-") as scratch:
        rows = read_rows(open_table(Path(scratch), options.name, 0, options.data))
        given = {"unfreeze": options.unfreeze, "budget": options.budget, "image_size": DATA_SETS[options.name].size}
        print(f"# Images of unknown classes: {options.name}, {how}\n")
        print(
            f"By `benchmarks/unknown.py`, {datetime.date.today()}, {os.environ.get('KERAS_BACKEND')}; {versions()}.\n"
        )
        table(measure(rows, Path(scratch), options.pairs, given))


def measure(rows: Rows, scratch: Path, count: int, given: dict) -> Iterator[dict[str, str | float]]:
    """For each pair of classes that is left out."""
    names = sorted({label for _, label, _ in rows})
    pairs = list(itertools.combinations(names, 2))
    for number in np.random.default_rng(0).permutation(len(pairs))[:count]:
        out = pairs[number]
        known, folder = scratch / f"{number}.csv", scratch / f"run-{number}"
        write_rows(known, [row for row in rows if row[1] not in out])
        multitl.finetune(known, output=folder, **given)
        asked = [row for row in rows if row[2] == "test" or (row[2] == "validation" and row[1] in out)]
        yield {"left out": " and ".join(out)} | judge(load_run(folder), asked, out)


def judge(run: Run, asked: Rows, out: tuple[str, str]) -> dict[str, float]:
    found = multitl.predict(run, [path for path, _, _ in asked])
    is_new = np.array([label in out for _, label, _ in asked])
    parts = strangeness(run, [path for path, _, _ in asked])
    parts |= {"confidence": -np.array([row["confidence"] for row in found])}
    areas = {name: float(roc_auc_score(is_new, parts[name])) for name in SCORES}
    unknown = np.array([row["unknown"] for row in found])
    holds = [label in row["plausible"] for (_, label, _), row in zip(asked, found, strict=True) if label not in out]
    sizes = [len(row["plausible"]) for row, new in zip(found, is_new, strict=True) if not new]
    return areas | {
        "known called unknown": float(unknown[~is_new].mean()), "others called unknown": float(unknown[is_new].mean()),
        "sets hold the class": float(np.mean(holds)), "classes a set": float(np.mean(sizes)),
    }  # fmt: skip


def strangeness(run: Run, paths: list[str]) -> dict[str, np.ndarray]:
    """The whole score, and what it is made of."""
    import keras

    from multitl.data.pixels import read_files
    from multitl.models.inference import BATCH, compile_forward, predict_padded
    from multitl.models.strangeness import features_and_logits
    from multitl.training.familiarity import distances, energies

    features, logits = features_and_logits(run.model)
    parts = keras.layers.Concatenate(dtype="float32")([features, logits])
    forward = compile_forward(keras.Model(run.model.input, parts))
    pixels = read_files(paths, run.card.preprocess)
    rows = np.concatenate([predict_padded(forward, np.stack(batch)) for batch in iter_batches(pixels, BATCH)])
    seen, given = np.split(rows, [features.shape[-1]], axis=1)
    known = run.familiarity
    distance, energy = distances(seen, known.centre, known.prototypes), energies(given)
    whole = known.distance.standardised(distance) + known.energy.standardised(energy)
    return {"familiarity": whole, "distance": distance, "energy": energy}


def iter_batches(pixels: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while batch := list(itertools.islice(pixels, size)):
        yield batch


def table(rows: Iterable[dict[str, str | float]]) -> None:
    """Markdown, each row as it comes, with the means of all at last."""
    found = list[dict[str, str | float]]()
    for row in rows:
        if not found:
            print("| " + " | ".join(row) + " |\n|---|" + "---:|" * (len(row) - 1))
        found.append(row)
        show(row)
    names = list(found[0])[1:]
    show({"left out": "mean"} | {name: float(np.mean([row[name] for row in found])) for name in names})


def show(row: Mapping[str, str | float]) -> None:
    print("| " + " | ".join(one if isinstance(one, str) else f"{one:.3f}" for one in row.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
