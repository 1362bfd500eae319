"""`multitl choose`: which backbone suits these images, said in the time that their frozen passes take.

What is known is written after every backbone, so Ctrl-C leaves a page of those that are finished.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitl.contracts import Backend, Dataset
from multitl.errors import BackboneError, RunError
from multitl.judging.choice_page import write_choice_page
from multitl.recipes import OF_FEATURES, Recipe
from multitl.runs.folders import is_used
from multitl.runs.locks import locked, run_lock
from multitl.system.progress import console
from multitl.system.writing import write_json
from multitl.training.finetuning import scan_for, session
from multitl.training.ranking import Standing, Unusable, by_accuracy, describe_standing, rank, split_weights

FILE, PAGE = "choice.json", "choice.html"


@dataclass(frozen=True)
class Choice:
    """standings: those that were finished by accuracy, the best first, then those that were stopped.

    command: what fine-tunes the best one.
    """

    output: Path
    standings: tuple[Standing, ...]
    unusable: tuple[Unusable, ...]
    command: tuple[str, ...]

    @property
    def page(self) -> Path:
        return self.output / PAGE


def choose(
    data: str | os.PathLike[str], names: Sequence[str], *, backend: Backend, output: str | os.PathLike[str] | None,
    recipe: Recipe, overwrite: bool,
) -> Choice:  # fmt: skip
    """See `multitl.choose`."""
    folder = Path(output) if output else Path("runs") / f"choose-{Path(data).resolve().stem}"
    _check_names(names)
    with locked(run_lock(folder), folder):
        _check_folder(folder, overwrite=overwrite)
        dataset = scan_for(data, recipe)
        found: list[Standing | Unusable] = []
        with session(recipe, backend):
            for one in rank(dataset, names, recipe, backend):
                console().print(describe_standing(one), markup=False)
                found.append(one)
                choice = _conclude(folder, os.fspath(data), found, recipe, backend)
                _write(choice, dataset, data, recipe, backend)
    return choice


def _conclude(
    folder: Path, data: str, found: Iterable[Standing | Unusable], recipe: Recipe, backend: Backend
) -> Choice:
    standings = [one for one in found if isinstance(one, Standing)]
    standings.sort(key=by_accuracy)
    unusable = tuple(one for one in found if isinstance(one, Unusable))
    command = _command(data, standings[0].name, recipe, backend) if standings else ()
    return Choice(folder, tuple(standings), unusable, command)


def _command(data: str, name: str, recipe: Recipe, backend: Backend) -> tuple[str, ...]:
    """Every option that decides which features are stored, where it is not the default."""
    plain, weights = split_weights(name, recipe.weights)
    named = {one: getattr(recipe, one) for one in OF_FEATURES} | {"weights": weights}
    default = Recipe()
    given = {one: value for one, value in named.items() if value != getattr(default, one)}
    options = [text for one, value in given.items() for text in (f"--{one.replace('_', '-')}", str(value))]
    return ("multitl", "finetune", data, "--backbone", plain, *options, "--backend", backend.name)


def _write(choice: Choice, dataset: Dataset, data: str | os.PathLike[str], recipe: Recipe, backend: Backend) -> None:
    about: dict[str, Any] = {
        "data": str(Path(data).resolve()),
        "fingerprint": dataset.fingerprint,
        "class_names": list(dataset.class_names),
        "backend": backend.name,
        "devices": backend.devices(),
        "recipe": {name: getattr(recipe, name) for name in OF_FEATURES},
        "standings": [one.about() for one in choice.standings],
        "unusable": [dataclasses.asdict(one) for one in choice.unusable],
        "command": shlex.join(choice.command),
    }
    write_json(choice.output / FILE, about)
    write_choice_page(choice.output / PAGE, about)


def _check_names(names: Sequence[str]) -> None:
    if not names or not all(names) or len(set(names)) < len(names):
        raise BackboneError(
            "It takes names of different backbones to choose from.",
            expected="a list such as pypi/efficientnet_lite0,keras/MobileNet",
            received=",".join(names) or "none",
            fix="multitl backbones",
        )


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raises RunError for a folder that holds anything but an older choice, which `overwrite` allows to replace."""
    if not is_used(folder):
        return
    if not (folder / FILE).is_file():
        raise RunError(
            f"{folder} exists and is no choice of multitl, so it is left alone.",
            expected="a new or empty folder",
            received=f"{folder}: {'a folder with other files' if folder.is_dir() else 'a file'}",
            fix="choose another folder with --out",
        )
    if not overwrite:
        raise RunError(
            f"{folder} exists already.",
            expected="a new folder, or permission",
            received=str(folder),
            fix="add --overwrite to choose again (stored features are reused), or choose another --out",
        )
