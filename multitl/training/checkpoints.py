"""The state of a run: a file that is replaced at the end of every epoch; the one before it stays until the run is done.

It holds what may change during training (never frozen weights), the optimizer, the best weights so far and the
history. Random state inside the model (dropout, augmentation) is among its variables, and the order of the images is a
function of seed and epoch alone, so a resumed run takes the same steps as one that was never stopped. Of a finished
phase only the best weights are kept, and a finished run keeps that: whatever else its folder loses is made from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import keras
import msgspec
import numpy as np

from multitl.errors import RunError
from multitl.files.sealed_arrays import DamagedError, read_sealed, write_sealed
from multitl.system.progress import console
from multitl.system.writing import cannot_write

CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint-previous.safetensors"
OLDER = "checkpoint.npz"  # of multitl 0.1
ARRAYS = ("variables", "optimizer", "best")

PhaseName = Literal["head", "finetune"]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Amount = Annotated[float, msgspec.Meta(ge=0)]


class Row(TypedDict):
    """A line of history.csv."""

    phase: PhaseName
    epoch: Count
    loss: float
    accuracy: Amount
    val_loss: float
    val_accuracy: Amount
    learning_rate: Amount
    seconds: Amount


@dataclass
class TrainingState:
    """Where a run stands. phase_epoch counts finished epochs of `phase`; `rows` are the lines of history.csv."""

    phase: PhaseName = "head"
    phase_epoch: int = 0
    finished: bool = False  # of this phase: by its last epoch, by early stopping, or because it diverged
    best_loss: float | None = None
    waited: int = 0  # epochs since the best
    rows: list[Row] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    variables: list[np.ndarray] = field(default_factory=list)
    optimizer: list[np.ndarray] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)


class _About(msgspec.Struct, forbid_unknown_fields=True):
    """What a checkpoint says besides its arrays: as in TrainingState, but anybody may have written it."""

    phase: PhaseName
    phase_epoch: Count
    finished: bool
    best_loss: float | None
    waited: Count
    rows: Annotated[list[Row], msgspec.Meta(min_length=1)]
    warnings: list[str]


def save_state(folder: Path, state: TrainingState) -> None:
    """Write the state; until that is done, and after it, the folder also holds the one before."""
    about = {name: getattr(state, name) for name in _About.__struct_fields__}
    arrays = {f"{name}/{i}": array for name in ARRAYS for i, array in enumerate(getattr(state, name))}
    try:
        with contextlib.suppress(FileNotFoundError):
            (folder / CHECKPOINT).replace(folder / PREVIOUS)
    except OSError as error:
        raise cannot_write(folder / PREVIOUS, error) from error
    write_sealed(folder / CHECKPOINT, arrays, msgspec.json.encode(about))


def load_state(folder: Path) -> TrainingState:
    """Read the state, or a fresh one if there is none. In place of a damaged file the one before is taken.

    Raises RunError if that is damaged or missing as well.
    """
    paths = [path for path in (folder / CHECKPOINT, folder / PREVIOUS) if path.exists()]
    if not paths:
        _refuse_older(folder)
        return TrainingState()
    reasons = []
    for path in paths:
        try:
            state = _read(path)
        except DamagedError as error:
            reasons.append(str(error))
            continue
        if reasons:
            console().print(f"{paths[0]} is damaged: going on from the epoch before it.", markup=False)
            paths[0].unlink()  # it must not take the place of the good one
        return state
    raise RunError(
        f"The checkpoint {paths[0]} is damaged.",
        expected="the file that training left",
        received="; ".join(reasons),
        fix="start again with --overwrite; stored features are kept",
    )


def remove_previous(folder: Path) -> None:
    """Once nothing can follow any more."""
    (folder / PREVIOUS).unlink(missing_ok=True)


def _read(path: Path) -> TrainingState:
    """Raises DamagedError for anything but a state that training could have left."""
    arrays, text = read_sealed(path)
    try:
        about = msgspec.json.decode(text, type=_About)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"what it says of the run makes no sense: {error}") from error
    variables, optimizer, best = (_listed(arrays, name) for name in ARRAYS)
    if arrays:
        raise DamagedError(f"nobody knows what {next(iter(arrays))[:80]!r} in it is")
    if not all(np.isfinite(array).all() for array in variables + best):
        raise DamagedError("not all of its weights are finite")
    return TrainingState(**msgspec.structs.asdict(about), variables=variables, optimizer=optimizer, best=best)


def _listed(arrays: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    """Take name/0, name/1, ... out of `arrays`, as far as they go."""
    values: list[np.ndarray] = []
    while (key := f"{name}/{len(values)}") in arrays:
        values.append(arrays.pop(key))
    return values


def _refuse_older(folder: Path) -> None:
    if (folder / OLDER).exists():
        raise RunError(
            f"{folder} was started by an older version of multitl, whose checkpoints are not read any more.",
            expected=CHECKPOINT,
            received=OLDER,
            fix="start again with --overwrite; or finish it with the version that started it",
        )


def read_variables(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Copies of the values."""
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def write_variables(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Assign the values. Raises RunError if they were made by another model."""
    wanted = [(keras.backend.standardize_dtype(v.value.dtype), tuple(v.shape)) for v in variables]
    given = [(value.dtype.name, value.shape) for value in values]
    if wanted != given:
        raise RunError(
            "The checkpoint belongs to another model.",
            expected=f"{len(wanted)} arrays of this model's types and shapes",
            received=_first_misfit(wanted, given),
            fix="start again with --overwrite",
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _first_misfit(wanted: Sequence[tuple], given: Sequence[tuple]) -> str:
    if len(wanted) != len(given):
        return f"{len(given)} arrays"
    number, ours, theirs = next((i, a, b) for i, (a, b) in enumerate(zip(wanted, given, strict=True)) if a != b)
    return f"array {number} is {theirs[0]} {theirs[1]} instead of {ours[0]} {ours[1]}"
