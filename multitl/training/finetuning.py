"""`finetune`: labelled images and a backbone's name in, a judged and saved classifier out.

Read `finetune` top to bottom: claim the run folder, look at the data, load the backbone, train the head on stored
features, train deeper on pixels if asked to, save, judge. Every step that takes long leaves a file that a resumed run
uses.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
from scipy.special import softmax

from multitl.adapters import TRANSLATORS, folder_name
from multitl.contracts import SPLITS, Backend, Dataset, Pretrained, Result, Split
from multitl.data.augmentation import augment
from multitl.data.images import AT_ONCE
from multitl.data.pixels import PixelReader
from multitl.data.scanning import scan_for_training
from multitl.errors import RunError
from multitl.models.freezing import FreezePolicy, apply_policy
from multitl.models.heads import build_classifier, build_extractor
from multitl.models.inference import BATCH, as_probabilities, predict_pixels
from multitl.models.preprocessing import with_values
from multitl.models.weight_hashes import weights_sha256
from multitl.recipes import Recipe
from multitl.runs.folders import check_folder, check_same_data, finished_result, start_run
from multitl.runs.locks import locked, run_lock
from multitl.runs.promises import REPORT, broken_files
from multitl.sources.pretrained import load_pretrained
from multitl.system.budgets import Budget
from multitl.system.heap import kept_heap
from multitl.system.progress import console, progress_bar
from multitl.training.checkpoints import (
    CHECKPOINT,
    TrainingState,
    load_state,
    remove_previous,
    save_state,
)
from multitl.training.features import JUDGED, compute_run_features
from multitl.training.heads import make_head, refit_head
from multitl.training.logs import EpochLog
from multitl.training.phases import Batch, Phase, run_phase
from multitl.training.recording import finish, judge, make_card, remake_report, save_model, write_history
from multitl.training.targets import labels_of, log_loss_and_accuracy, targets_of


def finetune(
    data: str | os.PathLike[str],
    *,
    backend: Backend,
    output: str | os.PathLike[str] | None,
    recipe: Recipe,
    overwrite: bool,
    resume: bool,
) -> Result:
    """See `multitl.finetune`."""
    folder = Path(output) if output else _default_folder(Path(data), recipe.backbone, backend.name)
    with locked(run_lock(folder), folder):
        is_finished = check_folder(folder, recipe, backend.name, overwrite=overwrite, resume=resume)
        clock = Clock()
        with clock("data"):
            dataset = scan_for(data, recipe)
        if is_finished:
            check_same_data(folder, dataset.fingerprint)
            if (broken := broken_files(folder)) in ([], [REPORT]):
                return remake_report(folder) if broken else _leave(folder)
            _check_can_be_remade(folder, recipe, broken)
        with _session(recipe, backend):
            return _run(data, dataset, folder, recipe, backend, resume, clock)


def scan_for(data: str | os.PathLike[str], recipe: Recipe) -> Dataset:
    """Look at the data as the recipe says, with a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task("reading  ", total=None, note="")
        return scan_for_training(data, recipe, lambda done, total: bar.update(task, completed=done, total=total))


def _leave(folder: Path) -> Result:
    console().print(f"{folder} is complete already.", markup=False)
    return finished_result(folder)


def _goes_deeper(recipe: Recipe) -> bool:
    return recipe.unfreeze != "none" and recipe.epochs > 0


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
    console().print(f"missing or damaged: {names}; made again from the checkpoint", markup=False)


def _run(
    data: str | os.PathLike[str], dataset: Dataset, folder: Path, recipe: Recipe, backend: Backend, resume: bool,
    clock: Clock,
) -> Result:  # fmt: skip
    with clock("backbone"):
        pretrained = load_pretrained(recipe.backbone, recipe.weights, recipe.image_size)
        pretrained = replace(pretrained, preprocess=with_values(pretrained.preprocess, recipe.preprocess))
        sha256 = weights_sha256(pretrained.backbone)
        policy = FreezePolicy(recipe.unfreeze, recipe.train_batch_norm)
        policy.select(pretrained.stages)  # a wrong name is found before the long part
    start_run(folder, recipe, backend.name, dataset.fingerprint, sha256, resume=resume)
    _introduce(dataset, pretrained, recipe, backend)
    budget = Budget(AT_ONCE)
    readers = {split: PixelReader(dataset.split(split), pretrained.preprocess, budget=budget) for split in SPLITS}
    state, save = _load_state(folder, recipe), partial(_save_progress, folder, EpochLog(folder))

    apply_policy(FreezePolicy("none"), pretrained.backbone, pretrained.stages)
    with clock("features"):
        features = compute_run_features(dataset, pretrained, recipe, backend.name, sha256, readers)
    with clock("head"):
        head, settled, solved = make_head(features, dataset, recipe, state, save)
    trained = int(sum(np.prod(variable.shape) for variable in head.trainable_variables))
    if _goes_deeper(recipe):
        trained += sum(layer.count_params() for layer in apply_policy(policy, pretrained.backbone, pretrained.stages))
        with clock("finetune"):
            run_phase(_deep_phase(pretrained, head, readers, dataset, settled), settled, state, save)

    for warning in state.warnings:
        console().print(f"warning: {warning}", markup=False)
    kept = min(state.rows, key=lambda row: row["val_loss"])
    where = f"epoch {kept['epoch']} ({kept['phase']})"
    if solved and kept["phase"] == "head":
        where = str(solved)
    console().print(f"kept: {where}, validation loss {kept['val_loss']:.4f}")

    with clock("evaluation"):
        classifier = build_classifier(pretrained, head, recipe.pooling)
        is_frozen = state.phase == "head"  # then the backbone's part is computed already
        probabilities = features.probabilities(head) if is_frozen else _probabilities(classifier, readers)
        judged = probabilities
        if is_refitted := is_frozen and solved is not None and recipe.refit:
            refit_head(head, solved, features, dataset, settled)
            probabilities = features.probabilities(head)
            judged = probabilities | {"validation": judged["validation"]}  # of images it had not seen
        sample = readers["validation"].read(range(min(BATCH, len(readers["validation"]))))
        answers = probabilities["validation"][: len(sample)]
        difference = save_model(folder, classifier, sample, answers, recipe.precision)
        judge(folder, dataset, judged, recipe.seed)
        write_history(folder, state.rows)  # which a resumed run may have lost
    remove_previous(folder)
    card = make_card(data, dataset, pretrained, recipe, backend, sha256) | {
        "trained_parameters": trained,
        "saved_model_difference": difference,
        "features": {"computed": features.computed, "reused": features.reused},
        "solved_head": solved and solved.about() | {"refitted": is_refitted},
        "seconds": dict(clock),
        "warnings": state.warnings,
    }
    return finish(folder, card)


class Clock(dict):
    """Seconds by name of the step."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self[name] = round(time.perf_counter() - started, 3)


@contextmanager
def _session(recipe: Recipe, backend: Backend) -> Iterator[None]:
    """Seeds, determinism, arithmetic and memory of this run; the caller's dtype policy comes back afterwards."""
    policy = keras.config.dtype_policy()
    random.seed(recipe.seed)  # Keras draws the seeds of layers without one here; its set_random_seed loads TensorFlow
    backend.make_deterministic(recipe.seed)
    keras.config.set_dtype_policy(backend.mixed_precision() if recipe.precision == "mixed" else "float32")
    try:
        with kept_heap():
            yield
    finally:
        keras.config.set_dtype_policy(policy)


def _deep_phase(pretrained: Pretrained, head: keras.Model, readers: dict, dataset: Dataset, recipe: Recipe) -> Phase:
    labels, weights = targets_of(dataset, recipe)
    truth = labels_of(dataset, "validation")
    strength = "light" if recipe.augment == "auto" else recipe.augment
    extractor = build_extractor(pretrained, recipe.pooling)
    model = keras.Model(extractor.input, head(extractor.output), name="finetune")

    def batches(order: list[np.ndarray], epoch: int) -> Iterator[Batch]:
        for number, pixels in enumerate(readers["train"].batches(order)):
            seed = np.random.default_rng([recipe.seed, epoch, number]).integers(2**31 - 8)  # resumption draws the same
            yield augment(pixels, strength, int(seed)), labels[order[number]], weights[order[number]]

    def validate() -> tuple[float, float]:
        return log_loss_and_accuracy(truth, softmax(predict_pixels(model, readers["validation"]), axis=-1))

    count, rate, from_torch = len(labels), recipe.learning_rate, _is_from_torch(pretrained)
    return Phase("finetune", model, count, recipe.epochs, rate, batches, validate, unbiased_variance=from_torch)


def _is_from_torch(pretrained: Pretrained) -> bool:
    return TRANSLATORS.get(pretrained.origin.source, ("", ""))[1] == "torch"


def _probabilities(classifier: keras.Model, readers: dict[Split, PixelReader]) -> dict[Split, np.ndarray]:
    judged = [split for split in JUDGED if len(readers[split])]
    return {split: as_probabilities(predict_pixels(classifier, readers[split])) for split in judged}


def _save_progress(folder: Path, log: EpochLog, state: TrainingState) -> None:
    save_state(folder, state)
    write_history(folder, state.rows)
    log.add(state.rows[-1])


def _default_folder(data: Path, backbone: str, backend: str) -> Path:
    return Path("runs") / f"{data.resolve().stem}-{folder_name(backbone)}-{backend}"


def _introduce(dataset: Dataset, pretrained: Pretrained, recipe: Recipe, backend: Backend) -> None:
    """Say what was found before anything long starts."""
    out = console()
    counts = {split: Counter(example.label for example in dataset.split(split)) for split in SPLITS}
    sizes = ", ".join(f"{sum(counts[split].values())} {split}" for split in SPLITS)
    out.print(f"[bold]{len(dataset.class_names)} classes[/], {sizes} images")
    out.print(f"[bold]{pretrained.name}[/] on {backend.name} ({', '.join(backend.devices())})")
    for warning in dataset.warnings:
        out.print(f"warning: {warning}", markup=False)
