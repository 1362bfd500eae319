"""history.csv of a run, for those who show it."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from multitl.errors import RunError
from multitl.system.regular_files import read_regular_text

MEND = "finish the run with --resume, or start it again with --overwrite"
HISTORY_FIGURES = ("loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class History:
    """history.csv, a value for each time that training was judged.

    phases: "head" or "finetune".  trials: 0 for the head.  steps: of that trial, so far.  figures: by name; nan where
    there is none.
    """

    phases: tuple[str, ...]
    trials: tuple[int, ...]
    steps: tuple[int, ...]
    figures: dict[str, list[float]]

    def of(self, trials: Collection[int]) -> History:
        """The lines of these trials."""
        chosen = [index for index, trial in enumerate(self.trials) if trial in trials]
        return History(
            tuple(self.phases[index] for index in chosen),
            tuple(self.trials[index] for index in chosen),
            tuple(self.steps[index] for index in chosen),
            {name: [values[index] for index in chosen] for name, values in self.figures.items()},
        )


def read_history(path: Path) -> History:
    """Read history.csv. Raises RunError if it is missing or damaged."""
    try:
        reader = csv.DictReader(io.StringIO(read_regular_text(path), newline=""))
        rows, columns = list(reader), reader.fieldnames or []
        if "phase" not in columns or any(None in row.values() for row in rows):
            raise ValueError("a line or the header is cut off")
        figures = {name: [float(row[name]) for row in rows] for name in HISTORY_FIGURES}
        trials, steps = (tuple(int(row[name]) for row in rows) for name in ("trial", "step"))
        return History(tuple(row["phase"] for row in rows), trials, steps, figures)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(
            f"Cannot read {path}.", expected="the file that training wrote", received=repr(error), fix=MEND
        ) from error
