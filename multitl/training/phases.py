"""One training phase: the loop that every backend runs, epoch by epoch, with a checkpoint after each.

The same loop trains a head on stored features and a whole network on pixels; `Phase` says what differs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np

from multitl.errors import RunError
from multitl.models.freezing import frozen_variables
from multitl.models.statistics import UnbiasedVariance
from multitl.recipes import Recipe
from multitl.system import interrupts
from multitl.system.progress import progress_bar
from multitl.training.checkpoints import PhaseName, Row, TrainingState, read_variables, write_variables

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]  # inputs, one-hot labels (n, classes), weights (n,)


@dataclass(frozen=True)
class Phase:
    """model: inputs -> logits, not yet compiled.  batches(order): the training batches in the given order of indices.

    validate(): probabilities -> (log loss, accuracy) on the validation split.  count: training images.
    unbiased_variance: batch normalisation keeps its statistics as PyTorch does, for weights that come from there.
    """

    name: PhaseName
    model: keras.Model
    count: int
    epochs: int
    learning_rate: float
    batches: Callable[[list[np.ndarray], int], Iterator[Batch]]
    validate: Callable[[], tuple[float, float]]
    unbiased_variance: bool = False


def run_phase(phase: Phase, recipe: Recipe, state: TrainingState, save: Callable[[TrainingState], None]) -> None:
    """Train until the last epoch or early stopping, then put the best weights back. `state` says where to start.

    `save` is called after every epoch. Fine-tuning that diverges (figures or weights are no longer numbers) ends there,
    with a warning in the state, if there are weights to keep. Raises RunError if there are none.
    """
    mutable = mutable_variables(phase.model)
    if state.phase != phase.name or not state.finished:
        _train(phase, recipe, state, save, mutable)
    write_variables(mutable, state.best)


def _train(
    phase: Phase, recipe: Recipe, state: TrainingState, save: Callable[[TrainingState], None],
    mutable: list[keras.Variable],
) -> None:  # fmt: skip
    steps = len(epoch_order(phase.count, recipe.batch_size, 0, 0))
    compile_model(phase.model, recipe, phase.learning_rate, steps * phase.epochs)
    _enter(phase, state, mutable)
    with progress_bar() as bar:
        task = bar.add_task(
            f"{phase.name:<9}", total=phase.epochs * steps, completed=state.phase_epoch * steps, note=""
        )
        while state.phase_epoch < phase.epochs and not state.finished:
            row = _run_epoch(phase, recipe, state, lambda: bar.advance(task))
            bar.update(task, note=f"loss {row['loss']:.4f}  val accuracy {row['val_accuracy']:.3f}")
            state.variables, state.optimizer = read_variables(mutable), read_variables(phase.model.optimizer.variables)
            if trouble := _what_diverged(row, state.variables):
                _end_diverged(phase, state, row["epoch"], trouble)
            else:
                _judge_epoch(row, phase, recipe, state)
            if state.finished:
                state.variables, state.optimizer = [], []
            save(state)


def epoch_order(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Index arrays of one epoch: a shuffle that depends on seed and epoch only.

    The last batch is filled up from the front, so that compilers see one shape and every image comes at least once.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count)
    size = min(batch_size, count)
    return list(np.resize(order, (math.ceil(count / size), size)))


def compile_model(model: keras.Model, recipe: Recipe, learning_rate: float, steps: int) -> None:
    """Loss on logits, optimizer and schedule as the recipe says. The optimizer's variables exist afterwards."""
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)
    model.compile(_optimizer(recipe, _schedule(recipe, learning_rate, steps)), loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)


def mutable_variables(model: keras.Model) -> list[keras.Variable]:
    """What training may change: everything but frozen weights and statistics."""
    frozen = {id(variable) for variable in frozen_variables(model)}
    return [variable for variable in model.variables if id(variable) not in frozen]


def _enter(phase: Phase, state: TrainingState, mutable: list[keras.Variable]) -> None:
    """Take up the phase where the state left it, or begin it with the weights as they are."""
    if state.phase == phase.name and state.variables:
        write_variables(mutable, state.variables)
        write_variables(phase.model.optimizer.variables, state.optimizer)
        return
    if state.phase != phase.name:
        state.phase, state.phase_epoch, state.finished, state.waited = phase.name, 0, False, 0
    state.best = read_variables(mutable)  # a second phase has to beat the first


def _run_epoch(phase: Phase, recipe: Recipe, state: TrainingState, step: Callable[[], None]) -> Row:
    started, epoch = time.perf_counter(), len(state.rows) + 1
    order = epoch_order(phase.count, recipe.batch_size, recipe.seed, epoch)
    variance = UnbiasedVariance(phase.model, len(order[0])) if phase.unbiased_variance else None
    logs = []  # of single batches: train_on_batch starts its metrics anew each time
    for inputs, labels, weights in phase.batches(order, epoch):
        with interrupts.held_back():
            logs.append(phase.model.train_on_batch(inputs, labels, sample_weight=weights, return_dict=True))
        step()
    if variance:
        variance.correct(steps=len(logs))
    loss, accuracy = (float(np.mean([log[name] for log in logs])) for name in ("loss", "accuracy"))
    with np.errstate(over="ignore", invalid="ignore"):  # of a network that diverged
        val_loss, val_accuracy = phase.validate()
    return {
        "phase": phase.name,
        "epoch": epoch,
        "loss": loss,
        "accuracy": accuracy,
        "val_loss": val_loss,
        "val_accuracy": val_accuracy,
        "learning_rate": float(keras.ops.convert_to_numpy(phase.model.optimizer.learning_rate)),
        "seconds": time.perf_counter() - started,
    }


def _what_diverged(row: Row, weights: list[np.ndarray]) -> str:
    """In words, or empty: what was kept after an epoch is always finite."""
    if not math.isfinite(row["loss"]):
        return f"the loss is {row['loss']}"
    if not math.isfinite(row["val_loss"]):
        return f"the validation loss is {row['val_loss']}"
    return "" if all(np.isfinite(weight).all() for weight in weights) else "not all weights are finite"


def _end_diverged(phase: Phase, state: TrainingState, epoch: int, trouble: str) -> None:
    """The best weights so far stand, if a phase before this one made some."""
    option = "--head-learning-rate" if phase.name == "head" else "--learning-rate"
    if phase.name == "head" or not state.rows:
        raise RunError(
            f"Training diverged: {trouble} in epoch {epoch}.",
            expected="finite numbers",
            received=f"learning rate {phase.learning_rate:g} in phase {phase.name}",
            fix=f"lower {option}",
        )
    warning = f"Fine-tuning diverged in epoch {epoch} ({trouble}), so the best weights before that were kept: "
    state.warnings.append(warning + f"lower {option}, which was {phase.learning_rate:g}.")
    state.finished = True


def _judge_epoch(row: Row, phase: Phase, recipe: Recipe, state: TrainingState) -> None:
    """Keep the weights if they are the best so far; decide whether this was the last epoch."""
    state.rows.append(row)
    state.phase_epoch += 1
    state.waited += 1
    if state.best_loss is None or row["val_loss"] < state.best_loss:
        state.best_loss, state.waited, state.best = row["val_loss"], 0, state.variables
    state.finished = state.phase_epoch >= phase.epochs or 0 < recipe.patience <= state.waited


def _optimizer(recipe: Recipe, learning_rate) -> keras.optimizers.Optimizer:
    if recipe.optimizer == "adamw":
        return keras.optimizers.AdamW(learning_rate, weight_decay=recipe.weight_decay)
    if recipe.optimizer == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=0.9)
    return keras.optimizers.Adam(learning_rate)


def _schedule(recipe: Recipe, peak: float, steps: int):
    """Linear warm-up from zero, then cosine to zero (arXiv:1608.03983), over `steps`; or a constant."""
    if recipe.schedule == "constant":
        return peak
    warmup = round(recipe.warmup * steps)
    if not warmup:
        return keras.optimizers.schedules.CosineDecay(peak, max(1, steps))
    return keras.optimizers.schedules.CosineDecay(0.0, max(1, steps - warmup), warmup_target=peak, warmup_steps=warmup)
