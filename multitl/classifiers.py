"""What `multitl.load` gives: a run as an object, whose methods are multitl's functions with the run filled in."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import multitl
from multitl.adapters import load_backend
from multitl.contracts import Split
from multitl.errors import RunError
from multitl.judging import summaries
from multitl.judging.opening import Run, load_run
from multitl.runs.cards import Card

if TYPE_CHECKING:
    import keras

    from multitl.porting.exporting import Ported

REPORT = "report.html"


@dataclass(frozen=True, eq=False, repr=False)
class Classifier:
    """A finished run, or a translated network, ready to be used. Its model is loaded once, when it is first needed.

    backend: "jax", "tensorflow" or "torch"; None for the one that `multitl.finetune` would take.
    """

    run: Run
    backend: str | None = None

    @property
    def folder(self) -> Path:
        return self.run.folder

    @property
    def card(self) -> Card:
        """card.json: what the model is made of and how; checked, read-only."""
        return self.run.card

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the model's outputs."""
        return self.card.class_names

    @cached_property
    def metrics(self) -> dict[str, Any] | None:
        """metrics.json: by split the figures that `multitl.evaluate` gives; None of a network not trained here."""
        return summaries.read_figures(self.run)

    @property
    def model(self) -> keras.Model:
        """uint8 pixels (n, h, w, 3) -> probabilities (n, k). Raises RunError for a damaged file."""
        load_backend(self.backend)
        return self.run.model

    def predict(self, images: Any, *, costs: str | os.PathLike[str] = "") -> list[dict[str, Any]]:
        """See `multitl.predict`."""
        return multitl.predict(self.run, images, backend=self.backend, costs=costs)

    def evaluate(
        self, data: Any, *, split: Split = "test", images: str | os.PathLike[str] = "",
        path_column: str = "", label_column: str = "", costs: str | os.PathLike[str] = "",
        max_unreadable: float | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """See `multitl.evaluate`."""
        return multitl.evaluate(
            self.run, data, split=split, backend=self.backend, images=images, path_column=path_column,
            label_column=label_column, costs=costs, max_unreadable=max_unreadable,
        )  # fmt: skip

    def explain(
        self, images: Any, *, classes: Iterable[str] = (), true: str = "", output: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """See `multitl.explain`."""
        return multitl.explain(
            self.run, images, classes=classes, true=true, output=output, backend=self.backend, overwrite=overwrite
        )

    def port(
        self, to: str, output: str | os.PathLike[str] | None = None, *, images: str | os.PathLike[str] | None = None,
        calibration: str | os.PathLike[str] | None = None, preprocess: bool = True, explain: bool = False,
        unknown: bool = False, overwrite: bool = False,
    ) -> Ported:  # fmt: skip
        """See `multitl.port`."""
        return multitl.port(
            self.folder, to, output, images=images, calibration=calibration, preprocess=preprocess,
            explain=explain, unknown=unknown, backend=self.backend, overwrite=overwrite,
        )  # fmt: skip

    def report(self) -> Path:
        """The page that shows how good the run is. Raises RunError where there is none."""
        page = self.folder / REPORT
        if not page.is_file():
            raise RunError(
                f"{self.folder} has no report.",
                expected=str(page),
                received="a network that was not trained here" if self.card.head else "no such file",
                fix="multitl finetune DATA; of a run that lost it, the same command again with --resume",
            )
        return page

    def __repr__(self) -> str:
        return summaries.summarise(self.run, self.metrics)

    def _repr_html_(self) -> str:
        return summaries.summarise_as_html(self.run, self.metrics)


def load(folder: str | os.PathLike[str], backend: str | None) -> Classifier:
    """See `multitl.load`."""
    classifier = Classifier(load_run(folder), backend)
    _ = classifier.metrics  # damaged ones are found here, and not by who looks at the object
    return classifier
