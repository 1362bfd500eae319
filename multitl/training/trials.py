"""Phase 2: ways to fine-tune are tried one after the other, each from the same start, and the best one is kept.

A trial is judged by its last weights, those at the end of the schedule: the best of many judgements on a few dozen
images would be the luckiest. It is compared with the best so far image by image, in the Brier score (Brier 1950):
proper like log loss, but bounded, so that one confident mistake among few images does not decide.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol

import keras
import numpy as np

from multitl.contracts import Goal, Step
from multitl.errors import RunError
from multitl.models.goals import GOALS
from multitl.recipes import Recipe
from multitl.system.messages import say
from multitl.system.progress import waiting
from multitl.training.calibration import divide_logits, fit_temperature
from multitl.training.checkpoints import (
    WON,
    Outcome,
    TrainingState,
    Trial,
    TriedHead,
    TriedOut,
    read_variables,
    write_variables,
)
from multitl.training.phases import (
    Batch,
    Draw,
    Phase,
    compile_step,
    mutable_variables,
    train_in_legs,
    train_steps,
    what_diverged,
)
from multitl.training.planning import OutOfTimeError, Pace, Stopwatch, Tempo, leg_of, next_trial

DIVERGED = (
    "Fine-tuning diverged at the learning rate {:g}, so what was best before it was kept: lower --learning-rate, or "
    "leave it out, and it is found."
)
NO_TIME = (
    "There was no time for fine-tuning: the budget of {} leaves {} steps. Give it more, such as --budget 20m; or train "
    "less: --unfreeze last."
)
MORE_TIME = "not tried, for want of time: {steps} steps at the learning rate {learning_rate:g}; --budget gives more"
TIMED_STEPS = 3  # of which the plan is made, after the one that compiles


@dataclass(frozen=True)
class Answers:
    """What a network says of the validation images, once its temperatures are found, of each head its own.

    scores: the Brier score of each image (n,).  heads: what each says, by its name, where there are several.
    """

    temperatures: tuple[float, ...]
    log_loss: float
    accuracy: float
    scores: np.ndarray
    heads: dict[str, TriedHead] = field(default_factory=dict)


class Examining(Protocol):
    """The validation images, and what the network says of them."""

    def __len__(self) -> int: ...

    def __call__(self) -> tuple[float, float]:
        """Log loss and accuracy of the network as it is now."""

    def calibrate(self) -> Answers:
        """Of the network as it was at the last call."""


class Examination:
    """Of one head. predict: () -> probabilities (n, classes)."""

    def __init__(self, predict: Callable[[], np.ndarray], truth: np.ndarray, goal: Goal = GOALS["one"]) -> None:
        """truth: of these images, as the goal has it."""
        self._predict, self._truth, self._goal = predict, truth, goal
        self._probabilities = np.empty(0)

    def __len__(self) -> int:
        return len(self._truth)

    def __call__(self) -> tuple[float, float]:
        self._probabilities = self._predict()
        return self._goal.log_loss_and_accuracy(self._truth, self._probabilities)

    def calibrate(self) -> Answers:
        goal, truth = self._goal, self._truth
        temperature = fit_temperature(goal, truth, self._probabilities)
        softened = goal.soften(self._probabilities, temperature)
        loss, accuracy = goal.log_loss_and_accuracy(truth, softened)
        targets = goal.targets_of(truth, softened.shape[1])
        return Answers((temperature,), loss, accuracy, brier_scores(targets, goal.as_targets(softened)))


class Ready(NamedTuple):
    """A race that can begin. fresh: the optimizer's variables."""

    step: Step
    tempo: Tempo
    fresh: list[np.ndarray]


@dataclass(frozen=True)
class Race:
    """phase: what all trials share; its rate, length and legs are each trial's own. Its model's weights are the start.

    logits: the layers that give them, one a head.  examination: the phase's `validate`.  publishing: seconds it takes
    to publish a trial, but for judging it.
    judged: images that it is then judged on, for each one of the examination.  save: is called after every leg.
    """

    phase: Phase
    logits: Sequence[keras.layers.Dense]
    examination: Examining
    recipe: Recipe
    stopwatch: Stopwatch
    publishing: float
    judged: float
    save: Callable[[TrainingState], None]

    def prepare(self, state: TrainingState) -> Ready:
        """Compile, and measure what there is time for, unless `state` knows it."""
        mutable = mutable_variables(self.phase.model)
        start = read_variables(mutable)
        step = compile_step(self.phase.model, self.recipe, self.phase.prepare, self.phase.loss, self.phase.peers)
        fresh = read_variables(self.phase.model.optimizer.variables)
        with waiting("timing   "):  # compiling may take minutes
            tempo = self._measure(step, state)
        write_variables(mutable, start)
        return Ready(step, tempo, fresh)

    def run(self, state: TrainingState, ready: Ready | None = None) -> Iterator[TriedOut]:
        """Trials until none is left, or no time; each is yielded that is the best so far. `state` says where to start.

        ready: what `prepare` gave, if it was called. The best weights are in the model whenever something is yielded,
        and in the end. Raises RunError if every trial diverged and there is no head.
        """
        step, tempo, fresh = ready or self.prepare(state)
        mutable, optimizer = mutable_variables(self.phase.model), self.phase.model.optimizer.variables
        start = read_variables(mutable)
        while trial := state.trial or self._next_trial(state):
            if not state.variables:
                write_variables(mutable, start)
                write_variables(optimizer, fresh)
            state.trial = trial
            tried = self._try_out(trial, step, state, tempo)
            state.tried, state.trial, state.step = [*state.tried, tried], None, 0
            state.variables, state.optimizer = [], []
            _settle(state, tempo)
            self._save(state)
            say(describe_trial(tried))
            if tried["outcome"] in WON:
                write_variables(mutable, state.best)
                yield tried
        if not state.tried:
            told = NO_TIME.format(self.recipe.budget, state.budget_steps)
            state.warnings += [told] if told not in state.warnings else []
        elif further := next_trial(self.recipe, self.phase.count, None, state.tried):
            say(MORE_TIME.format(**further))
        self._insist_on_a_model(state)
        state.finished = True
        if not state.tried:
            self._save(state)  # a file that is lost later is made again, and nothing is tried then
        write_variables(mutable, state.best or start)

    def _next_trial(self, state: TrainingState) -> Trial | None:
        if any(one["outcome"] == "out of time" for one in state.tried):
            return None
        return next_trial(self.recipe, self.phase.count, state.budget_steps, state.tried)

    def _try_out(self, trial: Trial, step: Step, state: TrainingState, tempo: Tempo) -> TriedOut:
        """Train, find the temperature, and compare. If it is better, `state.best` are its weights."""
        started = time.perf_counter()
        failure = self._train(trial, step, state, tempo)
        if failure:
            if failure == "diverged" and self.recipe.learning_rate:
                state.warnings.append(DIVERGED.format(self.recipe.learning_rate))
            return _describe(trial, failure, time.perf_counter() - started)
        answers = self.examination.calibrate()
        outcome, gain, noise = compare(answers.scores, state.scores, is_head=not state.kept)
        if outcome in WON:
            for layer, temperature in zip(self.logits, answers.temperatures, strict=True):
                divide_logits(layer, temperature)
            state.kept, state.scores = len(state.tried) + 1, [answers.scores]
            state.best = read_variables(mutable_variables(self.phase.model))
        return _describe(trial, outcome, time.perf_counter() - started, answers, gain, noise)

    def _train(self, trial: Trial, step: Step, state: TrainingState, tempo: Tempo) -> Outcome | None:
        """Whether something went wrong. Out of time, the weights of the last leg that has an end are examined."""
        leg = leg_of(trial["steps"], math.ceil(len(self.examination) / self.recipe.batch_size))
        phase = replace(self.phase, learning_rate=trial["learning_rate"], steps=trial["steps"], leg=leg,
                        batches=self._batches, choose=partial(_choose, tempo, trial))  # fmt: skip
        left_out = trial["left_out"]
        try:
            for row in train_in_legs(phase, step, self.recipe, state):
                if what_diverged(row, state.variables):
                    return "diverged"
                state.rows.append(row)
                left_out = trial["left_out"]
                if row["step"] < phase.steps:
                    self._save(state)
        except OutOfTimeError:
            if not state.step:
                return "out of time"
            trial["left_out"] = left_out + trial["steps"] - state.step
            write_variables(mutable_variables(self.phase.model), state.variables)
            self.examination()
        return None

    def _batches(self, draws: Sequence[Draw]) -> Iterator[Batch]:
        for batch in self.phase.batches(draws):
            self.stopwatch.check()
            yield batch

    def _save(self, state: TrainingState) -> None:
        state.seconds = self.stopwatch.spent()
        self.save(state)

    def _measure(self, step: Step, state: TrainingState) -> Tempo:
        """How fast things go, by some steps that leave no trace: each trial begins with the start's weights.

        Unless nothing hurries, `state.budget_steps` is what there is time for.
        """
        if state.budget_steps is not None or self.stopwatch.budget is None:
            return Tempo(self.stopwatch, None)
        phase = replace(self.phase, steps=1 + TIMED_STEPS, learning_rate=0.0, batches=self._batches)
        try:
            train_steps(phase, step, self.recipe, range(1))
            self.examination()
            look = self._timed(self.examination)
            seconds = self._timed(lambda: train_steps(phase, step, self.recipe, range(1, phase.steps))) / TIMED_STEPS
        except OutOfTimeError:
            state.budget_steps = 0
            return Tempo(self.stopwatch, None)
        tempo = Tempo(self.stopwatch, Pace(seconds, look, self.publishing + self.judged * look))
        state.budget_steps = int(tempo.affordable())
        return tempo

    def _timed(self, work: Callable[[], object]) -> float:
        started = self.stopwatch.now()
        work()
        return self.stopwatch.now() - started

    def _insist_on_a_model(self, state: TrainingState) -> None:
        if not state.kept and not state.head:
            rates = ", ".join(f"{one['learning_rate']:g}" for one in state.tried if one["outcome"] == "diverged")
            raise RunError(
                "Training diverged, and there is no head trained before that could be kept." if rates else
                "There is no time for fine-tuning, and no head was trained before.",
                expected="a trial that ends with finite numbers" if rates else "a budget for some steps",
                received=f"learning rates {rates}" if rates else f"budget = {self.recipe.budget}",
                fix="lower --learning-rate; or train the head first: --head-epochs 60" if rates else "--budget none",
            )  # fmt: skip


def brier_scores(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """For each image the squared distance of its probabilities (n, classes) from what is true: 0 to 2, or to classes
    where an image may have all of them. Of standardised numbers (n, 1) it is the squared error, which has no end.
    """
    return np.square(probabilities - targets.astype("float64")).sum(axis=1)


def compare(
    scores: np.ndarray, before: Sequence[np.ndarray], *, is_head: bool
) -> tuple[Outcome, float | None, float | None]:
    """Whether scores (n,) are better than those `before`, the mean gain and its standard error.

    The head on the frozen backbone, the simpler model, has to be beaten by more than noise. A trial that follows one
    which did that is of more steps, and taken unless it is worse by more than noise: a few dozen images cannot tell,
    and on 504 test images of deeppcb 80, 160 and 320 steps gave 0.93, 0.96 and 0.98.
    Anything is better than nothing before.
    """
    if not before:
        return "better", None, None
    gains = before[0] - scores
    gain, noise = float(gains.mean()), float(gains.std(ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else 0.0
    if gain < -noise:
        return "worse", gain, noise
    if gain > (noise if is_head else 0.0):
        return "better", gain, noise
    return ("within noise" if is_head else "no worse"), gain, noise


def _settle(state: TrainingState, tempo: Tempo) -> None:
    """How many steps there is time for after a trial, never more than before: whoever resumes ends this plan."""
    if state.budget_steps is not None:
        done = sum(one["steps"] for one in state.tried)
        state.budget_steps = int(min(state.budget_steps, done + tempo.affordable()))


def _choose(tempo: Tempo, trial: Trial, start: int, stop: int) -> Sequence[int]:
    """The steps of a leg that there is time for."""
    chosen = tempo.choose(start, stop, trial["steps"])
    trial["left_out"] += stop - start - len(chosen)
    return chosen


def _describe(
    trial: Trial, outcome: Outcome, seconds: float, answers: Answers | None = None, gain: float | None = None,
    noise: float | None = None,
) -> TriedOut:  # fmt: skip
    temperatures = answers.temperatures if answers else ()
    tried: TriedOut = {
        **trial,
        "outcome": outcome,
        "seconds": seconds,
        "temperature": temperatures[0] if len(temperatures) == 1 else None,
        "val_loss": answers.log_loss if answers else None,
        "val_accuracy": answers.accuracy if answers else None,
        "gain": gain,
        "noise": noise,
    }
    if answers and answers.heads:
        tried["heads"] = answers.heads
    return tried


def describe_trial(tried: TriedOut) -> str:
    """A line for the terminal."""
    how = f"tried: {tried['unfreeze']}, learning rate {tried['learning_rate']:g}, {tried['steps']} steps"
    if tried["left_out"]:
        how += f" ({tried['left_out']} of them left out, for want of time)"
    loss = tried["val_loss"]
    figures = "" if loss is None else f", validation loss {loss:.4f}, accuracy {tried['val_accuracy']:.3f}"
    return f"{how}{figures}: {tried['outcome']}"
