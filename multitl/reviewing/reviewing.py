"""`multitl review`: what may be wrong with the data of a run, found without training anything.

Everything rests on the features of all images by the run's own backbone; most of them are stored.
"""

from __future__ import annotations

import datetime
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitl.contracts import SPLITS, Backend
from multitl.judging.opening import Run
from multitl.reviewing.answers import unseen_answers
from multitl.reviewing.asked import SUMMARY, check_review_folder, review_folder
from multitl.reviewing.issues import ISSUES, KINDS, Issue, absolute, by_importance, label_of, undecided, write_issues
from multitl.reviewing.label_errors import find_label_errors
from multitl.reviewing.subjects import Subject, open_subject
from multitl.runs.images import content_of
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
            issues = undecided(by_importance(_find(subject)), subject.dataset, subject.recipe.relabel)
        folder.mkdir(parents=True, exist_ok=True)
        write_issues(folder, issues, subject.dataset)
        about = _describe(subject, issues)
        write_json(folder / SUMMARY, about)
    return Review(folder, tuple(about["issues"]), about)


def _find(subject: Subject) -> Iterator[Issue]:
    if subject.recipe.labels == "one":
        yield from _label_errors(subject)


def _label_errors(subject: Subject) -> Iterator[Issue]:
    """Training and validation images by answers out of fold, test images by a fit to all of those, each judged among
    its own kind: the latter has seen more images, and is surer."""
    dataset, recipe = subject.dataset, subject.recipe
    own, others = subject.rows("train", "validation"), subject.rows("test")
    task = task_of([chosen(subject.features, own)], ("train", "validation"), dataset, recipe)
    answers = unseen_answers(task, chosen(subject.features, others))
    if answers is None:
        return
    for rows, probabilities, splits in zip((own, others), answers, (SPLITS[:2], SPLITS[2:]), strict=True):
        if not rows:
            continue
        found = find_label_errors(probabilities, truth_of(dataset, recipe, *splits))
        for row, suggested, score in zip(found.rows, found.suggested, found.score, strict=True):
            yield Issue("label", rows[row], float(score), dataset.class_names[suggested])


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
        "issues": [_as_dict(one, subject) for one in issues],
    }


def _as_dict(one: Issue, subject: Subject) -> dict[str, Any]:
    dataset, image = subject.dataset, subject.dataset.examples[one.image]
    other = None if one.other is None else dataset.examples[one.other]
    return {
        "path": absolute(image.path),
        "label": label_of(image, dataset.class_names),
        "part": image.split,
        "issue": one.kind,
        "suggested": one.suggested,
        "score": round(one.score, 4),
        "other": other and {
            "path": absolute(other.path), "label": label_of(other, dataset.class_names), "part": other.split,
        },
        "sha256": content_of(image.sha256),
    }  # fmt: skip
