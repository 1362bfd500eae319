"""Phase 1: the best head on the frozen backbone, from stored features alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import keras
import numpy as np

from multitl.contracts import Dataset, Peers, Split
from multitl.distribution.peers import ALONE_PEERS
from multitl.models.goals import goal_of
from multitl.models.heads import build_head
from multitl.recipes import Recipe
from multitl.system.messages import say
from multitl.training.checkpoints import Row, TrainingState, read_variables, write_variables
from multitl.training.feature_rows import Rows, joined, some_of
from multitl.training.features import RunFeatures, head_logits, head_probabilities
from multitl.training.head_choice import CLEAR, SolvedHead, choose_head, draw_towards, solve_again
from multitl.training.phases import Batch, Draw, Phase, mutable_variables, run_phase, steps_per_epoch
from multitl.training.solved_head import UNSOLVED_L2, Task, fill_head, is_solved
from multitl.training.starts import Start
from multitl.training.targets import goal_for, scale_of, targets_of, truth_of


def make_head(
    features: RunFeatures, dataset: Dataset, recipe: Recipe, state: TrainingState,
    save: Callable[[TrainingState], None], start: Start | None = None, peers: Peers = ALONE_PEERS,
) -> tuple[keras.Model, Recipe, SolvedHead | None]:  # fmt: skip
    """The best head on the frozen backbone, the recipe with its penalty, and how it was solved where it was.

    start: the run that this one goes on from, whose head may be it.  peers: who have these features too,
    and fit the head together if they are many.
    """
    if not is_solved(recipe):
        recipe = replace(recipe, l2=recipe.l2 or UNSOLVED_L2)
        head = build_head(_sample(features, recipe), len(dataset.class_names), recipe, start.fixed if start else None)
        if start:
            start.fill(head, dataset.class_names, scale_of(dataset, recipe))
        _train(head, features, dataset, recipe, state, save)
        return head, recipe, None
    started = time.perf_counter()
    head, penalty, solved = _solve_or_keep(features, dataset, recipe, start, peers)
    if not state.rows:
        row = _head_row(head, features, dataset, recipe, time.perf_counter() - started)
        state.rows, state.best_loss, state.finished = [row], row["val_loss"], True
        state.best = read_variables(mutable_variables(head))
        save(state)
    return head, replace(recipe, l2=penalty), solved


def _solve_or_keep(
    features: RunFeatures, dataset: Dataset, recipe: Recipe, start: Start | None, peers: Peers
) -> tuple[keras.Model, float, SolvedHead | None]:
    """A head, the penalty that was chosen, and how it was solved, unless it is the earlier run's as it was."""
    solved = _solve(task_of(features.train, ("train",), dataset, recipe, peers), dataset, recipe, start)
    if verdict := solved.verdict("squared error" if recipe.labels == "number" else "log loss"):
        say(verdict)
    head = build_head(_sample(features, recipe), len(dataset.class_names), recipe, solved.fixed)
    fill_head(head, solved.solution)
    if start and start.stands(dataset) and not recipe.adapts_head:
        old = build_head(_sample(features, recipe), len(dataset.class_names), recipe, start.fixed)
        start.fill(old, dataset.class_names, scale_of(dataset, recipe))
        if start.is_same(dataset) or not _is_clearly_better(head, old, features, dataset, recipe):
            return old, solved.penalty, None
    return head, solved.penalty, solved


def _sample(features: RunFeatures, recipe: Recipe) -> np.ndarray:
    """Enough of the training features to say what size they are."""
    return some_of(features.train[0], recipe.seed)


def _solve(task: Task, dataset: Dataset, recipe: Recipe, start: Start | None) -> SolvedHead:
    """Anew, unless the rows of an earlier run say what these images do not."""
    is_wanted = start is not None and not start.is_all_here(dataset)
    known = start.known_head(dataset.class_names, scale_of(dataset, recipe)) if start and is_wanted else None
    return draw_towards(known, task, recipe) if known else choose_head(task, recipe)


def _is_clearly_better(
    head: keras.Model, old: keras.Model, features: RunFeatures, dataset: Dataset, recipe: Recipe
) -> bool:
    """On the validation images, which neither was fitted to, by log loss, more than luck, and not by confidence alone,
    as heads are compared."""
    targets, _ = targets_of(dataset, recipe, ("validation",))
    goal, values = goal_for(dataset, recipe), features.judged["validation"]
    losses, accuracy = goal.losses_and_accuracy(head_logits(head, values), targets)
    old_losses, old_accuracy = goal.losses_and_accuracy(head_logits(old, values), targets)
    gain = old_losses - losses
    return accuracy > old_accuracy and bool(gain.mean() > CLEAR * gain.std() / np.sqrt(len(gain)))


def refit_head(
    head: keras.Model, solved: SolvedHead, features: RunFeatures, dataset: Dataset, recipe: Recipe,
    peers: Peers = ALONE_PEERS,
) -> None:  # fmt: skip
    """Once everything is chosen, the images that it was chosen by are training images as well."""
    views = [joined([view, features.judged["validation"]]) for view in features.train]
    fill_head(head, solve_again(solved, task_of(views, ("train", "validation"), dataset, recipe, peers)))


def _train(
    head: keras.Model, features: RunFeatures, dataset: Dataset, recipe: Recipe, state: TrainingState,
    save: Callable[[TrainingState], None],
) -> None:  # fmt: skip
    """One without epochs stays as it is drawn."""
    if state.phase == "head" and recipe.head_epochs:
        run_phase(_head_phase(head, features, dataset, recipe), recipe, state, save)
    elif state.head:
        write_variables(mutable_variables(head), state.head)


def task_of(
    views: list[Rows], splits: Sequence[Split], dataset: Dataset, recipe: Recipe, peers: Peers = ALONE_PEERS
) -> Task:
    """Stored features of the images of some splits, one after the other."""
    labels, weights = targets_of(dataset, recipe, splits)
    return Task(views, labels, weights, recipe.label_smoothing, recipe.seed, goal_of(recipe), peers)


def _head_row(head: keras.Model, features: RunFeatures, dataset: Dataset, recipe: Recipe, seconds: float) -> Row:
    """The line of history.csv for a head that was solved."""
    goal = goal_for(dataset, recipe)

    def judge_split(split: Split, values: Rows) -> tuple[float, float]:
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
