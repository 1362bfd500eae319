"""Programs that keep records of runs, of which none is loaded unless asked for: TensorBoard, MLflow, Weights & Biases.

Where a record goes is told to each in its own way: MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT and
WANDB_MODE; TensorBoard's is RUN/tensorboard.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from multitl.errors import RecipeError, nearest_names

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
FIXES = {  # where one cannot begin
    "tensorboard": "free some space, or choose another folder with --out",
    "mlflow": "set MLFLOW_TRACKING_URI to a server that answers, such as sqlite:///mlflow.db for a file",
    "wandb": "wandb login; or WANDB_MODE=offline, and later wandb sync",
}
FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")  # of a row, that make curves


class Tracker(Protocol):
    """The record of one run."""

    def add(self, number: int, row: Mapping[str, Any]) -> None:
        """row: the line of this number, from 1, of history.csv."""

    def close(self, figures: Mapping[str, float] | None) -> None:
        """figures: what the finished run gave, by name; None if it did not come to its end."""


def check_trackers(log_to: str) -> list[str]:
    """The trackers in "a,b", installed all of them. Raises RecipeError, and loads nothing."""
    names = [name.strip() for name in str(log_to).split(",")] if log_to else []
    for name in names:
        if name not in PACKAGES:
            raise RecipeError(
                f"Epochs cannot be logged to {name!r}.",
                expected=f"one or several of {', '.join(PACKAGES)}",
                received=f"log_to = {log_to}",
                nearest=nearest_names(name, PACKAGES),
                fix=f"--log-to {'|'.join(PACKAGES)}; your own function is on_epoch of multitl.finetune",
            )
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise RecipeError(
                f"{name} is not installed.",
                expected=f"the Python package {PACKAGES[name]}",
                received=f"--log-to {log_to}",
                fix=f"pip install 'multitl[{name}]'",
            )
    return names


class MLflow:
    """A run of MLflow, inside the one that is active, if there is one."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        import mlflow

        self._mlflow, is_nested = mlflow, mlflow.active_run() is not None
        mlflow.start_run(run_name=folder.name, nested=is_nested, tags={"multitl.run": str(folder.resolve())})
        mlflow.log_params(dict(about))

    def add(self, number: int, row: Mapping[str, Any]) -> None:
        self._mlflow.log_metrics({name: row[name] for name in FIGURES}, step=number)

    def close(self, figures: Mapping[str, float] | None) -> None:
        if figures is not None:
            self._mlflow.log_metrics(dict(figures))
        self._mlflow.end_run("KILLED" if figures is None else "FINISHED")


class WandB:
    """A run of Weights & Biases, beside whatever others the process has."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        import wandb

        config = {**about, "run_folder": str(folder.resolve())}
        self._run = wandb.init(name=folder.name, config=config, reinit="create_new")

    def add(self, number: int, row: Mapping[str, Any]) -> None:
        self._run.log({name: row[name] for name in FIGURES}, step=number)

    def close(self, figures: Mapping[str, float] | None) -> None:
        self._run.summary.update(dict(figures or {}))
        self._run.finish(exit_code=1 if figures is None else 0)
