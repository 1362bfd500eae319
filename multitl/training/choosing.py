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
from multitl.data.listings import Listing
from multitl.judging.choice_page import write_choice_page
from multitl.judging.merits import FIGURES, Baseline
from multitl.recipes import OF_FEATURES, Recipe
from multitl.runs.locks import locked, run_lock
from multitl.system.messages import say
from multitl.system.writing import write_json
from multitl.training.asked import CHOICE, check_choice_folder, choice_folder
from multitl.training.candidates import recipe_of
from multitl.training.finetuning import scan_for
from multitl.training.ranking import Standing, Unusable, baselines_for, by_score, describe_standing, rank, read_all
from multitl.training.sessions import session

PAGE = "choice.html"


@dataclass(frozen=True)
class Choice:
    """standings: those that were finished by score, the best first, then those that were stopped.

    figure: what a score is, see `merits.FIGURES`.  baselines: the same of what needs no picture.  command: what
    fine-tunes the best one.
    """

    output: Path
    figure: str
    standings: tuple[Standing, ...]
    baselines: tuple[Baseline, ...]
    unusable: tuple[Unusable, ...]
    command: tuple[str, ...]

    @property
    def page(self) -> Path:
        return self.output / PAGE


def choose(
    data: str | os.PathLike[str], names: Sequence[str], *, backend: Backend, output: str | os.PathLike[str] | None,
    recipe: Recipe, overwrite: bool, listing: Listing | None = None,
) -> Choice:  # fmt: skip
    """See `multitl.choose`. listing: what the data are by name, if that is known."""
    folder = choice_folder(data, output)
    with locked(run_lock(folder), folder):
        check_choice_folder(folder, overwrite=overwrite)
        dataset = read_all(scan_for(data, recipe, listing=listing), recipe)
        found: list[Standing | Unusable] = []
        with session(recipe, backend):
            baselines = baselines_for(dataset, recipe)
            for one in rank(dataset, names, recipe.with_all_channels(dataset.channels), backend):
                say(describe_standing(one, recipe.labels))
                found.append(one)
                choice = _conclude(folder, os.fspath(data), found, baselines, recipe, backend)
                _write(choice, dataset, data, recipe, backend)
    return choice


def _conclude(
    folder: Path, data: str, found: Iterable[Standing | Unusable], baselines: Sequence[Baseline], recipe: Recipe,
    backend: Backend,
) -> Choice:  # fmt: skip
    standings = [one for one in found if isinstance(one, Standing)]
    standings.sort(key=by_score)
    unusable = tuple(one for one in found if isinstance(one, Unusable))
    command = command_of(data, standings[0].name, recipe, backend) if standings else ()
    return Choice(folder, FIGURES[recipe.labels], tuple(standings), tuple(baselines), unusable, command)


def command_of(data: str, name: str, recipe: Recipe, backend: Backend) -> tuple[str, ...]:
    """What fine-tunes a backbone on what was stored here: every option that decides which features are,
    unless it is the default."""
    own, default = recipe_of(name, recipe), Recipe()
    named = {one: getattr(own, one) for one in OF_FEATURES}
    given = {one: value for one, value in named.items() if value != getattr(default, one)}
    options = [text for one, value in given.items() for text in _option(one, str(value))]
    return ("multitl", "finetune", data, "--backbone", own.backbone, *options, "--backend", backend.name)


def _option(name: str, value: str) -> tuple[str, ...]:
    """In one word where a value, such as "-1000,400", would be taken for another option."""
    option = f"--{name.replace('_', '-')}"
    return (f"{option}={value}",) if value.startswith("-") else (option, value)


def _write(choice: Choice, dataset: Dataset, data: str | os.PathLike[str], recipe: Recipe, backend: Backend) -> None:
    about: dict[str, Any] = {
        "data": str(Path(data).resolve()),
        "fingerprint": dataset.fingerprint,
        "class_names": list(dataset.class_names),
        "backend": backend.name,
        "devices": backend.devices(),
        "recipe": {name: getattr(recipe, name) for name in OF_FEATURES},
        "figure": choice.figure,
        "standings": [one.about() for one in choice.standings],
        "baselines": [dataclasses.asdict(one) for one in choice.baselines],
        "unusable": [dataclasses.asdict(one) for one in choice.unusable],
        "command": shlex.join(choice.command),
    }
    write_json(choice.output / CHOICE, about)
    write_choice_page(choice.output / PAGE, about)
