"""Several heads on one backbone: one look at the data, one pass for features, a head solved for each target on those of
its images; then, if asked, the backbone and all heads are trained together.

Read `_run` beside `finetuning.py:_run`, the same for one head.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from multitl.contracts import SPLITS, Backend, Dataset, Result, Split
from multitl.data.columns import Placed, Target, images_of, list_targets, parse_head_weights, scan_targets, write_table
from multitl.errors import RecipeError
from multitl.judging.evaluation import tell_left_out
from multitl.models.first_layer import warn_of_mean
from multitl.models.freezing import FreezePolicy, apply_policy
from multitl.models.weight_hashes import weights_sha256
from multitl.options import parse_duration
from multitl.recipes import Recipe
from multitl.runs.folders import check_same_data, finished_result, start_run
from multitl.runs.head_runs import LEARNED, check_heads, has_heads, read_heads, run_of, whole_heads
from multitl.runs.locks import locked, run_lock
from multitl.runs.promises import HEAD_FOLDER, HEADS
from multitl.system.messages import say, warn
from multitl.system.progress import progress_bar
from multitl.system.writing import write_json
from multitl.training.asked import run_folder
from multitl.training.checkpoints import Row, TrainingState, load_state, read_variables, remove_previous, save_state
from multitl.training.feature_rows import chosen
from multitl.training.features import RunFeatures, compute_run_features
from multitl.training.finetuning import load_own_state, read_pixels, say_what_was_kept
from multitl.training.heads import make_head
from multitl.training.joint_lessons import Part
from multitl.training.joint_publishing import JointPublisher
from multitl.training.phases import mutable_variables
from multitl.training.planning import Stopwatch
from multitl.training.racing import race
from multitl.training.ranking import load_backbone
from multitl.training.recording import make_card, write_history
from multitl.training.sessions import Clock, session


@dataclass(frozen=True)
class HeadsResult:
    """What `finetune_heads` hands back. results: of each head by its name.

    alone: where they were fine-tuned together, the figures of each, as in `metrics`, on the backbone as it was.
    """

    output: Path
    results: Mapping[str, Result]
    model_path: Path
    report_path: Path
    alone: Mapping[str, dict[str, Any]]

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        return {name: result.metrics for name, result in self.results.items()}


def finetune_heads(
    data: str | os.PathLike[str], targets: Sequence[Target], *, backend: Backend, output: str | os.PathLike[str] | None,
    recipe: Recipe, weights: str, overwrite: bool, resume: bool,
) -> HeadsResult:  # fmt: skip
    """See `multitl.finetune_heads`. weights: of the losses, as asked."""
    folder = run_folder(data, output, recipe, backend.name)
    with locked(run_lock(folder), folder):
        check_heads(folder, recipe, backend.name, weights, overwrite=overwrite, resume=resume)
        clock, stopwatch, recipes = Clock(), Stopwatch(parse_duration(recipe.budget)), recipes_of(targets, recipe)
        with clock("data"), progress_bar() as bar:
            task = bar.add_task("reading  ", total=None, note="")
            found = scan_targets(
                list_targets(data, targets, recipe), recipe,
                lambda done, total: bar.update(task, completed=done, total=total),
            )  # fmt: skip
        datasets = {name: dataset for name, (dataset, _) in found.items()}
        if resume and (heads := whole_heads(folder)) and heads.trials and heads.trials.finished:
            check_same_data(folder, images_of(datasets).fingerprint)
            say(f"{folder} is complete already.")
            return finished_heads(folder)
        with session(recipe, backend):
            numbers = None if weights == LEARNED else parse_head_weights(weights, targets)
            count = next(iter(datasets.values())).channels
            recipes = {name: one.with_all_channels(count) for name, one in recipes.items()}
            job = Job(folder, found, recipes, recipe, backend, weights, numbers, resume)
            _run(job, clock, stopwatch)
        return finished_heads(folder)


def finished_heads(folder: Path) -> HeadsResult:
    """The result of a run that is complete. Raises RunError for another."""
    heads = read_heads(folder)
    results = {name: finished_result(run_of(folder, name)) for name in heads.kinds}
    return HeadsResult(folder, results, folder / "model.keras", folder / "report.html", heads.alone)


def recipes_of(targets: Sequence[Target], recipe: Recipe) -> dict[str, Recipe]:
    """A head's own: it is read from a table of its own, and only classes have weights. Raises RecipeError."""
    own = replace(recipe, label_column="label", path_column="path", images="", label_separator="", class_weights="none")
    weighed = [target.name for target in targets if target.labels == "one"]
    if recipe.class_weights != "none" and not weighed:
        raise RecipeError(
            "Only classes have weights, and no head is of one class an image.",
            expected="class_weights = none",
            received=f"class_weights = {recipe.class_weights!r}",
            fix="leave --class-weights out",
        )
    if recipe.class_weights != "none" and len(weighed) < len(targets):
        others = ", ".join(target.name for target in targets if target.labels != "one")
        say(f"class weights are those of {', '.join(weighed)}; {others} has no classes")
    by_kind = dict.fromkeys(weighed, recipe.class_weights)
    return {
        target.name: replace(own, labels=target.labels, class_weights=by_kind.get(target.name, "none"))
        for target in targets
    }


@dataclass(frozen=True, eq=False)
class Job:
    """What is to be done. found, recipes: of each head.  recipe: of all.  weights: of losses, as asked, and as numbers;
    None where they are learned.
    """

    folder: Path
    found: Mapping[str, Placed]
    recipes: Mapping[str, Recipe]
    recipe: Recipe
    backend: Backend
    asked_weights: str
    weights: Sequence[float] | None
    resume: bool

    def begin(self, fingerprint: str, sha256: str) -> None:
        """Make the folder this run's own. fingerprint: of the data.  sha256: of the backbone's weights."""
        folder = self.folder
        start_run(folder, self.recipe, self.backend.name, fingerprint, sha256, resume=self.resume)
        kinds = {name: self.recipes[name].labels for name in self.found}
        if not (self.resume and has_heads(folder)):
            write_json(folder / HEADS, {"kinds": kinds, "weights": self.asked_weights, "finished": False})
        for name, (_, listing) in self.found.items():
            run_of(folder, name).mkdir(parents=True, exist_ok=True)
            write_table(listing, folder / HEAD_FOLDER / f"{name}.csv")


def _run(job: Job, clock: Clock, stopwatch: Stopwatch) -> None:
    backend, folder, datasets = job.backend, job.folder, {name: dataset for name, (dataset, _) in job.found.items()}
    images = images_of(datasets)
    recipe = job.recipe.with_all_channels(next(iter(datasets.values())).channels)
    with clock("backbone"):
        pretrained = load_backbone(recipe, backend)
        sha256 = weights_sha256(pretrained.backbone)
        policy = FreezePolicy(recipe.unfreeze, recipe.train_batch_norm)
        trained = policy.select(pretrained.stages)  # a wrong name is found before the long part
    job.begin(images.fingerprint, sha256)
    _introduce(job, images, pretrained.name)
    for line in warn_of_mean(pretrained, trained):
        warn(line)
    readers = read_pixels(images, pretrained)
    state, save = load_own_state(folder, recipe), partial(save_joint_state, folder)
    apply_policy(FreezePolicy("none"), pretrained.backbone, pretrained.stages)
    with clock("features"):
        features = compute_run_features(images, pretrained, recipe, backend, sha256, readers)
    with clock("head"):
        parts = [_make_part(name, job, images, features) for name in job.found]
    computed = {"features": {"computed": features.computed, "reused": features.reused}}
    about = {
        part.name: make_card(
            folder / HEAD_FOLDER / f"{part.name}.csv", part.dataset, pretrained, part.recipe, backend, sha256
        ) | computed
        for part in parts
    }  # fmt: skip
    publisher = JointPublisher(
        folder,
        images,
        pretrained,
        recipe,
        parts,
        about,
        features,
        readers,
        job.asked_weights,
        job.weights,
        clock,
    )
    with clock("evaluation"):
        _ = publisher.alone  # as long as the heads are as they were made
    if state.phase == "head" and all(part.state.rows for part in parts):
        _take_over(state, parts, publisher)
        save(state)
        with clock("evaluation"):
            publisher.publish_head(state)
    if recipe.unfreeze != "none":
        if state.budget_steps is not None:  # a run that is resumed ends what was planned
            stopwatch = Stopwatch(None, state.seconds)
        race(publisher, policy, state, save, stopwatch, clock)
    say_what_was_kept(state, None)
    for place in (folder, *(run_of(folder, name) for name in job.found)):
        remove_previous(place)
    publisher.complete(state)


def _make_part(name: str, job: Job, images: Dataset, features: RunFeatures) -> Part:
    """A head, on the features of the images that have its target."""
    dataset, place = job.found[name][0], run_of(job.folder, name)
    rows = {split: _places(dataset, images, split) for split in SPLITS}
    judged = {split: chosen(values, rows[split]) for split, values in features.judged.items() if len(rows[split])}
    own = RunFeatures(
        [chosen(view, rows["train"]) for view in features.train], judged, features.computed, features.reused
    )
    state, asked = load_state(place), job.recipes[name]
    say(f"head {name}: {asked.labels}")
    head, recipe, solved = make_head(own, dataset, asked, state, partial(save_state, place))
    return Part(name, dataset, asked, recipe, head, solved, own, rows, state)


def _places(dataset: Dataset, images: Dataset, split: Split) -> np.ndarray:
    """Of a head's images of a split among those of all heads."""
    places = {example.path: place for place, example in enumerate(images.split(split))}
    return np.array([places[example.path] for example in dataset.split(split)], int)


def _take_over(state: TrainingState, parts: Sequence[Part], publisher: JointPublisher) -> None:
    """The heads that were made are where fine-tuning starts, and what it has to beat."""
    rows = [part.kept for part in parts]
    row = Row(
        phase="head",
        trial=0,
        step=0,
        loss=sum(row["loss"] for row in rows),
        accuracy=sum(row["accuracy"] for row in rows) / len(rows),
        val_loss=sum(row["val_loss"] for row in rows),
        val_accuracy=sum(row["val_accuracy"] for row in rows) / len(rows),
        learning_rate=0.0,
        seconds=sum(row["seconds"] for row in rows),
    )
    state.rows, state.best_loss, state.finished = [row], row["val_loss"], True
    state.best = read_variables(mutable_variables(publisher.lesson.head))


def save_joint_state(folder: Path, state: TrainingState) -> None:
    """The checkpoint of all heads, and the history as long as nothing is published."""
    save_state(folder, state)
    if state.phase == "head":  # later the folder holds what was published
        write_history(folder, state.rows)


def _introduce(job: Job, images: Dataset, backbone: str) -> None:
    """Say what was found before anything long starts."""
    sizes = ", ".join(f"{len(images.split(split))} {split}" for split in SPLITS)
    say(f"{len(job.found)} heads, {sizes} images")
    say(f"{backbone} on {job.backend.name} ({', '.join(job.backend.devices())})")
    tell_left_out(images.unreadable)
    for name, (dataset, _) in job.found.items():
        for warning in dataset.warnings:
            warn(f"{name}: {warning}")
