"""Verdicts on images (verdicts.py) brought to a data set: what is removed, and what is of another class.

An image is known by its content, wherever its file lies by now. Of copies that share it, the one is meant whose path is
most like that in the table. Parts are cut before, so the others stay in the parts that they would be in without.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from multitl.data.listings import Record
from multitl.errors import DataError, RecipeError, nearest_names, shorten
from multitl.files.csv_cells import original
from multitl.runs.images import content_of
from multitl.verdicts import KEEP, REMOVE, Verdict, parse_verdicts

Image = tuple[str, str]  # content, path
LEAVE_OUT = "leave out --relabel"


def check_relabelling(text: str, class_names: Sequence[str], labels: str) -> None:
    """Raises RecipeError for verdicts that are no class of these data, and for two that exclude each other."""
    _decide(text, class_names, labels)


def relabelled(
    records: Sequence[Record], hashes: Mapping[str, str], text: str, class_names: Sequence[str]
) -> tuple[list[Record], list[str]]:
    """The records as decided, and what became of them in words. hashes: path -> sha256.

    Raises DataError where none of the images is here.
    """
    decided = _decide(text, class_names, "one" if any(isinstance(one.label, str) for one in records) else "several")
    rows = defaultdict[str, list[int]](list)
    for row, record in enumerate(records):
        rows[content_of(hashes[record.path])].append(row)
    found = {_meant(rows[content], path, records): verdict for (content, path), verdict in decided.items()
             if content in rows}  # fmt: skip
    if not found:
        raise DataError(
            "None of the images with verdicts is among these.",
            expected="the images that were reviewed, under any names",
            received=shorten(path for _, path in decided),
            fix=LEAVE_OUT,
        )
    kept = [
        record if found.get(row, KEEP) == KEEP else replace(record, label=found[row])
        for row, record in enumerate(records)
        if found.get(row) != REMOVE
    ]
    return kept, [_in_words(found, records, len(decided) - len(found))]


def _in_words(found: Mapping[int, str], records: Sequence[Record], missing: int) -> str:
    counts = Counter(verdict if verdict in (KEEP, REMOVE) else "another" for verdict in found.values())
    same = sum(records[row].label == verdict for row, verdict in found.items())
    text = (
        f"Verdicts: {counts['another'] - same} images got another class, {counts[REMOVE]} were removed, "
        f"{counts[KEEP] + same} stayed as they are"
    )
    return f"{text}; {missing} are not among these images." if missing else f"{text}."


def _decide(text: str, class_names: Sequence[str], labels: str) -> dict[Image, str]:
    """keep, remove or a class for each image."""
    if odd := [name for name in class_names if name.lower() in (KEEP, REMOVE)]:
        raise _bad(f"A class cannot be called {odd[0]} where there are verdicts.", odd[0], "another name of the class")
    by_image = defaultdict[Image, set[str]](set)
    for one in parse_verdicts(text):
        by_image[one.content, original(one.path)].add(_named(one, class_names, labels))
    decided: dict[Image, str] = {}
    for image, verdicts in by_image.items():
        others = sorted(verdicts - {KEEP})  # keep says that one issue is none
        if len(others) > 1:
            raise _bad("There are two verdicts on one image that exclude each other.", f"{image[1]}: {others}")
        decided[image] = (others or [KEEP])[0]
    return decided


def _named(one: Verdict, class_names: Sequence[str], labels: str) -> str:
    """The verdict, checked."""
    plain = original(one.verdict)
    if plain.lower() in (KEEP, REMOVE):
        return plain.lower()
    if labels != "one":
        raise _bad("A class is a verdict on images of one class each.", plain, f"{KEEP} or {REMOVE}")
    if plain not in class_names:
        expected = f"{KEEP}, {REMOVE}, or one of {shorten(class_names, most=20)}"
        raise _bad(
            f"The verdict on {original(one.path)} is no class of these data.", plain, expected,
            nearest_names(plain, [*class_names, KEEP, REMOVE]),
        )  # fmt: skip
    return plain


def _meant(rows: Sequence[int], path: str, records: Sequence[Record]) -> int:
    """The image whose path ends most like that one."""
    return max(rows, key=lambda row: (_common_end(records[row].path, path), -row))


def _common_end(one: str, other: str) -> int:
    """How many parts are equal, from the last on."""
    count = 0
    for left, right in zip(reversed(PurePath(one).parts), reversed(PurePath(other).parts), strict=False):
        if left != right:
            break
        count += 1
    return count


def _bad(
    problem: str, received: str, expected: str = "one verdict an image", nearest: Iterable[str] = ()
) -> RecipeError:
    return RecipeError(
        problem, expected=expected, received=f"relabel: {received[:200]}", nearest=nearest,
        fix=f"mend the column verdict of the file that --relabel names, or {LEAVE_OUT}",
    )  # fmt: skip
