"""The folder of a finished run or a translated network, opened: its card at once, its model when it is needed.

Nothing here loads a framework before that, so that a misspelt folder is found at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from multitl.class_tables import check_classes
from multitl.contracts import SPLITS, Split
from multitl.data.remote import local
from multitl.data.scanning import check_for_evaluation, list_images
from multitl.data.tables import AS_USUAL, Reading
from multitl.errors import DataError, RecipeError, RunError, WeightsError, nearest_names
from multitl.given import shelves
from multitl.judging.conformal import plausible
from multitl.judging.judges import Judge, judge_of
from multitl.recipes import Recipe, combine
from multitl.runs.cards import Card, read_card
from multitl.runs.familiarity import FAMILIARITY, Familiarity, read_familiarity
from multitl.runs.head_runs import has_heads, refuse_heads
from multitl.runs.promises import HEAD_FOLDER

if TYPE_CHECKING:
    import keras
    import numpy as np

    from multitl.explaining.explainers import Explainer


@dataclass(frozen=True)
class Run:
    """The folder of a finished run or a translated network, which is a path like any other; the model is loaded on use.

    A function that takes the path of a run and gets one of these reads neither card nor model again.
    in_float32: the model computes so, though it was trained in 16 bits.
    """

    folder: Path
    card: Card
    in_float32: bool = False

    def __fspath__(self) -> str:
        return str(self.folder)

    @cached_property
    def judge(self) -> Judge:
        return judge_of(self.card.recipe, self.card.class_names, self.card.thresholds, self.card.scale)

    def exact(self, outputs: np.ndarray) -> np.ndarray:
        """See `Goal.exact`."""
        from multitl.models.goals import goal_of

        return goal_of(self.card.recipe).exact(outputs)

    @cached_property
    def model(self) -> keras.Model:
        """uint8 pixels (n, h, w, 3) -> probabilities (n, k), without optimizer state."""
        return _load_model(self)

    @cached_property
    def familiarity(self) -> Familiarity | None:
        """What images of the usual kind look like to the model, if the run has it. Raises RunError."""
        if not (self.folder / FAMILIARITY).exists():
            return None
        from multitl.models.strangeness import features_and_logits

        return read_familiarity(self.folder, features_and_logits(self.model)[0].shape[-1])

    @cached_property
    def network(self) -> keras.Model:
        """The model, with how strange an image is as one more number, if that is known: what `tell` takes."""
        from multitl.models.strangeness import with_strangeness

        return with_strangeness(self.model, self.familiarity) if self.familiarity else self.model

    def tell(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """What is said of images, of the network's outputs for them: see `multitl.predict`."""
        probabilities = self.exact(rows[:, : len(self.card.class_names)])
        said = [self.judge.answer(row) for row in probabilities]
        if sets := self.card.plausible:
            names = self.card.class_names
            for one, row in zip(said, probabilities, strict=True):
                one["plausible"] = [names[place] for place in plausible(row, sets.least)]
        if self.familiarity:
            for one, known in zip(said, self.familiarity.tell(rows[:, -1]), strict=True):
                one |= known
        return said

    @cached_property
    def explainer(self) -> Explainer | None:
        """What shows where the model looks; None where it has no map of features."""
        from multitl.explaining.explainers import explainer_of

        return explainer_of(self.model)


def load_run(run: str | os.PathLike[str]) -> Run:
    """Open a run folder, unless it is open. Raises RunError if it is missing, unfinished or damaged."""
    if isinstance(run, Run):
        return run
    folder = Path(run)
    if not os.path.isdir(folder):  # noqa: PTH112  (never raises)
        raise RunError(
            f"There is no run folder {folder}.",
            expected="a folder that multitl finetune made",
            received=str(folder),
            nearest=_similar_runs(folder),
            fix="multitl finetune DATA --out " + str(folder),
        )
    refuse_heads(folder)
    return Run(folder, read_card(folder))


def with_costs(run: Run, costs: str | os.PathLike[str]) -> Run:
    """A run that answers by other costs of mistakes, a table or its file; "" for its own. Raises RecipeError."""
    if not costs:
        return run
    recipe = combine(run.card.recipe, {"costs": costs})
    check_classes(recipe.class_weights, recipe.costs, run.card.class_names)
    return Run(run.folder, structs.replace(run.card, recipe=recipe))


def refuse_costs(folder: str | os.PathLike[str], costs: str | os.PathLike[str]) -> None:
    """Raises RecipeError where they are given for several heads at once."""
    if costs:
        raise RecipeError(
            f"{os.fspath(folder)} has several heads, which share no table of costs.",
            expected="costs for the folder of one head",
            received=f"costs = {os.fspath(costs)[:200]!r}",
            fix=f"name one of the folders in {Path(folder, HEAD_FOLDER)}",
        )


def refuse_label_column(reading: Reading) -> None:
    """Raises DataError where one is named for several heads at once."""
    if reading.label_column:
        raise DataError(
            "Each head has a column of its name.",
            expected="no label_column",
            received=reading.label_column,
            fix="leave it out, and call the table's columns as the heads are called",
        )


def reading_for(run: str | os.PathLike[str], reading: Reading) -> Reading:
    """Of a table whose columns, where `reading` does not name them, are called as those that the run learned from."""
    return reading.as_trained(load_run(run).card.recipe)


def lenient(recipe: Recipe, max_unreadable: float | None) -> Recipe:
    """With another share of files that may be unreadable, unless that is None. Raises RecipeError outside [0, 1]."""
    return recipe if max_unreadable is None else replace(recipe, max_unreadable=max_unreadable)


def check_evaluate(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
    split: Split,
    reading: Reading,
    costs: str | os.PathLike[str] = "",
    max_unreadable: float | None = None,
) -> None:
    """Raises what `evaluate` would, as far as names tell."""
    lenient(with_costs(load_run(run), costs).card.recipe, max_unreadable)
    if split not in SPLITS:
        raise DataError(
            f"{split!r} is not the name of a split.",
            expected=", ".join(SPLITS),
            received=str(split),
            nearest=nearest_names(str(split), SPLITS),
            fix="leave it out for test",
        )
    check_for_evaluation(data, load_run(run).card.class_names, split, reading_for(run, reading))


def check_predict(
    run: str | os.PathLike[str],
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    costs: str | os.PathLike[str] = "",
) -> tuple[Run, list[str]]:
    """The run and the paths that are to be classified, as often as they are given: answers stand beside them.

    Raises what `predict` would, as far as names tell.

    costs: see `with_costs`.
    """
    return with_costs(load_run(run), costs), list_images(images, once=False)


@contextmanager
def lent_images(run: str | os.PathLike[str], images: Any) -> Iterator[tuple[Any, dict[str, str]]]:
    """Paths to classify: as they are, or of the files that the images of an object become for as long as it takes.

    Also what to call those: path -> name.  run: whose own column of paths a table may have.
    """
    images = shelves.listed(images)
    if shelves.are_paths(images):
        yield images, {}
        return
    trained = AS_USUAL if has_heads(run) else reading_for(run, AS_USUAL)
    with shelves.lent(images, Reading(path_column=trained.path_column), needs_labels=False) as shelf:
        yield shelf.paths, dict(zip(shelf.paths, shelf.shown, strict=True))


@contextmanager
def lent_data(run: str | os.PathLike[str], data: Any, reading: Reading) -> Iterator[str | os.PathLike[str]]:
    """Labelled data as a path, likewise."""
    if isinstance(data, str | os.PathLike):
        yield local(data)
        return
    with shelves.lent(data, reading_for(run, reading), needs_labels=True) as shelf:
        yield shelf.table


def _similar_runs(folder: Path) -> list[str]:
    """Runs beside it or in runs/, those of similar names first."""
    found = [*folder.parent.glob("*/card.json"), *Path("runs").glob("*/card.json")]
    paths = sorted({card.parent.name: str(card.parent) for card in found}.items())
    near = nearest_names(folder.name, [name for name, _ in paths])
    return [dict(paths)[name] for name in near] or [path for _, path in paths[:3]]


def _load_model(run: Run) -> keras.Model:
    from multitl.models.joint import load_network

    path = run.card.model_file(run.folder)
    try:
        model = load_network(path, run.card.output, in_float32=run.in_float32)
    except WeightsError as error:
        raise _bad_model(path, error.received) from error
    expected = [(None, *run.card.preprocess.shape)], (None, len(run.card.class_names))
    received = [tuple(tensor.shape) for tensor in model.inputs], tuple(model.output_shape)
    if received != expected:
        raise _bad_model(path, f"a model of inputs {received[0]} and output {received[1]}")
    return model


def _bad_model(path: Path, received: str) -> RunError:
    return RunError(
        f"The model {path} cannot be used.",
        expected="the file that training wrote, for the classes and image size in card.json",
        received=received,
        fix="run multitl finetune again with --overwrite; stored features are kept",
    )
