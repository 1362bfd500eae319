"""Fine-tuning, whatever is learned: what it starts from, how its steps get their images, and who publishes what wins.

A run of one class an image, of labels or a number, and one of several heads on one backbone go through here alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

import keras
import numpy as np

from multitl.adapters import TRANSLATORS
from multitl.contracts import Example, Loss, Peers, Pretrained, Split
from multitl.data.augmentation import application, changes_of, draw, image_number
from multitl.data.pixels import PixelReader
from multitl.models.folding import held_norms_folded
from multitl.models.freezing import FreezePolicy, apply_policy, heavy_stages
from multitl.models.heads import build_extractor
from multitl.models.inference import compile_forward, predict_pixels
from multitl.recipes import Recipe
from multitl.system.progress import waiting
from multitl.training.checkpoints import TrainingState
from multitl.training.features import JUDGED
from multitl.training.phases import Batch, Draw, Phase
from multitl.training.planning import Stopwatch, is_too_short
from multitl.training.sessions import Clock
from multitl.training.trials import Examining, Race


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a network is trained to say.

    head: pooled features (n, channels) -> what the loss takes, (n, ...).  logits: the layers that give logits, one a
    head.  loss: None for that of the recipe's goal.  targets, weights: of the training images `examples`.
    examine: makes the examination of what gives the head's outputs for the validation images.  scores: gives what the
    head on the frozen backbone reaches there, as `Answers.scores`.
    """

    head: keras.Model
    logits: Sequence[keras.layers.Dense]
    loss: Loss | None
    examples: Sequence[Example]
    targets: np.ndarray
    weights: np.ndarray
    examine: Callable[[Callable[[], np.ndarray]], Examining]
    scores: Callable[[], np.ndarray]


class Contender(Protocol):
    """A run that can be fine-tuned, and makes its folder complete."""

    @property
    def pretrained(self) -> Pretrained: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def readers(self) -> Mapping[Split, PixelReader]: ...

    @property
    def lesson(self) -> Lesson: ...

    @property
    def looked_at(self) -> int:
        """Images that pass through the network besides those that are judged, each time a trial is published."""

    @property
    def peers(self) -> Peers:
        """Who train it together; each calls the same."""

    def published(self) -> int | None:
        """The trial whose files the folder holds, 0 for the head; None if it does not hold all that it should."""

    def publish_head(self, state: TrainingState) -> None: ...

    def publish_trial(self, trained: int, state: TrainingState) -> None:
        """trained: parameters of the backbone that were."""


def race(
    contender: Contender, policy: FreezePolicy, state: TrainingState, save: Callable[[TrainingState], None],
    stopwatch: Stopwatch, clock: Clock,
) -> None:  # fmt: skip
    """Try ways to fine-tune; whatever is the best so far is published at once."""
    if state.phase == "head":
        _leave_head(state, contender.lesson)
    pretrained, peers, planned = contender.pretrained, contender.peers, state.budget_steps
    seconds = peers.first(lambda: clock.get("evaluation", 0.0))
    with ExitStack() as folded:
        for unfreeze in _depths(pretrained, policy, state):
            folded.close()
            layers = apply_policy(replace(policy, unfreeze=unfreeze), pretrained.backbone, pretrained.stages)
            folded.enter_context(held_norms_folded(pretrained.backbone))
            state.budget_steps = planned
            with clock("finetune"):
                one = _make_race(contender, replace(contender.recipe, unfreeze=unfreeze), save, stopwatch, seconds)
                ready = one.prepare(state)
            if not is_too_short(one.recipe, one.phase.count, state.budget_steps):
                break
        trials, trained = one.run(state, ready), sum(layer.count_params() for layer in layers)
        while True:
            with clock("finetune"):
                tried = next(trials, None)
            with clock("evaluation"), waiting("judging  "):
                if tried or peers.first(contender.published) != state.kept:
                    contender.publish_trial(trained, state) if state.kept else contender.publish_head(state)
            if not tried:
                return


def _depths(pretrained: Pretrained, policy: FreezePolicy, state: TrainingState) -> Sequence[str]:
    """What is to train, the first for which there is time enough; or what a run that is resumed had chosen."""
    if known := state.trial or next(iter(state.tried), None):
        return [known["unfreeze"]]
    if policy.unfreeze != "auto":
        return [policy.unfreeze]
    return list(dict.fromkeys(["all", heavy_stages(pretrained.backbone, pretrained.stages)]))


def _make_race(
    contender: Contender, recipe: Recipe, save: Callable[[TrainingState], None], stopwatch: Stopwatch, seconds: float
) -> Race:
    """seconds: that publishing takes, but for judging."""
    phase, examination = _deep_phase(contender, recipe)
    passed = sum(len(contender.readers[split]) for split in JUDGED) + contender.looked_at
    return Race(
        phase, contender.lesson.logits, examination, recipe, stopwatch, seconds, passed / len(examination), save
    )  # fmt: skip


def _leave_head(state: TrainingState, lesson: Lesson) -> None:
    """Trials start from the best head, if one was made, and have to beat it."""
    state.phase, state.step, state.finished = "finetune", 0, False
    state.head, state.best = state.best, []
    if state.head:
        state.scores = [lesson.scores()]


def _deep_phase(contender: Contender, recipe: Recipe) -> tuple[Phase, Examining]:
    """What all trials of fine-tuning share; length and rate are to be filled in."""
    pretrained, readers, lesson, peers = contender.pretrained, contender.readers, contender.lesson, contender.peers
    strength = "light" if recipe.augment == "auto" else recipe.augment
    images = [image_number(example.sha256) for example in lesson.examples]
    extractor = build_extractor(pretrained, recipe.pooling)
    model = keras.Model(extractor.input, lesson.head(extractor.output), name="finetune")

    def batches(draws: Sequence[Draw]) -> Iterator[Batch]:
        own = [Draw(one.epoch, peers.share(one.indices)) for one in draws]
        for one, pixels in zip(own, readers["train"].batches(one.indices for one in own), strict=True):
            inputs: tuple[np.ndarray, ...] = (pixels,)
            if strength != "none":
                drawn = draw(recipe.seed, one.epoch, [images[index] for index in one.indices])
                inputs = (pixels, changes_of(strength, drawn, *pixels.shape[1:3]))
            yield inputs, lesson.targets[one.indices], lesson.weights[one.indices]

    forward = compile_forward(model)
    examination = lesson.examine(lambda: predict_pixels(forward, readers["validation"], peers=peers))
    phase = Phase(
        "finetune", model, len(lesson.targets), 0, 1, 0.0, batches, examination, _is_from_torch(pretrained),
        loss=lesson.loss, peers=peers,
    )  # fmt: skip
    return phase if strength == "none" else replace(phase, prepare=application(strength)), examination


def _is_from_torch(pretrained: Pretrained) -> bool:
    return TRANSLATORS.get(pretrained.origin.source, ("", ""))[1] == "torch"
