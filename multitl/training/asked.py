"""What `finetune` and `choose` are asked for: which backbones, which folder; and what of it is refused at once.

That is before a framework loads and before an image is opened. All of it is looked at again where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multitl.adapters import folder_name
from multitl.data.columns import Target, list_targets, parse_head_weights
from multitl.data.listings import Listing
from multitl.data.remote import local
from multitl.data.scanning import check_for_training
from multitl.data.tables import Reading
from multitl.data.unlabelled import check_unlabelled
from multitl.errors import RecipeError, RunError
from multitl.given import shelves
from multitl.judging.opening import load_run
from multitl.recipes import Recipe
from multitl.runs.folders import check_folder, check_results_folder
from multitl.runs.head_runs import LEARNED, check_heads
from multitl.runs.locks import locked, run_lock
from multitl.system.paths import expanded
from multitl.training.candidates import candidates, check_all, check_single, named_in
from multitl.training.trackers import check_trackers

CHOICE = "choice.json"
OF_START = ("backbone", "weights", "image_size", "preprocess", "pooling", "bits", "range", "page", "channels")
# what an earlier run's classifier hangs on


def settle_data(data: Any, recipe: Recipe, recipes: Sequence[Recipe]) -> str | os.PathLike[str]:
    """A path as it is, a URL as what is fetched from it, anything else as the table that it becomes, once the backbones
    are known to be there. recipes: one for each of them.
    """
    if isinstance(data, str | os.PathLike):
        return local(data)
    if not recipe.from_run:
        check_all(recipes)
    return shelves.keep(data, Reading.of(recipe))


def check_listeners(on_epoch: object, log_to: str) -> None:
    """Raises RecipeError for what cannot be told of an epoch."""
    check_trackers(log_to)
    if on_epoch is not None and not callable(on_epoch):
        raise RecipeError(
            "on_epoch cannot be called.",
            expected="a function of one argument, a dict",
            received=f"a {type(on_epoch).__name__}",
            fix="on_epoch=print",
        )


def check_finetune(
    data: str | os.PathLike[str], backend: str, output: str | os.PathLike[str] | None, recipe: Recipe, *,
    overwrite: bool, resume: bool, rank: int = 0,
) -> Listing:  # fmt: skip
    """What the data are by name. Raises what `finetune` would, as far as names tell. backend: the name of one that is
    installed.

    rank: of several processes the first one alone has to do with the run's folder, and says what is wrong with it.
    """
    folder, is_finished = run_folder(data, output, recipe, backend), rank > 0
    if not rank:
        with locked(run_lock(folder), folder):
            is_finished = check_folder(folder, recipe, backend, overwrite=overwrite, resume=resume)
    if recipe.from_run:
        _check_start(recipe, folder)
    elif not is_finished:  # one that is needs no weights any more
        check_all(named_in(recipe))
    listing = check_for_training(data, recipe)
    check_unlabelled(recipe.unlabelled)
    return listing


def check_finetune_heads(
    data: str | os.PathLike[str], targets: Sequence[Target], weights: str, backend: str,
    output: str | os.PathLike[str] | None, recipe: Recipe, *, overwrite: bool, resume: bool,
) -> None:  # fmt: skip
    """Raises what `finetune_heads` would, as far as names tell."""
    if recipe.relabel:
        raise RecipeError(
            "Verdicts are on one label of an image, and several heads have several.",
            expected="relabel = ''",
            received="relabel beside heads",
            fix="leave out --relabel, and mend the table",
        )
    folder = run_folder(data, output, recipe, backend)
    with locked(run_lock(folder), folder):
        check_heads(folder, recipe, backend, weights, overwrite=overwrite, resume=resume)
    if weights != LEARNED:
        parse_head_weights(weights, targets)
    list_targets(data, targets, recipe)
    check_single(recipe)
    check_all([recipe])


def check_choose(
    data: str | os.PathLike[str], names: Sequence[str], output: str | os.PathLike[str] | None, recipe: Recipe, *,
    overwrite: bool,
) -> Listing:  # fmt: skip
    """What the data are by name. Raises what `choose` would, as far as names tell."""
    check_all(candidates(names, recipe))
    check_choice_folder(choice_folder(data, output), overwrite=overwrite)
    return check_for_training(data, recipe)


def run_folder(
    data: str | os.PathLike[str], output: str | os.PathLike[str] | None, recipe: Recipe, backend: str
) -> Path:
    """The folder of a run: the one asked for, or one called after what it is made of."""
    made_of = f"{folder_name(recipe.backbone)}-{backend}"
    if recipe.from_run:
        made_of = f"from-{Path(recipe.from_run).resolve().name}"
    return Path(output or f"runs/{Path(data).resolve().stem}-{made_of}")


def choice_folder(data: str | os.PathLike[str], output: str | os.PathLike[str] | None) -> Path:
    """The folder of a choice, as `run_folder`."""
    return Path(output or f"runs/choose-{Path(data).resolve().stem}")


def check_choice_folder(folder: Path, *, overwrite: bool) -> None:
    """Raises RunError for a folder that holds anything but an older choice, which `overwrite` allows to replace."""
    check_results_folder(
        folder, CHOICE, "choice", overwrite=overwrite, received=str(folder),
        fix="add --overwrite to choose again (stored features are reused), or choose another --out",
    )  # fmt: skip


def _check_start(recipe: Recipe, folder: Path) -> None:
    """Raises RunError for a run that cannot be gone on from, and RecipeError for options that would make its classifier
    another."""
    run = load_run(expanded(recipe.from_run))
    if run.card.recipe.labels != recipe.labels:
        raise RunError(
            f"What goes on from {run.folder} says the same kind of thing of an image.",
            expected=f"labels = {run.card.recipe.labels!r}",
            received=f"labels = {recipe.labels!r}",
            fix=f"take its backbone alone: --backbone {run.folder} in place of --from",
        )
    if run.card.head is not None:
        raise RunError(
            f"{run.folder} is no run: multitl translate made it.",
            expected="the folder of a finished run",
            received="a network that was not trained",
            fix=f"--backbone {run.card.backbone.name} without --from",
        )
    if folder.resolve() == run.folder.resolve():
        raise RunError(
            f"A run cannot take the place of the one that it goes on from, {run.folder}.",
            expected="another folder",
            received=str(folder),
            fix="choose another one with --out",
        )
    asked = Recipe.read(run.folder / "recipe.toml")
    for name in OF_START:
        ours, theirs = getattr(recipe, name), {getattr(one, name) for one in (asked, run.card.recipe)}
        if ours not in theirs:
            raise RecipeError(
                f"What goes on from {run.folder} has its {name}.",
                expected=f"{name} = {getattr(asked, name)!r}",
                received=f"{name} = {ours!r}",
                fix=f"leave --{name.replace('_', '-')} out; or begin a new classifier on its backbone: --backbone "
                f"{run.folder} without --from",
            )
