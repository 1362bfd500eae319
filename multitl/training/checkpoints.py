"""The state of a run: a file that is replaced whenever training is judged; the one before it stays to the end.

It holds what may change during training (never frozen weights), the optimizer, the best weights so far, what was tried
and the history. Random state inside the model (dropout) is among its variables, and the order of the images is a
function of seed and epoch alone, so a resumed run takes the same steps as one that was never stopped. Of what is
finished only the best weights are kept, and a finished run keeps those: whatever else its folder loses is made from
them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import keras
import msgspec
import numpy as np

from multitl.contracts import Peers
from multitl.errors import RunError
from multitl.files.sealed_arrays import DamagedError, cannot_read, read_sealed, write_sealed
from multitl.system.messages import warn
from multitl.system.writing import cannot_write

CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint-previous.safetensors"
OLDER = "checkpoint.npz"  # of multitl 0.1
ARRAYS = ("variables", "optimizer", "best", "head", "scores")

PhaseName = Literal["head", "finetune"]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Amount = Annotated[float, msgspec.Meta(ge=0)]


class Row(TypedDict):
    """A line of history.csv. trial: 0 for the head.  step: steps of this trial, or of the head, so far."""

    phase: PhaseName
    trial: Count
    step: Count
    loss: float
    accuracy: Amount
    val_loss: float
    val_accuracy: Amount
    learning_rate: Amount
    seconds: Amount


class Trial(TypedDict):
    """One way to fine-tune. unfreeze: as in a recipe.  left_out: of the steps, for want of time."""

    unfreeze: str
    learning_rate: Amount
    steps: Count
    left_out: Count


Outcome = Literal["better", "no worse", "within noise", "worse", "diverged", "out of time"]
WON = ("better", "no worse")  # outcomes of a trial that takes the place of the best before it


class TriedHead(TypedDict):
    """What one of several heads gave."""

    temperature: Amount
    val_loss: float
    val_accuracy: Amount


class TriedOut(Trial):
    """What it gave, on the validation images.

    temperature: that its logits are divided by; of several heads each has its own.  gain: by how much its Brier score
    is lower than that of the best before it, and noise: that difference's standard error; None where nothing was
    compared.  heads: by name, where there are several.
    """

    outcome: Outcome
    seconds: Amount
    temperature: float | None
    val_loss: float | None
    val_accuracy: float | None
    gain: float | None
    noise: float | None
    heads: NotRequired[dict[str, TriedHead]]


@dataclass
class TrainingState:
    """Where a run stands. `rows` are the lines of history.csv; `best` are the weights of the best trial so far."""

    phase: PhaseName = "head"
    step: int = 0  # of the head's training or of the trial that runs
    finished: bool = False  # the head's training, or all trials
    best_loss: float | None = None
    waited: int = 0  # epochs since the best one of the head
    kept: int = 0  # the trial that `best` and `scores` belong to; 0: the head
    budget_steps: int | None = None  # that all trials together may take; None: not known yet
    seconds: float = 0.0  # of all processes that worked on this run
    trial: Trial | None = None  # the one that runs
    tried: list[TriedOut] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    variables: list[np.ndarray] = field(default_factory=list)
    optimizer: list[np.ndarray] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)
    head: list[np.ndarray] = field(default_factory=list)  # the best one on the frozen backbone, where trials start
    scores: list[np.ndarray] = field(default_factory=list)  # one array: the best one's Brier score of each image


class _About(msgspec.Struct, forbid_unknown_fields=True):
    """What a checkpoint says besides its arrays: as in TrainingState, but anybody may have written it."""

    phase: PhaseName
    step: Count
    finished: bool
    best_loss: float | None
    waited: Count
    kept: Count
    budget_steps: Count | None
    seconds: Amount
    trial: Trial | None
    tried: list[TriedOut]
    rows: list[Row]
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
        except (OSError, MemoryError) as error:
            raise cannot_read(f"The checkpoint {path}", error, "then go on with --resume") from error
        if reasons:
            warn(f"{paths[0]} is damaged: going on from the epoch before it.")
            paths[0].unlink()  # it must not take the place of the good one
        return state
    raise RunError(
        f"The checkpoint {paths[0]} is damaged.",
        expected="the file that training left",
        received="; ".join(reasons),
        fix="start again with --overwrite; stored features are kept",
    )


def share_state(peers: Peers, load: Callable[[], TrainingState]) -> TrainingState:
    """What `load` gives on rank 0, for all."""
    state = load() if peers.rank == 0 else TrainingState()
    told = {name: getattr(state, name) for name in _About.__struct_fields__}
    lengths = peers.first(lambda: [len(getattr(state, name)) for name in ARRAYS])
    arrays = iter(peers.broadcast_arrays([array for name in ARRAYS for array in getattr(state, name)]))
    listed: dict[str, Any] = {name: [next(arrays) for _ in range(n)] for name, n in zip(ARRAYS, lengths, strict=True)}
    return TrainingState(**peers.first(lambda: told), **listed)


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
    if about.kept > len(about.tried):
        raise DamagedError(f"it keeps trial {about.kept} of {len(about.tried)}")
    listed: dict[str, Any] = {name: _listed(arrays, name) for name in ARRAYS}
    if arrays:
        raise DamagedError(f"nobody knows what {next(iter(arrays))[:80]!r} in it is")
    if not all(np.isfinite(array).all() for name in ARRAYS if name != "optimizer" for array in listed[name]):
        raise DamagedError("not all of its weights are finite")
    return TrainingState(**msgspec.structs.asdict(about), **listed)


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
