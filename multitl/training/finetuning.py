"""`finetune`: labelled images and a backbone's name in, a judged and saved classifier out.

Read `finetune` top to bottom: claim the run folder, look at the data, load the backbone, train the head on stored
features, train deeper on pixels if asked to, save, judge. Every step that takes long leaves a file that a resumed run
uses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from multitl.contracts import SPLITS, Backend, Dataset, Peers, Pretrained, Result, Split
from multitl.data.images import AT_ONCE
from multitl.data.listings import Listing
from multitl.data.parts import Before, nowhere
from multitl.data.pixel_store import PixelStore
from multitl.data.pixels import PixelReader
from multitl.data.scanning import scan_for_training
from multitl.data.unlabelled import add_unlabelled
from multitl.distribution.peers import ALONE_PEERS
from multitl.errors import RunError
from multitl.judging.evaluation import tell_oddities
from multitl.models.first_layer import warn_of_mean, with_channels
from multitl.models.freezing import FreezePolicy, apply_policy
from multitl.models.weight_hashes import weights_sha256
from multitl.options import parse_duration
from multitl.recipes import Recipe
from multitl.runs.folders import check_folder, check_same_data, finished_result, start_run
from multitl.runs.promises import REPORT, broken_files
from multitl.system.budgets import Budget
from multitl.system.messages import say, warn
from multitl.system.progress import progress_bar
from multitl.training.adaptation import adapt, check_adaptable
from multitl.training.asked import run_folder
from multitl.training.checkpoints import (
    CHECKPOINT,
    TrainingState,
    load_state,
    remove_previous,
    save_state,
    share_state,
)
from multitl.training.features import compute_features_of_readable
from multitl.training.groups import check_batch, claimed, insist_alike, share_result
from multitl.training.head_choice import SolvedHead
from multitl.training.heads import make_head
from multitl.training.listeners import Listeners, OnEpoch, listening
from multitl.training.memories import Memory
from multitl.training.planning import Stopwatch
from multitl.training.publishing import Publisher, has_more_to_try
from multitl.training.racing import race
from multitl.training.ranking import load_backbone, settle_backbone
from multitl.training.recording import make_card, remake_report, write_history
from multitl.training.sessions import Clock, session
from multitl.training.starts import Start, open_start, warn_of_start, what_became
from multitl.version import __version__


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
    peers: Peers = ALONE_PEERS,
) -> Result:
    """See `multitl.finetune`. Every process of a group does the same; what is written is written by the first.

    listing: what the data are by name, if that is known.
    """
    folder = run_folder(data, output, recipe, backend.name)
    with claimed(folder, peers):
        is_finished = peers.first(
            lambda: check_folder(folder, recipe, backend.name, overwrite=overwrite, resume=resume)
        )
        clock, start = Clock(), open_start(recipe)
        stopwatch = Stopwatch(parse_duration(recipe.budget), now=partial(peers.first, time.perf_counter))
        with clock("data"):
            dataset = scan_for(data, recipe, start.split_before if start else nowhere, listing)
            dataset = add_unlabelled(dataset, recipe.with_all_channels(dataset.channels))
        insist_alike(peers, "data", f"{dataset.fingerprint}, {len(dataset.unlabelled)} without labels")
        insist_alike(peers, "recipe", f"multitl {__version__}, {backend.name}, {recipe}")
        if is_finished and peers.first(lambda: _is_whole(folder, recipe, dataset)):
            return share_result(peers, lambda: finished_result(folder))
        about = {"backend": backend.name, **asdict(recipe)}
        heard = (None, "") if peers.rank else (on_epoch, log_to)
        with session(recipe, backend), listening(folder, about, *heard) as listeners:
            result = _run(data, dataset, folder, recipe, backend, resume, clock, stopwatch, listeners, start, peers)
            listeners.finish(result.metrics)
            return result


def _is_whole(folder: Path, recipe: Recipe, dataset: Dataset) -> bool:
    """Whether nothing of a finished run is to be done. Its report is made again if need be."""
    check_same_data(folder, dataset.fingerprint)
    if has_more_to_try(folder):
        return False
    broken = broken_files(folder)
    if broken == [REPORT]:
        remake_report(folder)
    elif broken:
        _check_can_be_remade(folder, recipe, broken)
        return False
    else:
        say(f"{folder} is complete already.")
    return True


def scan_for(
    data: str | os.PathLike[str], recipe: Recipe, before: Before = nowhere, listing: Listing | None = None
) -> Dataset:
    """Look at the data as the recipe says, with a progress bar. before, listing: see `data.scanning.scan`."""
    with progress_bar() as bar:
        task = bar.add_task("reading  ", total=None, note="")
        return scan_for_training(
            data, recipe, lambda done, total: bar.update(task, completed=done, total=total), before, listing
        )


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
    clock: Clock, stopwatch: Stopwatch, listeners: Listeners, start: Start | None, peers: Peers,
) -> Result:  # fmt: skip
    asked, recipe = recipe, recipe.with_all_channels(dataset.channels)
    with clock("backbone"):
        recipe, ranked = (start.settle(recipe), []) if start else settle_backbone(dataset, recipe, backend, peers)
        pretrained = with_channels(start.pretrained(), recipe.decoding) if start else load_backbone(recipe, backend)
        sha256 = weights_sha256(pretrained.backbone)
        policy = FreezePolicy(recipe.unfreeze, recipe.train_batch_norm)
        trained = policy.select(pretrained.stages)  # a wrong name is found before the long part
        check_adaptable(pretrained.backbone, recipe)
    insist_alike(peers, "weights of the backbone", sha256)
    from_sha256 = start.sha256 if start else None
    begin = partial(start_run, folder, asked, backend.name, dataset.fingerprint, sha256)
    peers.first(lambda: begin(resume=resume, from_sha256=from_sha256))
    notes = (warn_of_start(start, dataset, recipe) if start else []) + warn_of_mean(pretrained, trained)
    dataset = replace(dataset, warnings=(*dataset.warnings, *notes))
    _introduce(dataset, pretrained, recipe, backend)
    state = share_state(peers, lambda: load_own_state(folder, recipe))
    save = _leave_to_the_first if peers.rank else partial(_save_progress, folder, listeners)
    listeners.catch_up(state.rows)

    apply_policy(FreezePolicy("none"), pretrained.backbone, pretrained.stages)
    with clock("features"):
        dataset, readers, features = compute_features_of_readable(
            dataset, pretrained, recipe, backend, sha256, partial(read_pixels, pretrained=pretrained), peers
        )
    with clock("head"):
        head, settled, solved = make_head(features, dataset, recipe, state, save, start, peers)
        insist_alike(peers, "head", f"{settled.l2}, {[tuple(variable.shape) for variable in head.variables]}")
        head.set_weights(peers.broadcast_arrays(head.get_weights()))
        state = share_state(peers, lambda: state)
        memory = Memory.of(start, dataset, pretrained, recipe, backend, sha256, peers) if start else None
    about = make_card(data, dataset, pretrained, recipe, backend, sha256)
    about |= {"features": {"computed": features.computed, "reused": features.reused}, "ranked": ranked}
    if start:
        about["start"] = start.about(dataset) | {"head": what_became(recipe, solved)}
    publisher = Publisher(folder, dataset, pretrained, head, solved, settled, about, features, readers, memory, peers)
    if state.phase == "head" and state.rows:
        with clock("evaluation"):
            publisher.publish_head(state)
    if _goes_deeper(recipe):
        if state.budget_steps is not None:  # a run that is resumed ends what was planned
            stopwatch = Stopwatch(None, state.seconds, stopwatch.now)
        check_batch(peers.size, min(recipe.batch_size, len(dataset.split("train"))), "number of training images")
        race(publisher, policy, state, save, stopwatch, clock)
    say_what_was_kept(state, solved)
    adaptation = None
    if dataset.unlabelled:
        with clock("adaptation"):
            adaptation = peers.first(lambda: adapt(replace(publisher, peers=ALONE_PEERS), state, backend))
    return share_result(peers, lambda: _complete(publisher, state, clock, adaptation))


def _complete(publisher: Publisher, state: TrainingState, clock: Clock, adaptation: dict[str, Any] | None) -> Result:
    remove_previous(publisher.folder)
    return publisher.complete(state, clock, adaptation)


def read_pixels(dataset: Dataset, pretrained: Pretrained) -> dict[Split, PixelReader]:
    """The images of each split, as a backbone wants them."""
    budget, store = Budget(AT_ONCE), PixelStore(pretrained.preprocess)
    reader = partial(PixelReader, budget=budget, store=store, is_sampled=dataset.is_sampled)
    return {split: reader(dataset.split(split), pretrained.preprocess) for split in SPLITS}


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


def _save_progress(folder: Path, listeners: Listeners, state: TrainingState) -> None:
    save_state(folder, state)
    if state.phase == "head":  # later the folder holds what was published
        write_history(folder, state.rows)
    listeners.hear(state.rows)


def _leave_to_the_first(state: TrainingState) -> None:
    """Rank 0 saves, and tells who listens."""


def _introduce(dataset: Dataset, pretrained: Pretrained, recipe: Recipe, backend: Backend) -> None:
    """Say what was found before anything long starts."""
    sizes = ", ".join(f"{len(dataset.split(split))} {split}" for split in SPLITS)
    what = {"one": "classes", "several": "labels"}
    count = f"{len(dataset.class_names)} {what[recipe.labels]}" if recipe.labels in what else "a number"
    say(f"{count}, {sizes} images")
    say(f"{pretrained.name} on {backend.name} ({', '.join(backend.devices())})")
    if dataset.unlabelled:
        say(f"{len(dataset.unlabelled)} images without labels, to adapt to")
    tell_oddities(dataset)
