"""heads.json: a run with several heads on one backbone, the card of all; each has a card of its own in heads/NAME."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from multitl.errors import RecipeError, RunError
from multitl.recipes import Recipe
from multitl.runs.cards import Line, Positive, Sha256, Text, Trials, read_json_of
from multitl.runs.folders import check_folder
from multitl.runs.promises import HEAD_FOLDER, HEADS
from multitl.system.hashes import file_sha256
from multitl.system.regular_files import MOST_FIGURES

LEARNED = "learned"
OF_ONE_HEAD = {"from_run": "", "unlabelled": "", "shots": 0, "costs": ""}  # options, and what they are without it


class Heads(Struct, frozen=True, kw_only=True):
    """kinds: of each head by its name, in order.  finished: whether all that was tried first is trained and judged.

    weights: of the losses, as asked.  saved_model_difference, trials, seconds, files: as in `Card`; the gain of a trial
    is that of all heads together.  alone: where heads were fine-tuned together, the figures of each by split as it is
    on the backbone as it was.
    """

    kinds: Annotated[dict[Line, Literal["one", "several", "number"]], Meta(min_length=2)]
    finished: bool = False
    weights: Text = ""
    saved_model_difference: Positive = 0.0
    trials: Trials | None = None
    alone: dict[Line, dict[str, Any]] = {}
    seconds: dict[Line, Positive] = {}
    warnings: tuple[Text, ...] = ()
    files: dict[Line, Sha256] = {}

    def __post_init__(self) -> None:
        if any(Path(name).name != name or name.startswith(".") for name in self.kinds):
            raise ValueError("a head whose name is no folder's")
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in self.files):
            raise ValueError("a file outside the folder")


def has_heads(folder: str | os.PathLike[str]) -> bool:
    """Whether it is a folder with several heads."""
    return os.path.isfile(Path(folder, HEADS))  # noqa: PTH113  (never raises)


def _read(folder: Path) -> Heads:
    advice = "train again with --overwrite"
    return read_json_of(folder / HEADS, Heads, "what multitl wrote of the heads", advice, MOST_FIGURES)


def read_heads(folder: Path) -> Heads:
    """Raises RunError for one that is damaged or unfinished."""
    found = _read(folder)
    if not found.finished:
        raise RunError(
            f"{folder} is not finished.",
            expected="all heads trained",
            received=", ".join(found.kinds),
            fix="train it again with --resume",
        )
    return found


def refuse_heads(folder: Path) -> None:
    """Raises RunError where one run is wanted, and there are several heads."""
    if has_heads(folder):
        raise RunError(
            f"{folder} has several heads, each of which is a run of its own.",
            expected="the folder of one head; or predict and evaluate, which take all of them",
            received=str(folder),
            nearest=[str(run_of(folder, name)) for name in read_heads(folder).kinds],
            fix=f"name one of the folders in {folder / HEAD_FOLDER}",
        )


def whole_heads(folder: Path) -> Heads | None:
    """heads.json of a run that has all its files as they were written; else None."""
    try:
        heads = read_heads(folder)
        is_whole = bool(heads.files) and all(file_sha256(folder / name) == own for name, own in heads.files.items())
    except (RunError, OSError):
        return None
    return heads if is_whole else None


def run_of(folder: Path, name: str) -> Path:
    """The folder of one head."""
    return folder / HEAD_FOLDER / name


def check_heads(folder: Path, recipe: Recipe, backend: str, weights: str, *, overwrite: bool, resume: bool) -> None:
    """Raises what `finetune_heads` would of options and the folder. weights: of the losses, as asked."""
    if recipe.labels != "one" or recipe.label_column:
        raise RecipeError(
            "Columns and their kinds are named once, by the heads.",
            expected="neither labels nor label_column beside heads",
            received=f"labels = {recipe.labels}, label_column = {recipe.label_column!r}",
            fix="leave --labels and --label-column out",
        )
    for name, without in OF_ONE_HEAD.items():
        if getattr(recipe, name) != without:
            raise RecipeError(
                f"The option {name} is of a run with one head.",
                expected=f"{name} = {without!r} beside heads",
                received=f"{name} = {getattr(recipe, name)!r}",
                fix=f"leave --{'from' if name == 'from_run' else name} out; or train one head alone, without --heads",
            )
    if weights and recipe.unfreeze == "none":
        raise RecipeError(
            "Heads on a backbone that stays as it is are solved one by one, so that none outweighs another.",
            expected="weights of heads where the backbone is trained",
            received=f"head_weights = {weights!r}, unfreeze = none",
            fix="leave --head-weights out; or fine-tune: --unfreeze all",
        )
    check_folder(folder, recipe, backend, overwrite=overwrite, resume=resume)
    if resume and has_heads(folder):
        known = _read(folder)
        if known.weights != weights:
            raise RunError(
                f"{folder} was started with other weights of its heads.",
                expected=f"head_weights = {known.weights!r}",
                received=f"head_weights = {weights!r}",
                fix="resume with the same ones, or choose another --out",
            )
