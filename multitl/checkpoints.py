"""The state of an interrupted run: one file, replaced atomically at the end of every epoch.

It holds what may change during training (never frozen weights), the optimizer, the best weights so far and the
history. Random state inside the model (dropout, augmentation) is among its variables, and the order of the images is a
function of seed and epoch alone, so a resumed run takes the same steps as one that was never stopped.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from multitl.errors import RunError
from multitl.runs import atomic_write


@dataclass
class TrainingState:
    """Where a run stands. phase_epoch counts finished epochs of `phase`; `rows` are the lines of history.csv."""

    phase: str = "head"
    phase_epoch: int = 0
    finished: bool = False  # of this phase: by its last epoch or by early stopping
    best_loss: float | None = None
    waited: int = 0  # epochs since the best
    rows: list[dict[str, Any]] = field(default_factory=list)
    variables: list[np.ndarray] = field(default_factory=list)
    optimizer: list[np.ndarray] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)


ARRAYS = ("variables", "optimizer", "best")


def save_state(path: Path, state: TrainingState) -> None:
    """Write the state; nothing of an older one is lost if this is interrupted."""
    meta = {name: value for name, value in asdict(state).items() if name not in ARRAYS}
    arrays = {f"{name}/{i}": array for name in ARRAYS for i, array in enumerate(getattr(state, name))}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, meta=np.array(json.dumps(meta)), **arrays)


def load_state(path: Path) -> TrainingState:
    """Read the state, or a fresh one if there is none. Never unpickles. Raises RunError for a damaged file."""
    if not path.exists():
        return TrainingState()
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            state = TrainingState(**json.loads(str(file["meta"])))
            for name in ARRAYS:
                count = sum(key.startswith(f"{name}/") for key in file.files)
                setattr(state, name, [file[f"{name}/{i}"] for i in range(count)])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise RunError(
            f"The checkpoint {path} is damaged.",
            expected="the file that an interrupted run left",
            received=str(error),
            fix="start again with --overwrite; stored features are kept",
        ) from error
    return state


def read_variables(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Copies of the values."""
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def write_variables(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    """Assign the values. Raises RunError if they were made by another model."""
    shapes, given = [tuple(v.shape) for v in variables], [value.shape for value in values]
    if shapes != given:
        raise RunError(
            "The checkpoint belongs to another model.",
            expected=f"{len(shapes)} arrays of this model's shapes",
            received=f"{len(given)} arrays",
            fix="start again with --overwrite",
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
