"""TensorBoard logs without TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")


class EpochLog:
    """Appends one epoch's figures to RUN/tensorboard, for `tensorboard --logdir RUN`."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def add(self, row: dict[str, Any]) -> None:
        """row: a line of history.csv."""
        for name in FIGURES:
            self._writer.add_scalar(name, row[name], row["epoch"])
        self._writer.flush()
