"""issues.csv: a row for each thing that may be wrong with an image, with an empty cell for a person's verdict.

multitl/verdicts.py reads the file back. Cells are harmless to spreadsheets (csv_cells.py).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from multitl.contracts import Dataset, Example
from multitl.files.csv_cells import original, write_row
from multitl.runs.images import BETWEEN, content_of
from multitl.system.writing import write_text
from multitl.verdicts import KEEP, PREFIX, parse_verdicts

ISSUES = "issues.csv"
COLUMNS = ("path", "label", "part", "issue", "suggested", "score", "other", "verdict", "sha256")
Kind = Literal["copy across parts", "label", "copy", "outlier"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # in the order in which they should be looked at


@dataclass(frozen=True)
class Issue:
    """image: index of the example.  other: of the image that it is a copy of.  suggested: a verdict, "" for none.

    score: of a label see `label_errors.Suspects`; of a copy `copies.Likeness.details`; of an outlier see
    outliers.py. The higher, the surer.
    """

    kind: Kind
    image: int
    score: float
    suggested: str = ""
    other: int | None = None


def by_importance(issues: Iterable[Issue]) -> list[Issue]:
    """Kind by kind, the surest of each first."""
    return sorted(issues, key=lambda one: (KINDS.index(one.kind), -one.score, one.image))


def undecided(issues: Iterable[Issue], dataset: Dataset, relabel: str) -> list[Issue]:
    """Without those of which the run's own verdicts say that they are none."""
    kept = {(one.content, one.issue) for one in parse_verdicts(relabel) if one.verdict.lower() == KEEP}
    return [one for one in issues if (content_of(dataset.examples[one.image].sha256), one.kind) not in kept]


def write_issues(folder: Path, issues: Sequence[Issue], dataset: Dataset, relabel: str) -> None:
    """Paths become absolute, so that the file means the same from any working directory.

    relabel: the run's own verdicts, which come last, so that whoever goes by the new table goes by these as well.
    """
    text = io.StringIO()
    write_row(text, COLUMNS)
    for one in issues:
        image = dataset.examples[one.image]
        other = "" if one.other is None else absolute(dataset.examples[one.other].path)
        write_row(
            text,
            [
                absolute(image.path), label_of(image, dataset.class_names), image.split, one.kind, one.suggested,
                f"{one.score:.4f}", other, "", PREFIX + content_of(image.sha256),
            ],
        )  # fmt: skip
    for path, issue, verdict, content in parse_verdicts(relabel):
        write_row(text, [original(path), "", "", issue, "", "", "", original(verdict), PREFIX + content])
    write_text(folder / ISSUES, text.getvalue())


def label_of(image: Example, class_names: Sequence[str]) -> str:
    """For people: a class, labels, or a number."""
    if isinstance(image.label, float):
        return f"{image.label:g}"
    return BETWEEN.join(class_names[label] for label in image.labels)


def absolute(path: str) -> str:
    """Folders are resolved; the image itself keeps its name, also if it is a link."""
    return str(Path(path).parent.resolve() / Path(path).name)


def as_dict(one: Issue, dataset: Dataset) -> dict[str, Any]:
    """For review.json."""
    image = dataset.examples[one.image]
    other = None if one.other is None else dataset.examples[one.other]
    return {
        "path": absolute(image.path),
        "label": label_of(image, dataset.class_names),
        "part": image.split,
        "issue": one.kind,
        "suggested": one.suggested,
        "score": round(one.score, 4),
        "other": other
        and {"path": absolute(other.path), "label": label_of(other, dataset.class_names), "part": other.split},
        "sha256": content_of(image.sha256),
    }
