"""What a run looked at, image by image: `multitl explain`. Writes a picture an image, and explanations.json."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multitl.contracts import VALUE, Unreadable
from multitl.data.pixels import read_files
from multitl.errors import DataError, RunError
from multitl.explaining.explainers import Explainer, Heatmap
from multitl.explaining.overlays import as_photo, overlay, side_by_side
from multitl.judging.asked import EXPLANATIONS, OWN_FILES, Request, check_folder_for_explanations
from multitl.judging.map_rows import in_json, map_row, roles_of, shown_places
from multitl.judging.opening import Run
from multitl.models.inference import BATCH
from multitl.system import interrupts
from multitl.system.progress import progress_bar
from multitl.system.scratch import temporary_folder
from multitl.system.writing import atomic_write, cannot_write, write_json

_LONGEST = 60  # characters of an image's name in that of its picture


def explain_images(request: Request, output: Path | None, *, overwrite: bool) -> list[dict[str, Any]]:
    """See `multitl.explain`. Raises DataError if none of the images can be read, RunError for a network without a map
    of features.
    """
    run, rows = request.run, list[dict[str, Any]]()
    explainer = insist_on_map(run.explainer, run)
    with _staged(output and output.resolve(), overwrite=overwrite) as folder:
        _explain_all(request, explainer, folder, rows)
        if all("error" in row for row in rows):
            raise DataError(
                "None of the images can be read.",
                expected="at least one image file",
                received="; ".join(f"{row['path']}: {row['error']}" for row in rows[:3]),
                fix="name files that an image viewer opens, or a folder of them",
            )
        if folder:
            write_json(folder / EXPLANATIONS, {"run": str(run.folder), "images": [_as_json(row) for row in rows]})
    return rows


def _explain_all(request: Request, explainer: Explainer, output: Path | None, rows: list[dict[str, Any]]) -> None:
    """A row of each image, and its picture in a folder that is there."""
    run = request.run
    contents = zip(request.paths, request.labels, read_files(request.paths, run.card.preprocess), strict=True)
    with progress_bar() as bar:
        task = bar.add_task("explain  ", total=len(request.paths), note="")
        while batch := list(itertools.islice(contents, BATCH)):
            readable = [(labels, one) for _, labels, one in batch if not isinstance(one, Unreadable)]
            found = _explain_readable(request, explainer, readable) if readable else iter(())
            for path, _, content in batch:
                named = {"path": request.names.get(path, path)}
                if isinstance(content, Unreadable):
                    rows.append(named | {"error": content.reason})
                    continue
                rows.append(named | next(found))
                if output:
                    name = _picture_name(len(rows), rows[-1]["path"])
                    rows[-1]["picture"] = name
                    _draw(output / name, content, rows[-1])
            bar.advance(task, len(batch))


def largest_error(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Of the sums of all maps; None where none is exact."""
    errors = [one["error"] for row in rows for one in row.get("maps", ()) if one["error"] is not None]
    return max(errors, default=None)


def _explain_readable(
    request: Request, explainer: Explainer, images: Sequence[tuple[tuple[int, ...], np.ndarray]]
) -> Iterator[dict[str, Any]]:
    """images: true classes and pixels of at most `BATCH`."""
    labels, run = [true for true, _ in images], request.run
    answers = explain_batch(run, explainer, [pixels for _, pixels in images], labels, request.classes)
    return (_told(answer, true, run.card.class_names) for answer, true in zip(answers, labels, strict=True))


def insist_on_map(explainer: Explainer | None, run: Run) -> Explainer:
    """Raises RunError where there is none."""
    if explainer is None:
        raise RunError(
            f"The network of {run.folder} has no map of features, so nothing tells where it looks.",
            expected="a network with positions: convolutions, or tokens of patches",
            received=run.card.backbone.name,
            fix="train another backbone: multitl backbones",
        )
    return explainer


def explain_batch(
    run: Run,
    explainer: Explainer,
    images: Sequence[np.ndarray],
    labels: Sequence[tuple[int, ...]] = (),
    classes: tuple[int, ...] = (),
) -> Iterator[dict[str, Any]]:
    """What is said of each image, and "maps": of the classes that were said, the true ones and those asked for.

    images: at most as many as pass through the explainer at once.  labels: places of the true classes of each, if any.
    """
    look = explainer.look(np.stack(images))
    outputs, names = run.exact(look.outputs), run.card.class_names
    answers = [run.judge.answer(row) for row in outputs]
    shown = [
        roles_of(shown_places(names, answer), true, classes)
        for answer, true in zip(answers, labels or [()] * len(images), strict=True)
    ]
    slots = [list(roles) for roles in shown]
    columns = [
        explainer.explain(look, [slot[min(place, len(slot) - 1)] for slot in slots])
        for place in range(max(map(len, slots)))
    ]
    for number, (answer, roles) in enumerate(zip(answers, shown, strict=True)):
        yield answer | {
            "maps": [
                _described(
                    columns[place][number], names[index], roles[index], explainer.kind, float(outputs[number, index])
                )
                for place, index in enumerate(roles)
            ]
        }


def _told(answer: Mapping[str, Any], labels: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """Without all probabilities, with the true classes."""
    said = {key: value for key, value in answer.items() if key not in ("probabilities", "maps")}
    return said | ({"true": [names[index] for index in labels]} if labels else {}) | {"maps": answer["maps"]}


def _described(heatmap: Heatmap, name: str, roles: list[str], kind: str, output: float) -> dict[str, Any]:
    return map_row(
        name, roles, output, kind, heatmap.values,
        logit=heatmap.logit, bias=heatmap.bias, error=heatmap.error, elsewhere=heatmap.elsewhere,
    )  # fmt: skip


def _as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    path = row["path"].encode("utf-8", "replace").decode("utf-8")  # a file's name may hold any bytes
    maps = [in_json(one) for one in row.get("maps", ())]
    return {**row, "path": path} | ({"maps": maps} if maps else {})


def _draw(path: Path, pixels: np.ndarray, row: Mapping[str, Any]) -> None:
    """The photo and its maps side by side; the strongest colour is the largest number of any of them."""
    photo, maps = as_photo(pixels), row["maps"]
    largest = max(float(np.abs(one["map"]).max()) for one in maps)
    panels = [(Path(row["path"]).name, photo)]
    panels += [(_caption(one), overlay(photo, one["map"], largest)) for one in maps]
    with atomic_write(path) as temporary:
        side_by_side(panels).save(temporary, "PNG")


def _caption(one: Mapping[str, Any]) -> str:
    said = f"{one[VALUE]:.4g}" if VALUE in one else f"{one['class']} {one['probability']:.0%}"
    return f"{' and '.join(one['shown_as'])}: {said}"


def _picture_name(number: int, path: str) -> str:
    stem = re.sub(r"[^\w.-]", "_", Path(path).stem)[:_LONGEST]
    return f"{number:04}-{stem}.png"


@contextlib.contextmanager
def _staged(output: Path | None, *, overwrite: bool) -> Iterator[Path | None]:
    """A folder to fill. Earlier explanations in `output` are replaced at the end, when all has gone well: until then
    nobody knows whether an image can be read."""
    with contextlib.ExitStack() as kept:
        folder = None
        if output:
            with _told_of(output):  # in a folder that is there, which may be a disk of its own
                folder = kept.enter_context(temporary_folder(output if output.is_dir() else output.parent))
        yield folder
        if output and folder:
            check_folder_for_explanations(output, overwrite=overwrite)  # somebody may have been there meanwhile
            with _told_of(output), interrupts.held_back():
                _replace(output, folder)


def _replace(output: Path, folder: Path) -> None:
    output.mkdir(exist_ok=True)
    for path in output.iterdir():
        if OWN_FILES.fullmatch(path.name):
            path.unlink()
    for path in sorted(folder.iterdir()):
        path.rename(output / path.name)


@contextlib.contextmanager
def _told_of(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(output, error) from error
