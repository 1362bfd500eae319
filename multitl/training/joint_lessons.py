"""Several heads that learn together: targets of all side by side, and validation images that judge each on its own.

What decides between two networks is the sum of what each head gained, in units that are alike: a Brier score, or a
squared error, over that of whoever always answers the training images' mean. So it is 1 - R2 of a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import keras
import numpy as np

from multitl.contracts import Dataset, Example, Goal, Split
from multitl.models.joint import stack
from multitl.models.together import MOST_SPREAD, Together
from multitl.options import parse_loss
from multitl.recipes import Recipe
from multitl.training.checkpoints import Row, TrainingState, TriedHead
from multitl.training.features import RunFeatures
from multitl.training.head_choice import SolvedHead
from multitl.training.racing import Lesson
from multitl.training.targets import goal_for, targets_of, truth_of
from multitl.training.trials import Answers, Examination, brier_scores

LEAST_LOSS = 1e-3  # of which a log variance is made


@dataclass(frozen=True, eq=False)
class Part:
    """One of several heads, on the backbone as it was.

    dataset, recipe, features: of the images that have its target; `rows` are their places among those of all, by split.
    solved: how it was, if it was.  state: its training.  asked: the recipe before a penalty was chosen.
    """

    name: str
    dataset: Dataset
    asked: Recipe
    recipe: Recipe
    head: keras.Model
    solved: SolvedHead | None
    features: RunFeatures
    rows: dict[Split, np.ndarray]
    state: TrainingState

    @cached_property
    def goal(self) -> Goal:
        return goal_for(self.dataset, self.recipe)

    @property
    def size(self) -> int:
        return len(self.dataset.class_names)

    @property
    def log_variance(self) -> float:
        """At which the sum of losses would be least if the head's loss stayed as it is: see `SumOfLosses`.

        0 for a head that has learned nothing yet.
        """
        if not self.state.rows:
            return 0.0
        return float(np.clip(np.log(max(self.kept["loss"], LEAST_LOSS) * self._doubled), -MOST_SPREAD, MOST_SPREAD))

    @property
    def kept(self) -> Row:
        """The row of its best epoch, or of how it was solved."""
        return min(self.state.rows, key=lambda row: row["val_loss"])

    @property
    def _doubled(self) -> float:
        return 1.0 if self.recipe.labels == "number" else 2.0

    @property
    def spread(self) -> float:
        """The Brier score, or squared error, of always answering the mean of the training images."""
        targets, _ = targets_of(self.dataset, self.recipe)
        return float(targets.var(axis=0, dtype="float64").sum())

    def scores(self) -> np.ndarray:
        """Of each validation image, as it is on the backbone as it was."""
        aims, _ = targets_of(self.dataset, self.recipe, ("validation",))
        told = self.features.probabilities(self.head, self.goal)["validation"]
        return brier_scores(aims, self.goal.as_targets(told))


def together(parts: Sequence[Part]) -> Together:
    """The goals of all."""
    return Together(tuple(part.goal for part in parts), tuple(part.size for part in parts))


def joint_lesson(
    parts: Sequence[Part], recipe: Recipe, examples: Mapping[Split, Sequence[Example]], weights: Sequence[float] | None
) -> Lesson:
    """What all heads learn together. recipe, examples: of all.  weights: of losses; None: learned."""
    goals = together(parts)
    head = stack([part.head for part in parts], None if weights else [part.log_variance for part in parts])
    targets = joint_targets(parts, weights or [1.0] * len(parts), len(examples["train"]))
    loss = goals.loss(recipe.label_smoothing, parse_loss(recipe.loss), is_learned=not weights)
    count, logits = len(examples["validation"]), [part.head.get_layer("logits") for part in parts]
    return Lesson(
        head, logits, loss, examples["train"], targets, np.ones(len(targets), "float32"),
        lambda predict: JointExamination(predict, parts, goals, count),
        lambda: sum_scores(parts, [part.scores() for part in parts], count),
    )  # fmt: skip


def joint_targets(parts: Sequence[Part], weights: Sequence[float], count: int) -> np.ndarray:
    """(count, all + heads) as `SumOfLosses` takes them, of all training images. weights: of the losses.

    A head has the same weight in the mean whether few images have its target or all.
    """
    width = sum(part.size for part in parts)
    targets, start = np.zeros((count, width + len(parts)), "float32"), 0
    for place, (part, weight) in enumerate(zip(parts, weights, strict=True)):
        own, by_image = targets_of(part.dataset, part.recipe)
        rows = part.rows["train"]
        targets[rows, start : start + part.size] = own
        targets[rows, width + place] = weight * by_image * (count / len(rows))
        start += part.size
    return targets


def sum_scores(parts: Sequence[Part], scores: Sequence[np.ndarray], count: int) -> np.ndarray:
    """What decides, of each of all validation images (count,): its mean is the sum of each head's standardised mean."""
    total = np.zeros(count)
    for part, own in zip(parts, scores, strict=True):
        np.add.at(total, part.rows["validation"], own * count / (len(own) * part.spread))
    return total


class JointExamination:
    """See `trials.Examining`. predict: () -> what a joint head gives for all validation images (count, ...)."""

    def __init__(self, predict: Callable[[], np.ndarray], parts: Sequence[Part], goals: Together, count: int) -> None:
        self._predict, self._parts, self._goals, self._count = predict, parts, goals, count
        self._logits: list[np.ndarray] = []
        self._examinations = [
            Examination(partial(self._probabilities, place), self._truth(part), part.goal)
            for place, part in enumerate(parts)
        ]

    def __len__(self) -> int:
        return self._count

    def __call__(self) -> tuple[float, float]:
        """The sum of log losses, the mean of accuracies."""
        self._logits = self._goals.parts(self._predict())
        told = np.array([examination() for examination in self._examinations])
        return float(told[:, 0].sum()), float(told[:, 1].mean())

    def calibrate(self) -> Answers:
        answers = [examination.calibrate() for examination in self._examinations]
        heads = {
            part.name: TriedHead(temperature=one.temperatures[0], val_loss=one.log_loss, val_accuracy=one.accuracy)
            for part, one in zip(self._parts, answers, strict=True)
        }
        return Answers(
            tuple(one.temperatures[0] for one in answers),
            sum(one.log_loss for one in answers),
            sum(one.accuracy for one in answers) / len(answers),
            sum_scores(self._parts, [one.scores for one in answers], self._count),
            heads,
        )

    def _probabilities(self, place: int) -> np.ndarray:
        part = self._parts[place]
        return part.goal.activate(self._logits[place][part.rows["validation"]])

    @staticmethod
    def _truth(part: Part) -> np.ndarray:
        return truth_of(part.dataset, part.recipe, "validation")
