"""`multitl review`: what may be wrong with the data of a run, found without training anything.

Everything rests on the features of all images by the run's own backbone, most of which are stored, on what a head says
of images that it has not seen, and on one look at each file.
"""

from __future__ import annotations

import datetime
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multitl.contracts import SPLITS, Backend
from multitl.judging.opening import Run
from multitl.reviewing import weaknesses
from multitl.reviewing.answers import unseen_answers
from multitl.reviewing.asked import SUMMARY, check_review_folder, review_folder
from multitl.reviewing.copies import ALIKE, ALIKE_TINY, NEAREST, copy_issues, pairs_of, verify
from multitl.reviewing.issues import ISSUES, KINDS, Issue, as_dict, by_importance, undecided, write_issues
from multitl.reviewing.label_errors import find_label_errors
from multitl.reviewing.looks import Looks, look_at
from multitl.reviewing.neighbours import Neighbours, centre_of, nearest
from multitl.reviewing.outliers import NEIGHBOURS, find_outliers
from multitl.reviewing.page import PAGE, write_page
from multitl.reviewing.subjects import Subject, open_subject
from multitl.runs.locks import locked, run_lock
from multitl.system.writing import write_json
from multitl.training.feature_rows import chosen
from multitl.training.heads import task_of
from multitl.training.sessions import session
from multitl.training.targets import truth_of
from multitl.version import __version__


@dataclass(frozen=True)
class Review:
    """issues: the most important first, as in issues.csv.  about: what review.json holds."""

    output: Path
    issues: tuple[dict[str, Any], ...]
    about: dict[str, Any]

    @property
    def table(self) -> Path:
        """Where verdicts are to be written."""
        return self.output / ISSUES

    @property
    def page(self) -> Path:
        return self.output / PAGE


def review(
    run: Run, data: str | os.PathLike[str] | None, *, backend: Backend, output: str | os.PathLike[str] | None,
    overwrite: bool,
) -> Review:  # fmt: skip
    """See `multitl.review`."""
    folder = review_folder(run, output)
    with locked(run_lock(folder), folder):
        check_review_folder(folder, overwrite=overwrite)
        with session(run.card.recipe, backend):
            subject = open_subject(run, data, backend)
        about, issues = _look_through(subject)
        folder.mkdir(parents=True, exist_ok=True)
        write_issues(folder, issues, subject.dataset, subject.recipe.relabel)
        write_page(folder, about, subject.recipe.decoding)
        write_json(folder / SUMMARY, about)
    return Review(folder, tuple(about["issues"]), about)


def _look_through(subject: Subject) -> tuple[dict[str, Any], list[Issue]]:
    """What review.json holds, and the issues."""
    neighbours = nearest(subject.features, subject.features, NEIGHBOURS, centre_of(subject.features))
    candidates = pairs_of(Neighbours(neighbours.cosines[:, :NEAREST], neighbours.places[:, :NEAREST]), ALIKE)
    looks = look_at(subject.paths, subject.recipe.decoding, {image for pair in candidates for image in pair})
    found = [*_copies(subject, looks, candidates), *find_outliers(neighbours)]
    about: dict[str, Any] = {"overlaps": [], "slices": [], "slices_looked_at": 0}
    if subject.recipe.labels == "one" and (probabilities := _answers(subject)) is not None:
        labels = truth_of(subject.dataset, subject.recipe, *SPLITS)
        predicted = probabilities.argmax(axis=1)
        found += _label_errors(subject, probabilities, labels)
        classes = [subject.dataset.class_names[label] for label in labels]
        slices, count = weaknesses.find_slices(
            predicted == labels, looks, subject.features, classes, subject.recipe.seed
        )
        overlaps = weaknesses.find_overlaps(predicted, labels, subject.dataset.class_names)
        about = weaknesses.describe(overlaps, slices, count) | {"accuracy": float((predicted == labels).mean())}
    issues = undecided(by_importance(found), subject.dataset, subject.recipe.relabel)
    return _describe(subject, issues) | about, issues


def _copies(subject: Subject, looks: Looks, candidates: set[tuple[int, int]]) -> list[Issue]:
    """Tiny pictures tell of more candidates than features did, which are then looked at as well."""
    pairs = candidates | pairs_of(nearest(looks.tiny, looks.tiny, NEAREST), ALIKE_TINY)
    more = sorted({image for pair in pairs for image in pair} - looks.grey.keys())
    also = look_at([subject.paths[image] for image in more], subject.recipe.decoding, range(len(more))).grey
    grey = looks.grey | {more[place]: picture for place, picture in also.items()}
    return copy_issues(verify(pairs, grey), subject.dataset)


def _answers(subject: Subject) -> np.ndarray | None:
    """Probabilities of every image (n, classes) by models that have not seen it; None for too few."""
    own, others = subject.rows("train", "validation"), subject.rows("test")
    task = task_of([chosen(subject.features, own)], ("train", "validation"), subject.dataset, subject.recipe)
    answers = unseen_answers(task, chosen(subject.features, others))
    return None if answers is None else np.concatenate(answers)


def _label_errors(subject: Subject, probabilities: np.ndarray, labels: np.ndarray) -> Iterator[Issue]:
    """Test images are judged among themselves: who answers has seen more images, and is surer."""
    for rows in (subject.rows("train", "validation"), subject.rows("test")):
        found = find_label_errors(probabilities[rows], labels[rows])
        for row, suggested, score in zip(found.rows, found.suggested, found.score, strict=True):
            yield Issue("label", rows[row], float(score), subject.dataset.class_names[suggested])


def _describe(subject: Subject, issues: list[Issue]) -> dict[str, Any]:
    dataset, counts = subject.dataset, Counter(one.kind for one in issues)
    return {
        "multitl": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "run": str(subject.run.folder.resolve()),
        "data": str(Path(dataset.root).resolve()),
        "fingerprint": dataset.fingerprint,
        "class_names": list(dataset.class_names),
        "images": {split: len(dataset.split(split)) for split in SPLITS},
        "counts": {kind: counts[kind] for kind in KINDS},
        "issues": [as_dict(one, dataset) for one in issues],
    }
