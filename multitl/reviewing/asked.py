"""What `review` is asked for: which run, which folder; and what of it is refused at once, before a framework loads."""

from __future__ import annotations

import os
from pathlib import Path

from multitl.data.scanning import check_for_training
from multitl.data.unlabelled import check_unlabelled
from multitl.errors import RunError
from multitl.judging.opening import Run, load_run
from multitl.reviewing.issues import ISSUES
from multitl.runs.folders import beside, check_results_folder

SUMMARY = "review.json"


def find_data(run: Run, data: str | os.PathLike[str] | None) -> Path:
    """The data that a run was made of, where they lie now. Raises RunError for a network that was not trained here."""
    if run.card.head or not (data or run.card.data.path):
        raise RunError(
            f"{run.folder} is a network as it was published: it was made of no images that are here.",
            expected="the folder of a finished run",
            received=str(run.folder),
            fix="multitl finetune DATA",
        )
    if not data and "://" not in run.card.data.path and not os.path.lexists(run.card.data.path):
        raise RunError(
            f"The images of {run.folder} are no longer where they were.",
            expected=f"them at {run.card.data.path}",
            received="no such file or folder",
            fix="say where they are: --data DATA",
        )
    return Path(data or run.card.data.path)


def check_review(
    run: str | os.PathLike[str], data: str | os.PathLike[str] | None, output: str | os.PathLike[str] | None, *,
    overwrite: bool,
) -> Run:  # fmt: skip
    """The run, opened. Raises what `review` would, as far as names tell."""
    opened = load_run(run)
    check_review_folder(review_folder(opened, output), overwrite=overwrite)
    check_for_training(find_data(opened, data), opened.card.recipe)
    return opened


def check_drift(
    run: str | os.PathLike[str], images: str | os.PathLike[str], data: str | os.PathLike[str] | None
) -> Run:
    """Likewise of `drift`."""
    opened = load_run(run)
    check_for_training(find_data(opened, data), opened.card.recipe)
    check_unlabelled(os.fspath(images), option="")
    return opened


def review_folder(run: str | os.PathLike[str], output: str | os.PathLike[str] | None) -> Path:
    """The one asked for, or one beside the run."""
    return Path(output) if output else beside(run, "review")


def check_review_folder(folder: Path, *, overwrite: bool) -> None:
    """Raises RunError for a folder that holds anything but an older review, which `overwrite` allows to replace."""
    check_results_folder(
        folder, SUMMARY, "review", overwrite=overwrite, received=f"{folder}, perhaps with verdicts in its {ISSUES}",
        fix="add --overwrite to replace it, verdicts included, or choose another --out",
    )  # fmt: skip
