"""Who hears of each epoch: a function of the user's, and trackers.

They hear of a row once the checkpoint that holds it is written, in the pause between two legs: nothing waits for them
inside an epoch, and nothing that they do can cost what was trained. What `on_epoch` raises ends the run as Ctrl-C
would, and `resume` goes on: so a function can stop a run. What a tracker raises, when a network is gone for instance,
ends its record with a warning, and the run goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multitl.errors import RunError
from multitl.system.messages import warn
from multitl.training.checkpoints import Row
from multitl.training.trackers import FIXES, MLflow, Tracker, WandB, check_trackers

OnEpoch = Callable[[dict[str, Any]], object]


class Listeners:
    """Those of one run."""

    def __init__(self, on_epoch: OnEpoch | None) -> None:
        self._on_epoch, self._trackers = on_epoch, dict[str, Tracker]()
        self._told = 0
        self._figures: dict[str, float] | None = None

    def begin(self, name: str, folder: Path, about: Mapping[str, Any]) -> None:
        """Have a tracker keep a record. Raises RunError if it cannot."""
        try:
            self._trackers[name] = _open_tracker(name, folder, about)
        except Exception as error:  # a server that does not answer, a login that is missing, ...
            raise RunError(
                f"{name} cannot begin its record: {_first_line(error)}",
                expected="a tracker that takes what it is told",
                received=f"--log-to {name}",
                fix=FIXES[name],
            ) from error

    def catch_up(self, rows: Sequence[Row]) -> None:
        """Rows of an earlier process: `on_epoch` was told; the record of a tracker is a new one, and holds them too."""
        for number, row in enumerate(rows, start=1):
            self._track(number, row)
        self._told = len(rows)

    def hear(self, rows: Sequence[Row]) -> None:
        """Tell those of all rows so far that are new. Raises what `on_epoch` does; for StopIteration a RunError."""
        for number in range(self._told + 1, len(rows) + 1):
            self._told = number
            self._track(number, rows[number - 1])
            if self._on_epoch:
                self._tell(self._on_epoch, {"epoch": number, **rows[number - 1]})

    def _tell(self, on_epoch: OnEpoch, row: dict[str, Any]) -> None:
        try:
            on_epoch(row)
        except StopIteration as error:  # Python takes it for the end of whatever generator it comes through
            raise RunError(
                "on_epoch raised StopIteration, which stopped the run.",
                expected="a function that returns; or, to stop a run, an exception that does not end iterators",
                received=f"StopIteration at epoch {row['epoch']}",
                fix="raise KeyboardInterrupt() in its place; with resume=True the run goes on",
            ) from error

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """The run has come to its end. metrics: of each split, as metrics.json has them."""
        self._figures = figures_of(metrics)

    def close(self) -> None:
        for name, tracker in self._trackers.items():
            try:
                tracker.close(self._figures)
            except Exception as error:
                warn(f"the record of {name} was not closed: {_first_line(error)}")

    def _track(self, number: int, row: Row) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.add(number, row)
            except Exception as error:
                warn(f"{name} hears no more of this run: {_first_line(error)}")
                del self._trackers[name]
                with contextlib.suppress(Exception):
                    tracker.close(None)


@contextmanager
def listening(folder: Path, about: Mapping[str, Any], on_epoch: OnEpoch | None, log_to: str) -> Iterator[Listeners]:
    """The listeners of the run in `folder`; however it ends, their records are closed.

    about: its options.  log_to: names of trackers, a,b. Raises RunError for one that cannot begin.
    """
    listeners = Listeners(on_epoch)
    try:
        for name in check_trackers(log_to):
            listeners.begin(name, folder, about)
        yield listeners
    finally:
        listeners.close()


def _open_tracker(name: str, folder: Path, about: Mapping[str, Any]) -> Tracker:
    """Whatever it raises comes through."""
    if name == "mlflow":
        return MLflow(folder, about)
    if name == "wandb":
        return WandB(folder, about)
    from multitl.training.logs import EpochLog

    return EpochLog(folder)


def figures_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of each split that there is, as "test_accuracy"."""
    return {
        f"{split}_{name}": float(value)
        for split, figures in metrics.items()
        for name, value in (figures or {}).items()
        if isinstance(value, (int, float))
    }


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
