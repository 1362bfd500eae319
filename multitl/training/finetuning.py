"""`finetune`: labelled images and a backbone's name in, a judged and saved classifier out.

Read `finetune` top to bottom: claim the run folder, look at the data, load the backbone, train the head on stored
features, train deeper on pixels if asked to, save, judge. Every step that takes long leaves a file that a resumed run
uses.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from multitl.adapters import TRANSLATORS
from multitl.contracts import SPLITS, Backend, Dataset, Pretrained, Result, Split
from multitl.data.augmentation import application, changes_of, draw, image_number
from multitl.data.images import AT_ONCE
from multitl.data.parts import Before, nowhere
from multitl.data.pixel_store import PixelStore
from multitl.data.pixels import PixelReader
from multitl.data.scanning import scan_for_training
from multitl.data.unlabelled import add_unlabelled
from multitl.errors import RunError
from multitl.models.folding import held_norms_folded
from multitl.models.freezing import FreezePolicy, apply_policy
from multitl.models.heads import build_extractor
from multitl.models.inference import compile_forward, predict_pixels
from multitl.models.weight_hashes import weights_sha256
from multitl.options import parse_duration
from multitl.recipes import Recipe
from multitl.runs.folders import check_folder, check_same_data, finished_result, start_run
from multitl.runs.locks import locked, run_lock
from multitl.runs.promises import REPORT, broken_files
from multitl.system.budgets import Budget
from multitl.system.heap import kept_heap
from multitl.system.messages import say, warn
from multitl.system.progress import progress_bar, waiting
from multitl.training.adaptation import adapt, check_adaptable
from multitl.training.asked import listed, run_folder, split_weights
from multitl.training.checkpoints import (
    CHECKPOINT,
    TrainingState,
    load_state,
    remove_previous,
    save_state,
)
from multitl.training.features import JUDGED, compute_features_of_readable
from multitl.training.head_choice import SolvedHead
from multitl.training.heads import make_head
from multitl.training.listeners import Listeners, OnEpoch, listening
from multitl.training.memories import Memory
from multitl.training.phases import Batch, Draw, Phase
from multitl.training.planning import Stopwatch
from multitl.training.publishing import Publisher, has_more_to_try, published_trial
from multitl.training.ranking import Standing, by_accuracy, describe_standing, load_backbone, rank
from multitl.training.recording import make_card, remake_report, write_history
from multitl.training.starts import Start, open_start, warn_of_start, what_became
from multitl.training.targets import goal_for, targets_of, truth_of
from multitl.training.trials import Examination, Race, brier_scores


def finetune(
    data: str | os.PathLike[str],
    *,
    backend: Backend,
    output: str | os.PathLike[str] | None,
    recipe: Recipe,
    overwrite: bool,
    resume: bool,
    on_epoch: OnEpoch | None = None,
    log_to: str = "",
) -> Result:
    """See `multitl.finetune`."""
    folder = run_folder(data, output, recipe, backend.name)
    with locked(run_lock(folder), folder):
        is_finished = check_folder(folder, recipe, backend.name, overwrite=overwrite, resume=resume)
        clock, stopwatch, start = Clock(), Stopwatch(parse_duration(recipe.budget)), open_start(recipe)
        with clock("data"):
            dataset = scan_for(data, recipe, start.split_before if start else nowhere)
            dataset = add_unlabelled(dataset, recipe)
        if is_finished:
            check_same_data(folder, dataset.fingerprint)
        if is_finished and not has_more_to_try(folder):
            if (broken := broken_files(folder)) in ([], [REPORT]):
                return remake_report(folder) if broken else _leave(folder)
            _check_can_be_remade(folder, recipe, broken)
        about = {"backend": backend.name, **asdict(recipe)}
        with session(recipe, backend), listening(folder, about, on_epoch, log_to) as listeners:
            result = _run(data, dataset, folder, recipe, backend, resume, clock, stopwatch, listeners, start)
            listeners.finish(result.metrics)
            return result


def scan_for(data: str | os.PathLike[str], recipe: Recipe, before: Before = nowhere) -> Dataset:
    """Look at the data as the recipe says, with a progress bar. before: see `data.parts.Parts`."""
    with progress_bar() as bar:
        task = bar.add_task("reading  ", total=None, note="")
        return scan_for_training(
            data, recipe, lambda done, total: bar.update(task, completed=done, total=total), before
        )


def _leave(folder: Path) -> Result:
    say(f"{folder} is complete already.")
    return finished_result(folder)


def _goes_deeper(recipe: Recipe) -> bool:
    return recipe.unfreeze != "none"


def _load_state(folder: Path, recipe: Recipe) -> TrainingState:
    """Raises RunError for a damaged checkpoint, and for one of a phase that this recipe does not have."""
    state = load_state(folder)
    if state.phase == "finetune" and not _goes_deeper(recipe):
        raise RunError(
            f"The checkpoint {folder / CHECKPOINT} belongs to another recipe.",
            expected="a checkpoint of the head's training",
            received="one of fine-tuning",
            fix="start again with --overwrite; stored features are kept",
        )
    return state


def _check_can_be_remade(folder: Path, recipe: Recipe, broken: Sequence[str]) -> None:
    """Raises RunError if a finished run has lost files and its checkpoint as well; else training has not to be done."""
    names = f"{', '.join(broken)} of {folder}"
    if not _load_state(folder, recipe).rows:
        raise RunError(
            f"Missing or damaged: {names}, and there is no checkpoint to make it from.",
            expected="the files that card.json lists, or the checkpoint that training left",
            received=f"neither {', '.join(broken)} nor {CHECKPOINT}",
            fix="start again with --overwrite; stored features are kept",
        )
    say(f"missing or damaged: {names}; made again from the checkpoint")


def _run(
    data: str | os.PathLike[str], dataset: Dataset, folder: Path, recipe: Recipe, backend: Backend, resume: bool,
    clock: Clock, stopwatch: Stopwatch, listeners: Listeners, start: Start | None,
) -> Result:  # fmt: skip
    asked = recipe
    with clock("backbone"):
        recipe, ranked = (start.settle(recipe), []) if start else _settle_backbone(dataset, recipe, backend)
        pretrained = start.pretrained() if start else load_backbone(recipe, backend)
        sha256 = weights_sha256(pretrained.backbone)
        policy = FreezePolicy(recipe.unfreeze, recipe.train_batch_norm)
        policy.select(pretrained.stages)  # a wrong name is found before the long part
        check_adaptable(pretrained.backbone, recipe)
    from_sha256 = start.sha256 if start else None
    start_run(folder, asked, backend.name, dataset.fingerprint, sha256, resume=resume, from_sha256=from_sha256)
    dataset = replace(dataset, warnings=(*dataset.warnings, *(warn_of_start(start, dataset) if start else ())))
    _introduce(dataset, pretrained, recipe, backend)
    budget = Budget(AT_ONCE)
    store = PixelStore(pretrained.preprocess)

    def make_readers(dataset: Dataset) -> dict[Split, PixelReader]:
        new = partial(PixelReader, budget=budget, store=store, is_sampled=dataset.is_sampled)
        return {split: new(dataset.split(split), pretrained.preprocess) for split in SPLITS}

    state, save = _load_state(folder, recipe), partial(_save_progress, folder, listeners)
    listeners.catch_up(state.rows)

    apply_policy(FreezePolicy("none"), pretrained.backbone, pretrained.stages)
    with clock("features"):
        dataset, readers, features = compute_features_of_readable(
            dataset, pretrained, recipe, backend, sha256, make_readers
        )
    with clock("head"):
        head, settled, solved = make_head(features, dataset, recipe, state, save, start)
        memory = Memory.of(start, dataset, pretrained, recipe, backend, sha256) if start else None
    about = make_card(data, dataset, pretrained, recipe, backend, sha256)
    about |= {"features": {"computed": features.computed, "reused": features.reused}, "ranked": ranked}
    if start:
        about["start"] = start.about(dataset) | {"head": what_became(recipe, solved)}
    publisher = Publisher(folder, dataset, pretrained, head, solved, settled, about, features, readers, memory)
    if state.phase == "head" and state.rows:
        with clock("evaluation"):
            publisher.publish_head(state)
    if _goes_deeper(recipe):
        if state.budget_steps is not None:  # a run that is resumed ends what was planned
            stopwatch = Stopwatch(None, state.seconds)
        _race(publisher, policy, state, save, stopwatch, clock)
    _say_what_was_kept(state, solved)
    adaptation = None
    if dataset.unlabelled:
        with clock("adaptation"):
            adaptation = adapt(publisher, state, backend)
    remove_previous(folder)
    return publisher.complete(state, clock, adaptation)


def _settle_backbone(dataset: Dataset, recipe: Recipe, backend: Backend) -> tuple[Recipe, list[dict[str, Any]]]:
    """The recipe with the best of the backbones that it names, and how they stood; nothing to say of a single one."""
    names = listed(recipe.backbone)
    if len(names) == 1:
        return recipe, []
    found = []
    for one in rank(dataset, names, recipe, backend):
        say(describe_standing(one))
        found += [one] if isinstance(one, Standing) else []
    found.sort(key=by_accuracy)
    name, weights = split_weights(found[0].name, recipe.weights)
    return replace(recipe, backbone=name, weights=weights), [one.about() for one in found]


def _race(
    publisher: Publisher, policy: FreezePolicy, state: TrainingState, save: Callable[[TrainingState], None],
    stopwatch: Stopwatch, clock: Clock,
) -> None:  # fmt: skip
    """Try ways to fine-tune; whatever is the best so far is published at once."""
    pretrained, readers = publisher.pretrained, publisher.readers
    trained = sum(layer.count_params() for layer in apply_policy(policy, pretrained.backbone, pretrained.stages))
    if state.phase == "head":
        _leave_head(state, publisher)
    phase, examination = _deep_phase(publisher)
    judged = sum(len(readers[split]) for split in JUDGED) / len(examination)
    seconds = clock.get("evaluation", 0.0)
    logits = publisher.head.get_layer("logits")
    trials = Race(phase, logits, examination, publisher.recipe, stopwatch, seconds, judged, save).run(state)
    with held_norms_folded(pretrained.backbone):
        while True:
            with clock("finetune"):
                tried = next(trials, None)
            with clock("evaluation"), waiting("judging  "):
                if tried or published_trial(publisher.folder) != state.kept:
                    publisher.publish_trial(trained, state) if state.kept else publisher.publish_head(state)
            if not tried:
                return


def _leave_head(state: TrainingState, publisher: Publisher) -> None:
    """Trials start from the best head, if one was made, and have to beat it."""
    state.phase, state.step, state.finished = "finetune", 0, False
    state.head, state.best = state.best, []
    if state.head:
        targets, _ = targets_of(publisher.dataset, publisher.recipe, ("validation",))
        goal = goal_for(publisher.dataset, publisher.recipe)
        answers = publisher.features.probabilities(publisher.head, goal)
        state.scores = [brier_scores(targets, goal.as_targets(answers["validation"]))]


def _say_what_was_kept(state: TrainingState, solved: SolvedHead | None) -> None:
    for warning in state.warnings:
        warn(warning)
    if state.kept:
        tried = state.tried[state.kept - 1]
        what = (
            f"trial {state.kept}, learning rate {tried['learning_rate']:g}, {tried['steps'] - tried['left_out']} steps"
        )
        loss = tried["val_loss"]
    else:
        loss = min(row["val_loss"] for row in state.rows if row["phase"] == "head")
        what = str(solved) if solved else "the head"
    say(f"kept: {what}, validation loss {loss:.4f}")


class Clock(dict):
    """Seconds by name of the step, in all."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self[name] = round(self.get(name, 0.0) + time.perf_counter() - started, 3)


@contextmanager
def session(recipe: Recipe, backend: Backend) -> Iterator[None]:
    """Seeds, determinism, arithmetic and memory of this run; the caller's dtype policy comes back afterwards."""
    policy = keras.config.dtype_policy()
    random.seed(recipe.seed)  # Keras draws the seeds of layers without one here; its set_random_seed loads TensorFlow
    backend.make_deterministic(recipe.seed, is_strict=recipe.deterministic)
    keras.config.set_dtype_policy(_dtype_policy(recipe, backend))
    is_exact = recipe.precision == "float32"
    try:
        with kept_heap(), backend.full_precision() if is_exact else backend.quick_float32():
            yield
    finally:
        keras.config.set_dtype_policy(policy)


def _dtype_policy(recipe: Recipe, backend: Backend) -> str:
    if recipe.precision == "mixed":
        return backend.mixed_precision()
    return f"mixed_{recipe.precision}" if recipe.precision in ("bfloat16", "float16") else "float32"


def _deep_phase(publisher: Publisher) -> tuple[Phase, Examination]:
    """What all trials of fine-tuning share; length and rate are to be filled in."""
    pretrained, recipe, readers, dataset = publisher.pretrained, publisher.recipe, publisher.readers, publisher.dataset
    labels, weights = targets_of(dataset, recipe)
    strength = "light" if recipe.augment == "auto" else recipe.augment
    images = [image_number(example.sha256) for example in dataset.split("train")]
    extractor = build_extractor(pretrained, recipe.pooling)
    model = keras.Model(extractor.input, publisher.head(extractor.output), name="finetune")

    def batches(draws: Sequence[Draw]) -> Iterator[Batch]:
        for one, pixels in zip(draws, readers["train"].batches(one.indices for one in draws), strict=True):
            inputs: tuple[np.ndarray, ...] = (pixels,)
            if strength != "none":
                drawn = draw(recipe.seed, one.epoch, [images[index] for index in one.indices])
                inputs = (pixels, changes_of(strength, drawn, *pixels.shape[1:3]))
            yield inputs, labels[one.indices], weights[one.indices]

    forward, goal = compile_forward(model), goal_for(dataset, recipe)

    def predict() -> np.ndarray:
        return goal.activate(predict_pixels(forward, readers["validation"]))

    examination = Examination(predict, truth_of(dataset, recipe, "validation"), goal)
    from_torch = _is_from_torch(pretrained)
    phase = Phase("finetune", model, len(labels), 0, 1, 0.0, batches, examination, from_torch)
    return phase if strength == "none" else replace(phase, prepare=application(strength)), examination


def _is_from_torch(pretrained: Pretrained) -> bool:
    return TRANSLATORS.get(pretrained.origin.source, ("", ""))[1] == "torch"


def _save_progress(folder: Path, listeners: Listeners, state: TrainingState) -> None:
    save_state(folder, state)
    if state.phase == "head":  # later the folder holds what was published
        write_history(folder, state.rows)
    listeners.hear(state.rows)


def _introduce(dataset: Dataset, pretrained: Pretrained, recipe: Recipe, backend: Backend) -> None:
    """Say what was found before anything long starts."""
    sizes = ", ".join(f"{len(dataset.split(split))} {split}" for split in SPLITS)
    what = {"one": "classes", "several": "labels"}
    count = f"{len(dataset.class_names)} {what[recipe.labels]}" if recipe.labels in what else "a number"
    say(f"{count}, {sizes} images")
    say(f"{pretrained.name} on {backend.name} ({', '.join(backend.devices())})")
    if dataset.unlabelled:
        say(f"{len(dataset.unlabelled)} images without labels, to adapt to")
    for warning in dataset.warnings:
        warn(warning)
