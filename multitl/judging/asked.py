"""What `multitl explain` is asked for: looked at by names alone, before a framework is loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitl.contracts import VALUE
from multitl.data.scanning import list_images, scan_for_evaluation
from multitl.data.tables import AS_USUAL, TABLE_SUFFIXES
from multitl.errors import DataError, RunError, nearest_names
from multitl.judging.opening import Run, load_run
from multitl.system import scratch

EXPLANATIONS = "explanations.json"
OWN_FILES = re.compile(r"explanations\.json|\d{4,}-.*\.png")
LEFT_BY_SYSTEMS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # where a folder was looked at


@dataclass(frozen=True, eq=False)
class Request:
    """labels: of each image the places of its true classes, () where nobody knows.  classes: places of those asked
    for.  names: path -> what to call it, where that is something else.
    """

    run: Run
    paths: Sequence[str]
    labels: Sequence[tuple[int, ...]]
    classes: tuple[int, ...]
    names: Mapping[str, str]


def explanation_request(
    run: str | os.PathLike[str],
    images: Any,
    classes: Sequence[str] = (),
    true: str = "",
    names: Mapping[str, str] = {},
) -> Request:
    """Raises what `multitl.explain` would, as far as names tell.

    images: paths; the label of one in a folder that is called as a class is that class; of a table, what it says.
    true: the class of all of them.
    """
    opened = load_run(run)
    if not opened.card.class_names:
        raise RunError(
            f"{opened.folder} says nothing that could be explained.",
            expected="the folder of a run, or of a network with its classifier",
            received="a network without a classifier",
            fix="multitl finetune DATA --backbone " + opened.card.backbone.name,
        )
    known = opened.card.class_names
    asked, all_true = tuple(_place(name, known) for name in classes), (_place(true, known),) if true else ()
    if _is_table(images):
        paths, labels = _from_table(opened, images)
    else:
        paths = list_images(images)
        labels = [_by_folder(path, known) for path in paths]
    return Request(opened, paths, [all_true] * len(paths) if all_true else labels, asked, names)


def check_folder_for_explanations(output: Path, *, overwrite: bool) -> None:
    """Raises RunError for a folder that is there, unless it holds nothing but earlier explanations to be replaced."""
    if not os.path.lexists(output):
        return
    names = [path.name for path in output.iterdir()] if output.is_dir() else [""]
    is_own = all(OWN_FILES.fullmatch(name) or name in LEFT_BY_SYSTEMS or scratch.NAME.fullmatch(name) for name in names)
    if is_own and overwrite:
        return
    raise RunError(
        f"{output} exists already.",
        expected="a new folder" + (", or permission" if is_own else ""),
        received=f"{output}: {'earlier explanations' if is_own else 'something else, which is left alone'}",
        fix="add --overwrite to replace it, or choose another --out" if is_own else "choose another --out",
    )


def _place(name: str, known: Sequence[str]) -> int:
    if name in known:
        return known.index(name)
    raise DataError(
        f"The run has no class {name!r}.",
        expected="a class of the run" if tuple(known) != (VALUE,) else f"{VALUE}, which is all that it says",
        received=name,
        nearest=nearest_names(name, known),
        fix="name one of " + ", ".join(known[:10]) + (", ..." if len(known) > 10 else ""),
    )


def _is_table(images: Any) -> bool:
    return isinstance(images, str | os.PathLike) and Path(images).suffix.lower() in TABLE_SUFFIXES


def _from_table(run: Run, table: str | os.PathLike[str]) -> tuple[list[str], list[tuple[int, ...]]]:
    found = scan_for_evaluation(
        table, run.card.class_names, max_unreadable=1.0,
        decoding=run.card.preprocess.decoding, reading=AS_USUAL.as_trained(run.card.recipe),
    )  # fmt: skip
    has_classes, lost = run.card.scale is None, [one.path for one in found.unreadable]  # each gets a row that says why
    labels = [one.labels if has_classes else () for one in found.examples]
    return [*(one.path for one in found.examples), *lost], [*labels, *[()] * len(lost)]


def _by_folder(path: str, known: Sequence[str]) -> tuple[int, ...]:
    name = Path(path).parent.name
    return (known.index(name),) if name in known else ()
