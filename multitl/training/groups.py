"""What a run asks of a group of processes: work that can be shared, the same data everywhere, one writer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from multitl.contracts import Peers, Result
from multitl.distribution.group import Group
from multitl.errors import GroupError, RecipeError, shorten
from multitl.recipes import Recipe
from multitl.runs.locks import locked, run_lock


def check_group(group: Group, recipe: Recipe) -> None:
    """Raises RecipeError for what several processes cannot share evenly, as far as a recipe tells."""
    if group.size > 1 and recipe.unfreeze != "none":
        check_batch(group.size, recipe.batch_size)
        if recipe.train_batch_norm:
            raise RecipeError(
                "Batch normalisation that is trained would have other statistics in every process.",
                expected="--train-batch-norm with one process, or without it with several",
                received=f"train_batch_norm with {group.size} processes",
                fix="leave --train-batch-norm out: frozen statistics are those of the pretrained network",
            )


def check_batch(size: int, images: int, what: str = "batch_size") -> None:
    """Raises RecipeError if the images of a batch cannot be shared evenly by so many processes."""
    if images % size:
        lower = images // size * size
        nearest = [str(one) for one in (lower, lower + size) if one]
        raise RecipeError(
            f"{size} processes cannot share a batch of {images} images evenly.",
            expected=f"a {what} that {size} divides: the batch is that of all processes together",
            received=f"{what} = {images}",
            nearest=nearest,
            fix=f"--batch-size {nearest[0]}, or another number of processes",
        )


def refuse_group(group: Group, what: str) -> None:
    """Raises GroupError where processes would only do the same several times."""
    if group.size > 1:
        raise GroupError(
            f"{what} works in one process.",
            expected="one process",
            received=f"WORLD_SIZE={group.size}",
            fix="unset RANK and WORLD_SIZE, or start it without torchrun or srun",
        )


def insist_alike(peers: Peers, what: str, value: str) -> None:
    """Raises GroupError unless all processes have the same. value: a line that tells it from others."""
    values = [other.decode() for other in peers.gather(value.encode())]
    if different := [rank for rank, other in enumerate(values) if other != values[0]]:
        ranks = shorten(map(str, different))
        raise GroupError(
            f"Not all processes have the same {what}.",
            expected=f"what process 0 has: {values[0][:60]}",
            received=f"process {ranks}: {values[different[0]][:60]}",
            fix="give all of them the same command, the same files and the same version of multitl; an image that is "
            "damaged on one machine is another data set",
        )


def claimed(folder: Path, peers: Peers) -> AbstractContextManager[None]:
    """The lock of a run folder, which rank 0 holds for all."""
    return contextlib.nullcontext() if peers.rank else locked(run_lock(folder), folder)


def share_result(peers: Peers, work: Callable[[], Result]) -> Result:
    """What `work` gives on rank 0, for all: others may not see its files."""
    if peers.rank == 0:
        result = work()
        peers.first(lambda: _as_values(result))
        return result
    values = peers.first(lambda: None)
    output, model, report = (Path(values[name]) for name in ("output", "model_path", "report_path"))
    return Result(output, values["metrics"], tuple(values["class_names"]), model, report, tuple(values["warnings"]))


def _as_values(result: Result) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(result).items()}
