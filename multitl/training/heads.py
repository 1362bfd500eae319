"""Phase 1: the best head on the frozen backbone, from stored features alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import keras
import numpy as np

from multitl.contracts import Dataset, Split
from multitl.models.goals import goal_of
from multitl.models.heads import build_head
from multitl.recipes import Recipe
from multitl.system.messages import say
from multitl.training.checkpoints import Row, TrainingState, read_variables, write_variables
from multitl.training.features import RunFeatures, head_probabilities
from multitl.training.head_choice import SolvedHead, choose_head, solve_again
from multitl.training.phases import Batch, Draw, Phase, mutable_variables, run_phase, steps_per_epoch
from multitl.training.solved_head import UNSOLVED_L2, Task, fill_head, is_solved
from multitl.training.targets import goal_for, targets_of, truth_of


def make_head(
    features: RunFeatures, dataset: Dataset, recipe: Recipe, state: TrainingState, save: Callable[[TrainingState], None]
) -> tuple[keras.Model, Recipe, SolvedHead | None]:
    """The best head on the frozen backbone, the recipe with its penalty, and how it was solved where it was."""
    if not is_solved(recipe):
        recipe = replace(recipe, l2=recipe.l2 or UNSOLVED_L2)
        head = build_head(features.train[0], len(dataset.class_names), recipe)
        _train(head, features, dataset, recipe, state, save)
        return head, recipe, None
    started = time.perf_counter()
    solved = choose_head(task_of(features.train, ("train",), dataset, recipe), recipe)
    if verdict := solved.verdict("squared error" if recipe.labels == "number" else "log loss"):
        say(verdict)
    head = build_head(features.train[0], len(dataset.class_names), recipe, solved.fixed)
    fill_head(head, solved.solution)
    if not state.rows:
        row = _head_row(head, features, dataset, recipe, time.perf_counter() - started)
        state.rows, state.best_loss, state.finished = [row], row["val_loss"], True
        state.best = read_variables(mutable_variables(head))
        save(state)
    return head, replace(recipe, l2=solved.penalty), solved


def refit_head(head: keras.Model, solved: SolvedHead, features: RunFeatures, dataset: Dataset, recipe: Recipe) -> None:
    """Once everything is chosen, the images that it was chosen by are training images as well."""
    views = [np.concatenate([view, features.judged["validation"]]) for view in features.train]
    fill_head(head, solve_again(solved, task_of(views, ("train", "validation"), dataset, recipe)))


def _train(
    head: keras.Model, features: RunFeatures, dataset: Dataset, recipe: Recipe, state: TrainingState,
    save: Callable[[TrainingState], None],
) -> None:  # fmt: skip
    """One without epochs stays as it is drawn."""
    if state.phase == "head" and recipe.head_epochs:
        run_phase(_head_phase(head, features, dataset, recipe), recipe, state, save)
    elif state.head:
        write_variables(mutable_variables(head), state.head)


def task_of(views: list[np.ndarray], splits: Sequence[Split], dataset: Dataset, recipe: Recipe) -> Task:
    """Stored features of the images of some splits, one after the other."""
    labels, weights = targets_of(dataset, recipe, splits)
    return Task(views, labels, weights, recipe.label_smoothing, recipe.seed, goal_of(recipe))


def _head_row(head: keras.Model, features: RunFeatures, dataset: Dataset, recipe: Recipe, seconds: float) -> Row:
    """The line of history.csv for a head that was solved."""
    goal = goal_for(dataset, recipe)

    def judge_split(split: Split, values: np.ndarray) -> tuple[float, float]:
        return goal.log_loss_and_accuracy(truth_of(dataset, recipe, split), head_probabilities(head, values, goal))

    loss, accuracy = judge_split("train", features.train[0])
    val_loss, val_accuracy = judge_split("validation", features.judged["validation"])
    return Row(
        phase="head", trial=0, step=0, loss=loss, accuracy=accuracy, val_loss=val_loss, val_accuracy=val_accuracy,
        learning_rate=0.0, seconds=seconds,
    )  # fmt: skip


def _head_phase(head: keras.Model, features: RunFeatures, dataset: Dataset, recipe: Recipe) -> Phase:
    labels, weights = targets_of(dataset, recipe)
    goal, truth = goal_for(dataset, recipe), truth_of(dataset, recipe, "validation")

    def batches(draws: Sequence[Draw]) -> Iterator[Batch]:
        for draw in draws:
            view = features.train[(draw.epoch - 1) % len(features.train)]
            yield (view[draw.indices],), labels[draw.indices], weights[draw.indices]

    def validate() -> tuple[float, float]:
        return goal.log_loss_and_accuracy(truth, head_probabilities(head, features.judged["validation"], goal))

    epoch, rate = steps_per_epoch(len(labels), recipe.batch_size), recipe.head_learning_rate
    return Phase("head", head, len(labels), recipe.head_epochs * epoch, epoch, rate, batches, validate)
