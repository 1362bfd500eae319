"""The loop that every backend runs: steps in legs, each of them judged and followed by a checkpoint.

The same loop trains a head on stored features and a whole network on pixels; `Phase` says what differs.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from multitl.adapters import load_backend
from multitl.contracts import Loss, Peers, Step
from multitl.distribution.peers import ALONE_PEERS
from multitl.errors import RunError
from multitl.models.freezing import frozen_variables
from multitl.models.goals import goal_of
from multitl.models.insides import seeds_of
from multitl.models.objective import count_parts
from multitl.models.statistics import UnbiasedVariance
from multitl.options import parse_loss
from multitl.recipes import Recipe
from multitl.system import interrupts
from multitl.system.progress import progress_bar
from multitl.training.checkpoints import PhaseName, Row, TrainingState, read_variables, write_variables

APART = 100_003  # between the seeds of two processes, which stay below 2^31
# inputs (n, ...), labels of 0 and 1 (n, classes), weights (n,)
Batch = tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]


class Draw(NamedTuple):
    """The images of one step, and which epoch it is of: from these all that is random is drawn."""

    epoch: int
    indices: np.ndarray


def as_given(inputs: Any) -> Any:
    """How a model's input is made of a batch's only one."""
    return inputs


@dataclass(frozen=True)
class Phase:
    """model: inputs -> logits.  count: training images.  steps: in all.  leg: steps between two judgements.

    batches(draws): the training batches of some steps.  prepare: makes the model's input of theirs, in the compiled
    step.  validate(): (log loss, accuracy) on the validation split.
    loss: where it is not the recipe's goal's.
    choose(start, stop): which steps of a leg are done; the rate falls as if all were.
    unbiased_variance: batch normalisation keeps its statistics as PyTorch does, for weights that come from there.
    peers: who have the other images of each batch.
    """

    name: PhaseName
    model: keras.Model
    count: int
    steps: int
    leg: int
    learning_rate: float
    batches: Callable[[Sequence[Draw]], Iterator[Batch]]
    validate: Callable[[], tuple[float, float]]
    unbiased_variance: bool = False
    prepare: Callable[..., Any] = as_given
    loss: Loss | None = None
    choose: Callable[[int, int], Sequence[int]] = range
    peers: Peers = ALONE_PEERS


def run_phase(phase: Phase, recipe: Recipe, state: TrainingState, save: Callable[[TrainingState], None]) -> None:
    """Train until the last step or early stopping, then put the best weights back. `state` says where to start.

    `save` is called after every leg. Raises RunError where figures or weights are no longer numbers.
    """
    if not state.finished:
        step = compile_step(phase.model, recipe, phase.prepare, phase.loss, phase.peers)
        for row in train_in_legs(phase, step, recipe, state):
            if trouble := what_diverged(row, state.variables):
                raise RunError(
                    f"Training diverged: {trouble} after {row['step']} steps.",
                    expected="finite numbers",
                    received=f"learning rate {phase.learning_rate:g} in phase {phase.name}",
                    fix=f"lower --{'head-' * (phase.name == 'head')}learning-rate",
                )
            _judge_leg(row, phase, recipe, state)
            save(state)
    write_variables(mutable_variables(phase.model), state.best)


def train_in_legs(phase: Phase, step: Step, recipe: Recipe, state: TrainingState) -> Iterator[Row]:
    """Take the compiled model up where `state` left it, or begin with its weights as they are; a row after every leg.

    `state.step`, `state.variables` and `state.optimizer` are then those at the end of the leg. Whoever does not want
    more sets `state.finished`, or stops asking.
    """
    mutable, optimizer = mutable_variables(phase.model), phase.model.optimizer.variables
    if state.variables:
        write_variables(mutable, state.variables)
        write_variables(optimizer, state.optimizer)
    with progress_bar() as bar:
        task = bar.add_task(f"{phase.name:<9}", total=phase.steps, completed=state.step, note="")
        while state.step < phase.steps and not state.finished:
            row = _run_leg(phase, step, recipe, state, lambda: bar.advance(task))
            bar.update(
                task, completed=row["step"], note=f"loss {row['loss']:.4f}  val accuracy {row['val_accuracy']:.3f}"
            )
            state.step, state.variables = row["step"], read_variables(mutable)
            state.optimizer = read_variables(optimizer)
            yield row


def epoch_order(count: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Index arrays of one epoch: a shuffle that depends on seed and epoch only.

    The last batch is filled up from the front, so that compilers see one shape and every image comes at least once.
    """
    order = np.random.default_rng([seed, epoch]).permutation(count)
    size = min(batch_size, count)
    return list(np.resize(order, (steps_per_epoch(count, batch_size), size)))


def steps_per_epoch(count: int, batch_size: int) -> int:
    """How many batches it takes to see every image."""
    return math.ceil(count / min(batch_size, count))


def draws(count: int, batch_size: int, seed: int, numbers: Sequence[int]) -> Iterator[Draw]:
    """Those of some steps, counted from 0, of epochs without end, of which the first is number 1."""
    length = steps_per_epoch(count, batch_size)
    for epoch, steps in itertools.groupby(numbers, key=lambda step: step // length + 1):
        order = epoch_order(count, batch_size, seed, epoch)
        yield from (Draw(epoch, order[step % length]) for step in steps)


def compile_step(
    model: keras.Model, recipe: Recipe, prepare: Callable[..., Any] = as_given, loss: Loss | None = None,
    peers: Peers = ALONE_PEERS,
) -> Step:  # fmt: skip
    """Loss on logits, unless it is given, and optimizer as the recipe says. The optimizer's variables exist afterwards.

    The rate is a number that each step is told: another rate is no other program.
    """
    compile_model(model, recipe, loss=loss)
    return load_backend().make_step(model, prepare, recipe.accumulate, peers)


def compile_model(model: keras.Model, recipe: Recipe, learning_rate: float = 0.0, loss: Loss | None = None) -> None:
    """Loss and optimizer alone."""
    loss = loss or goal_of(recipe).loss(recipe.label_smoothing, parse_loss(recipe.loss))
    model.compile(_optimizer(recipe, learning_rate), loss)
    model.optimizer.build(model.trainable_variables)


def learning_rate_at(step: int, steps: int, peak: float, recipe: Recipe) -> float:
    """Of one of `steps` steps, counted from 0: up to the peak in a line, then down to zero by a cosine
    (arXiv:1608.03983); or a constant."""
    if recipe.schedule == "constant":
        return peak
    warmup = round(recipe.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def mutable_variables(model: keras.Model) -> list[keras.Variable]:
    """What training may change: everything but frozen weights and statistics."""
    frozen = {id(variable) for variable in frozen_variables(model)}
    return [variable for variable in model.variables if id(variable) not in frozen]


def train_steps(
    phase: Phase, step: Step, recipe: Recipe, numbers: Sequence[int], advance: Callable[[], None] = lambda: None
) -> tuple[float, float, float]:
    """Mean loss and accuracy of some steps of the phase, counted from 0, and the last one's learning rate."""
    size = min(recipe.batch_size, phase.count)
    parts = count_parts(size, recipe.accumulate)
    variance = UnbiasedVariance(phase.model, size // parts) if phase.unbiased_variance else None
    drawn = list(draws(phase.count, recipe.batch_size, recipe.seed, numbers))
    told = []
    with _own_draws(phase.model, phase.peers.rank), step:
        for number, batch in zip(numbers, phase.batches(drawn), strict=True):
            rate = learning_rate_at(number, phase.steps, phase.learning_rate, recipe)
            with interrupts.held_back():
                told.append(step(*batch, learning_rate=rate))
            advance()
    if variance:
        variance.correct(steps=len(told) * parts)
    with interrupts.held_back():  # the device may still be at work
        rows = [keras.ops.convert_to_numpy(figures) for figures in told]
    loss, accuracy = np.mean(rows, axis=0, dtype="float64")
    return float(loss), float(accuracy), rate


@contextmanager
def _own_draws(model: keras.Model, rank: int) -> Iterator[None]:
    """Meanwhile dropout draws by the process, lest all leave out the same; between steps the state is one for all."""
    seeds = seeds_of(model) if rank else []
    for seed in seeds:
        _shift(seed, rank)
    try:
        yield
    finally:
        for seed in seeds:
            _shift(seed, -rank)


def _shift(seed: keras.Variable, by: int) -> None:
    (state,) = read_variables([seed])
    state[0] = int(state[0]) + by * APART  # under JAX it is unsigned, and takes nothing negative
    seed.assign(state)


def what_diverged(row: Row, weights: list[np.ndarray]) -> str:
    """In words, or empty: what was kept after a leg is always finite."""
    if not math.isfinite(row["loss"]):
        return f"the loss is {row['loss']}"
    if not math.isfinite(row["val_loss"]):
        return f"the validation loss is {row['val_loss']}"
    return "" if all(np.isfinite(weight).all() for weight in weights) else "not all weights are finite"


def _run_leg(phase: Phase, step: Step, recipe: Recipe, state: TrainingState, advance: Callable[[], None]) -> Row:
    started, stop = time.perf_counter(), min(state.step + phase.leg, phase.steps)
    loss, accuracy, rate = train_steps(phase, step, recipe, phase.choose(state.step, stop), advance)
    with np.errstate(over="ignore", invalid="ignore"):  # of a network that diverged
        val_loss, val_accuracy = phase.validate()
    return {
        "phase": phase.name,
        "trial": len(state.tried) + 1 if phase.name == "finetune" else 0,
        "step": stop,
        "loss": loss,
        "accuracy": accuracy,
        "val_loss": val_loss,
        "val_accuracy": val_accuracy,
        "learning_rate": rate,
        "seconds": time.perf_counter() - started,
    }


def _judge_leg(row: Row, phase: Phase, recipe: Recipe, state: TrainingState) -> None:
    """Keep the weights if they are the best so far; decide whether this was the last leg."""
    state.rows.append(row)
    state.waited += 1
    if state.best_loss is None or row["val_loss"] < state.best_loss:
        state.best_loss, state.waited, state.best = row["val_loss"], 0, state.variables
    state.finished = state.step >= phase.steps or 0 < recipe.patience <= state.waited
    if state.finished:
        state.variables, state.optimizer = [], []


def _optimizer(recipe: Recipe, learning_rate: float) -> keras.optimizers.Optimizer:
    if recipe.optimizer == "adamw":
        return keras.optimizers.AdamW(learning_rate, weight_decay=recipe.weight_decay)
    if recipe.optimizer == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=0.9)
    return keras.optimizers.Adam(learning_rate)
