"""Heads on 1 to 10 images a class: `multitl finetune`'s choice beside what else could be put on the same features.

    KERAS_BACKEND=tensorflow python benchmarks/few_shots.py ../shared/data > benchmarks/few_shots.md

Features are EfficientNet-Lite0's, of each image once, from the store where they are there. Each draw takes so many
images a class from train and validation, and every head is fitted to all of them; the test part is always the whole.
"mean" is the nearest class mean of features centred on their mean and brought to length 1 (SimpleShot's CL2N,
arXiv:1911.04623), which is a head of multitl's; "uncentred" is the same without the first (L2N). "directions" is a
linear head on what "mean" sees. LogisticRegression is scikit-learn's with its defaults.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from multitl_rivals.tables import DATA_SETS, draw_few, open_table, read_rows
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from zoo import versions

from multitl.adapters import load_backend
from multitl.data.pixel_store import PixelStore
from multitl.data.scanning import scan_for_training
from multitl.models.feature_maps import directed
from multitl.recipes import Recipe
from multitl.training.head_choice import SolvedHead, choose_head
from multitl.training.ranking import Candidate, load_backbone
from multitl.training.softmax_regression import SoftmaxRegression
from multitl.training.solved_head import Task

SETS, SHOTS, DRAWS = ("clothing_medium", "deeppcb_split"), (1, 2, 3, 5, 10), 12
PENALTY = 1e-3  # of "directions"
SCALE = 32.0  # of "uncentred": what half a squared distance counts

Logits = Callable[[np.ndarray], np.ndarray]


def of_choice(task: Task, kind: str) -> Logits:
    """multitl's own head, of the kind that the option `head` names."""
    head: SolvedHead = choose_head(task, Recipe(head=kind, seed=task.seed))
    return lambda features: head.fixed(features) @ head.solution.kernel + head.solution.bias


def of_directions(task: Task) -> Logits:
    fixed = directed(task.views[0])
    solution = SoftmaxRegression(task.samples(fixed)).solve(PENALTY)
    return lambda features: fixed(features) @ solution.kernel + solution.bias


def of_cosines(task: Task) -> Logits:
    means = task.labels.T @ lengthened(task.views[0]) / task.labels.sum(axis=0)[:, None]
    return lambda features: SCALE * (lengthened(features) @ means.T - 0.5 * np.square(means).sum(axis=1))


def of_scikit_learn(task: Task) -> Logits:
    return LogisticRegression(max_iter=5000).fit(task.views[0], task.labels.argmax(axis=1)).decision_function


HEADS: Mapping[str, Callable[[Task], Logits]] = {
    "multitl (auto)": lambda task: of_choice(task, "auto"),
    "multitl, linear": lambda task: of_choice(task, "linear"),
    "mean": lambda task: of_choice(task, "mean"),
    "uncentred": of_cosines,
    "directions": of_directions,
    "LogisticRegression": of_scikit_learn,
}


def lengthened(features: np.ndarray) -> np.ndarray:
    """Of length 1."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def open_features(name: str, data: Path) -> tuple[dict[str, np.ndarray], list[tuple[str, str, str]]]:
    """Path -> feature, of every image, and the rows path, class, split."""
    with tempfile.TemporaryDirectory() as folder:
        table = open_table(Path(folder), name, 0, data)
        recipe, backend = Recipe(image_size=DATA_SETS[name].size), load_backend()
        dataset, pretrained = scan_for_training(table, recipe), load_backbone(recipe, backend)
        candidate = Candidate(recipe.backbone, pretrained, recipe, backend, PixelStore(pretrained.preprocess.geometry))
        candidate.advance(dataset.examples)
        paths = [one.path for one in dataset.examples]
        return dict(zip(paths, candidate.features, strict=True)), read_rows(table)


def measure(
    features: Mapping[str, np.ndarray], rows: Sequence[tuple[str, str, str]], shots: int, draws: int
) -> dict[str, np.ndarray]:
    """Head -> (draws, 2): accuracy and log loss on the test part."""
    names = sorted({label for _, label, _ in rows})
    found: dict[str, list[tuple[float, float]]] = {head: [] for head in HEADS}
    for draw in range(draws):
        chosen = [(features[path], names.index(label), split) for path, label, split in draw_few(rows, shots, draw)]
        train, test = ([one for one in chosen if (one[2] == "test") == is_test] for is_test in (False, True))
        labels = np.eye(len(names), dtype="float32")[[label for _, label, _ in train]]
        task = Task([np.stack([one for one, _, _ in train])], labels, np.ones(len(train), "float32"), seed=draw)
        seen, truth = np.stack([one for one, _, _ in test]), np.array([label for _, label, _ in test])
        for head, fit in HEADS.items():
            logits = fit(task)(seen)
            losses = -log_softmax(logits, axis=1)[np.arange(len(truth)), truth]
            found[head].append((float((logits.argmax(axis=1) == truth).mean()), float(losses.mean())))
    return {head: np.array(values) for head, values in found.items()}


def table(measured: Mapping[str, np.ndarray]) -> list[str]:
    """The difference is to the first, draw by draw, with its standard error, in points."""
    lines = ["| head | accuracy | difference | log loss |", "|---|---:|---:|---:|"]
    first = measured[next(iter(HEADS))][:, 0]
    for head, values in measured.items():
        accuracy, gains = values[:, 0], 100 * (values[:, 0] - first)
        spread, error = accuracy.std(ddof=1), gains.std(ddof=1) / np.sqrt(len(gains))
        difference = f"{gains.mean():+.1f} ± {error:.1f}" if head != next(iter(HEADS)) else ""
        lines.append(f"| {head} | {accuracy.mean():.3f} ± {spread:.3f} | {difference} | {values[:, 1].mean():.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--draws", type=int, default=DRAWS)
    arguments = parser.parse_args()
    about = " ".join((__doc__ or "").split("\n\n")[2].split())
    print(f"# Heads on 1 to 10 images a class\n\n{about}\n\nMade by `python benchmarks/few_shots.py DATA`, "
          f"{datetime.date.today()}, {versions()}.")  # fmt: skip
    for name in SETS:
        features, rows = open_features(name, arguments.data)
        for shots in SHOTS:
            lines = table(measure(features, rows, shots, arguments.draws))
            print("\n".join(["", f"## {name}, {shots} a class", "", *lines]), flush=True)


if __name__ == "__main__":
    main()
