"""heads.json: a folder with several heads on one backbone, each of which is a run of its own in there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from multitl.errors import RecipeError, RunError
from multitl.recipes import Recipe
from multitl.runs.cards import Line, read_json_of
from multitl.runs.folders import is_used

HEADS = "heads.json"
FOLDER = "heads"  # in it, a run and its table for each head


class Heads(Struct, frozen=True):
    """kinds: of each head by its name, in order.  finished: whether all are trained and joined."""

    kinds: Annotated[dict[Line, Literal["one", "several", "number"]], Meta(min_length=2)]
    finished: bool = False

    def __post_init__(self) -> None:
        if any(Path(name).name != name or name.startswith(".") for name in self.kinds):
            raise ValueError("a head whose name is no folder's")


def has_heads(folder: str | os.PathLike[str]) -> bool:
    """Whether it is a folder with several heads."""
    return os.path.isfile(Path(folder, HEADS))  # noqa: PTH113  (never raises)


def read_heads(folder: Path) -> Heads:
    """Raises RunError for one that is damaged or unfinished."""
    found = read_json_of(folder / HEADS, Heads, "what multitl wrote of the heads", "train again with --overwrite")
    if not found.finished:
        raise RunError(
            f"{folder} is not finished.",
            expected="all heads trained",
            received=", ".join(found.kinds),
            fix="train it again with --resume",
        )
    return found


def run_of(folder: Path, name: str) -> Path:
    """The run of one head."""
    return folder / FOLDER / name


def check_heads(folder: Path, recipe: Recipe, *, overwrite: bool, resume: bool) -> None:
    """Raises what `finetune_heads` would, as far as names tell."""
    if recipe.unfreeze != "none":
        raise RecipeError(
            "Several heads are solved on a backbone that stays as it is; they are not fine-tuned together.",
            expected="unfreeze = none",
            received=f"unfreeze = {recipe.unfreeze}",
            fix="--unfreeze none; or fine-tune for one target: --label-column NAME without --heads",
        )
    if recipe.labels != "one" or recipe.label_column:
        raise RecipeError(
            "Columns and their kinds are named once, by the heads.",
            expected="neither labels nor label_column beside heads",
            received=f"labels = {recipe.labels}, label_column = {recipe.label_column!r}",
            fix="leave --labels and --label-column out",
        )
    if is_used(folder) and not has_heads(folder):
        raise RunError(
            f"{folder} exists and is no folder of several heads, so it is left alone.",
            expected="a new or empty folder",
            received=str(folder),
            fix="choose another folder with --out",
        )
    if is_used(folder) and not (overwrite or resume):
        raise RunError(
            f"{folder} exists already.",
            expected="a new folder, or permission",
            received=str(folder),
            fix="add --resume to continue it, --overwrite to start again, or choose another --out",
        )
