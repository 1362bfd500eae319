"""`finetune`: labelled images and a backbone's name in, a judged and saved classifier out.

Read `finetune` top to bottom: claim the run folder, look at the data, load the backbone, train the head on stored
features, train deeper on pixels if asked to, save, judge. Every step that takes long leaves a file that a resumed run
uses.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras

from multitl.contracts import SPLITS, Backend, Dataset, Pretrained, Result, Split
from multitl.data.images import AT_ONCE
from multitl.data.listings import Listing
from multitl.data.parts import Before, nowhere
from multitl.data.pixel_store import PixelStore
from multitl.data.pixels import PixelReader
from multitl.data.scanning import scan_for_training
from multitl.data.unlabelled import add_unlabelled
from multitl.errors import RunError
from multitl.models.first_layer import warn_of_mean, with_channels
from multitl.models.freezing import FreezePolicy, apply_policy
from multitl.models.weight_hashes import weights_sha256
from multitl.options import parse_duration
from multitl.recipes import Recipe
from multitl.runs.folders import check_folder, check_same_data, finished_result, start_run
from multitl.runs.locks import locked, run_lock
from multitl.runs.promises import REPORT, broken_files
from multitl.system.budgets import Budget
from multitl.system.heap import kept_heap
from multitl.system.messages import say, warn
from multitl.system.progress import progress_bar
from multitl.training.adaptation import adapt, check_adaptable
from multitl.training.asked import run_folder
from multitl.training.candidates import listed, recipe_of
from multitl.training.checkpoints import (
    CHECKPOINT,
    TrainingState,
    load_state,
    remove_previous,
    save_state,
)
from multitl.training.features import compute_features_of_readable
from multitl.training.head_choice import SolvedHead
from multitl.training.heads import make_head
from multitl.training.listeners import Listeners, OnEpoch, listening
from multitl.training.memories import Memory
from multitl.training.planning import Stopwatch
from multitl.training.publishing import Publisher, has_more_to_try
from multitl.training.racing import Clock, race
from multitl.training.ranking import Standing, by_score, describe_standing, load_backbone, rank
from multitl.training.recording import make_card, remake_report, write_history
from multitl.training.starts import Start, open_start, warn_of_start, what_became


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
    listing: Listing | None = None,
) -> Result:
    """See `multitl.finetune`. listing: what the data are by name, if that is known."""
    folder = run_folder(data, output, recipe, backend.name)
    with locked(run_lock(folder), folder):
        is_finished = check_folder(folder, recipe, backend.name, overwrite=overwrite, resume=resume)
        clock, stopwatch, start = Clock(), Stopwatch(parse_duration(recipe.budget)), open_start(recipe)
        with clock("data"):
            dataset = scan_for(data, recipe, start.split_before if start else nowhere, listing)
            dataset = add_unlabelled(dataset, recipe.with_all_channels(dataset.channels))
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


def scan_for(
    data: str | os.PathLike[str], recipe: Recipe, before: Before = nowhere, listing: Listing | None = None
) -> Dataset:
    """Look at the data as the recipe says, with a progress bar. before, listing: see `data.scanning.scan`."""
    with progress_bar() as bar:
        task = bar.add_task("reading  ", total=None, note="")
        return scan_for_training(
            data, recipe, lambda done, total: bar.update(task, completed=done, total=total), before, listing
        )


def _leave(folder: Path) -> Result:
    say(f"{folder} is complete already.")
    return finished_result(folder)


def _goes_deeper(recipe: Recipe) -> bool:
    return recipe.unfreeze != "none"


def load_own_state(folder: Path, recipe: Recipe) -> TrainingState:
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
    if not load_own_state(folder, recipe).rows:
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
    asked, recipe = recipe, recipe.with_all_channels(dataset.channels)
    with clock("backbone"):
        recipe, ranked = (start.settle(recipe), []) if start else _settle_backbone(dataset, recipe, backend)
        pretrained = with_channels(start.pretrained(), recipe.decoding) if start else load_backbone(recipe, backend)
        sha256 = weights_sha256(pretrained.backbone)
        policy = FreezePolicy(recipe.unfreeze, recipe.train_batch_norm)
        trained = policy.select(pretrained.stages)  # a wrong name is found before the long part
        check_adaptable(pretrained.backbone, recipe)
    from_sha256 = start.sha256 if start else None
    start_run(folder, asked, backend.name, dataset.fingerprint, sha256, resume=resume, from_sha256=from_sha256)
    notes = (warn_of_start(start, dataset) if start else []) + warn_of_mean(pretrained, trained)
    dataset = replace(dataset, warnings=(*dataset.warnings, *notes))
    _introduce(dataset, pretrained, recipe, backend)
    state, save = load_own_state(folder, recipe), partial(_save_progress, folder, listeners)
    listeners.catch_up(state.rows)

    apply_policy(FreezePolicy("none"), pretrained.backbone, pretrained.stages)
    with clock("features"):
        dataset, readers, features = compute_features_of_readable(
            dataset, pretrained, recipe, backend, sha256, partial(read_pixels, pretrained=pretrained)
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
        race(publisher, policy, state, save, stopwatch, clock)
    say_what_was_kept(state, solved)
    adaptation = None
    if dataset.unlabelled:
        with clock("adaptation"):
            adaptation = adapt(publisher, state, backend)
    remove_previous(folder)
    return publisher.complete(state, clock, adaptation)


def read_pixels(dataset: Dataset, pretrained: Pretrained) -> dict[Split, PixelReader]:
    """The images of each split, as a backbone wants them."""
    budget, store = Budget(AT_ONCE), PixelStore(pretrained.preprocess)
    reader = partial(PixelReader, budget=budget, store=store, is_sampled=dataset.is_sampled)
    return {split: reader(dataset.split(split), pretrained.preprocess) for split in SPLITS}


def _settle_backbone(dataset: Dataset, recipe: Recipe, backend: Backend) -> tuple[Recipe, list[dict[str, Any]]]:
    """The recipe with the best of the backbones that it names, and how they stood; nothing to say of a single one."""
    names = listed(recipe.backbone)
    if len(names) == 1:
        return recipe, []
    found = []
    for one in rank(dataset, names, recipe, backend):
        say(describe_standing(one, recipe.labels))
        found += [one] if isinstance(one, Standing) else []
    found.sort(key=by_score)
    return recipe_of(found[0].name, recipe), [one.about() for one in found]


def say_what_was_kept(state: TrainingState, solved: SolvedHead | None) -> None:
    """In the terminal, with the warnings of the training."""
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
