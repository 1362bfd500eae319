"""What an earlier run was judged on, to see what is left of what it had learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from multitl.contracts import Backend, Dataset, Example, Goal, Peers, Pretrained, Split
from multitl.data.pixels import PixelReader
from multitl.distribution.peers import ALONE_PEERS
from multitl.judging.predictions import read_predictions
from multitl.models.goals import GOALS
from multitl.recipes import Recipe
from multitl.runs.images import content_of
from multitl.system.hashes import file_sha256
from multitl.training.feature_rows import Rows
from multitl.training.features import compute_plain_features, head_probabilities
from multitl.training.starts import Start
from multitl.training.targets import goal_for


@dataclass(frozen=True, eq=False)
class Remembered:
    """Images that the earlier run was judged on and that are still to be found, by the classes of now.

    truth: see `Goal`; of labels those that both runs know, which are `columns` of what is said now.
    before: what the goal calls its accuracy, then.  gone, dropped, trained: how many others there are, see `OldTest`
    in cards.py.
    """

    split: Split
    examples: tuple[Example, ...]
    goal: Goal
    truth: np.ndarray
    columns: list[int]
    before: float
    gone: int
    dropped: int
    trained: int

    def about(self, probabilities: np.ndarray) -> dict[str, Any]:
        """For the card. probabilities: what is said of them now, (n, classes)."""
        _, after = self.goal.log_loss_and_accuracy(self.truth, probabilities[:, self.columns])
        return {
            "split": self.split,
            "images": len(self.examples),
            "before": self.before,
            "after": after,
            "gone": self.gone,
            "dropped": self.dropped,
            "trained": self.trained,
        }


def remember(start: Start, dataset: Dataset) -> Remembered | None:
    """The test images of a run, its validation images if it had none; None where none can be judged on.

    Found by content among the images of now, wherever they lie, or else where they lay, if they are as they were.
    """
    predictions, labels = read_predictions(start.folder / "predictions.csv"), start.card.recipe.labels
    split: Split = "test" if "test" in predictions.splits else "validation"
    old, names = predictions.of(split), dataset.class_names
    contents = [one.content for one in start.images or () if one.split == split]
    contents = contents if len(contents) == len(old.paths) else [""] * len(old.paths)  # of an older version
    here = {content_of(one.sha256): one for one in dataset.examples}
    counts = dict.fromkeys(("gone", "dropped", "trained"), 0)
    found: dict[int, Example] = {}
    for row, (path, content) in enumerate(zip(old.paths, contents, strict=True)):
        if labels == "one" and old.class_names[old.labels[row]] not in names:
            counts["dropped"] += 1
        elif not (example := here.get(content) or _at(path, content)):
            counts["gone"] += 1
        elif (now := here.get(content_of(example.sha256))) and now.split == "train":
            counts["trained"] += 1
        else:
            found[row] = replace(example, split="test")
    rows, columns, truth = list(found), list(range(len(old.class_names))), old.labels[list(found)]
    if labels == "several":
        columns = [place for place, name in enumerate(old.class_names) if name in names]
        truth = truth[:, columns]
    if not truth.size:
        return None
    goal = GOALS[labels]
    _, before = goal.log_loss_and_accuracy(truth, old.probabilities[rows][:, columns])
    places = [names.index(old.class_names[column]) for column in columns if old.class_names[column] in names]
    if labels == "one":
        truth, places = np.array([names.index(old.class_names[label]) for label in truth]), list(range(len(names)))
    return Remembered(split, tuple(found.values()), goal, truth, places, before, **counts)


def _at(path: str, content: str) -> Example | None:
    """The image where it lay, if it is still that one. content: "" where that is not known."""
    try:
        sha256 = file_sha256(path)
    except (OSError, ValueError):
        return None
    return Example(path, 0, "test", sha256) if content in ("", content_of(sha256)) else None


@dataclass(frozen=True, eq=False)
class Memory:
    """Its images, to be read again, and their features (n, channels) by the backbone before it is trained further."""

    remembered: Remembered
    reader: PixelReader
    features: Rows
    goal: Goal

    @classmethod
    def of(
        cls, start: Start, dataset: Dataset, pretrained: Pretrained, recipe: Recipe, backend: Backend, sha256: str,
        peers: Peers = ALONE_PEERS,
    ) -> Memory | None:  # fmt: skip
        """None where no such image is left. sha256: of the backbone's weights."""
        remembered = remember(start, dataset)
        if not remembered:
            return None
        reader = PixelReader(remembered.examples, pretrained.preprocess)
        features = compute_plain_features(remembered.examples, reader, pretrained, recipe, backend, sha256, peers)
        return cls(remembered, reader, features, goal_for(dataset, recipe))

    def judge_head(self, head: keras.Model) -> dict[str, Any]:
        """For the card, of a head on the backbone as it was."""
        return self.remembered.about(head_probabilities(head, self.features, self.goal))

    def judge_network(self, predict: Callable[[PixelReader], np.ndarray]) -> dict[str, Any]:
        """For the card. predict: gives the probabilities (n, classes) of the images of a reader."""
        return self.remembered.about(predict(self.reader))
