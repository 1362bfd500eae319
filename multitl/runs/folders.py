"""The run folder on disk: whose it is, what it was started with, and what a finished one gives back."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from multitl.contracts import Result
from multitl.errors import RunError
from multitl.recipes import Recipe
from multitl.runs.cards import Started, checked, read_card, read_started
from multitl.runs.label_figures import read_figures
from multitl.runs.promises import FILES, HEAD_FOLDER, HEADS, REPORT
from multitl.system.scratch import clear
from multitl.system.writing import cannot_write, write_json, write_text

MARK, STARTED_BY, *MADE = FILES  # by the first a folder is known as a run
RUN_FILES = (  # in the order in which they go: what tells of the others before them
    MARK, STARTED_BY, "checkpoint.npz", "checkpoint.safetensors", "checkpoint-previous.safetensors", "card.json", HEADS,
    *MADE, REPORT, "tensorboard", "workers.log",
)  # fmt: skip


def check_folder(folder: Path, recipe: Recipe, backend: str, *, overwrite: bool, resume: bool) -> bool:
    """Whether `folder` may be written to; changes nothing. True if it holds the finished run that `resume` asked for.

    A folder that is not empty is touched only on request, and only if it is a run: no file of the user's is removed.
    """
    if overwrite and resume:
        raise RunError(
            "--overwrite and --resume exclude each other.",
            expected="one of them",
            received="both",
            fix="--resume continues, --overwrite starts again",
        )
    used = is_used(folder)
    if used and not (folder / "recipe.toml").is_file():
        raise RunError(
            f"{folder} exists and is not a run of multitl, so it is left alone.",
            expected="a new or empty folder",
            received=f"{folder}: {'a folder with other files' if folder.is_dir() else 'a file'}",
            fix="choose another folder with --out",
        )
    if used and not overwrite and not resume:
        raise RunError(
            f"{folder} exists already.",
            expected="a new folder, or permission",
            received=str(folder),
            fix="add --resume to continue it, --overwrite to start again, or choose another --out",
        )
    if used and resume:
        _check_same_run(folder, recipe, backend)
        return os.path.lexists(folder / "card.json")
    return False


def start_run(
    folder: Path, recipe: Recipe, backend: str, fingerprint: str, weights_sha256: str, *, resume: bool,
    from_sha256: str | None = None,
) -> None:  # fmt: skip
    """Make `folder` this run's own, once nothing about the input can be wrong any more.

    An older run's files go only now, so a mistyped option costs nobody a finished model. A run that is resumed must
    go on with the same data, by `fingerprint`, and the same weights of the backbone.  from_sha256: of the model of the
    run that it goes on from, which must be the same then, too.
    """
    clear(folder)  # of a killed process
    if resume and (known := read_started(folder)):
        check_same_data(folder, fingerprint)
        if known.weights_sha256 not in (None, weights_sha256):
            raise _changed(folder, "backbone's weights", "weights_sha256", known.weights_sha256, weights_sha256)
        if from_sha256 and known.from_sha256 != from_sha256:
            raise _changed(folder, "run that it goes on from", "from_sha256", known.from_sha256, from_sha256)
    else:
        _clear(folder)
    write_text(folder / "recipe.toml", recipe.to_toml())
    started: dict[str, Any] = {"backend": backend, "fingerprint": fingerprint, "weights_sha256": weights_sha256}
    started["recipe"] = _plain(recipe)
    if from_sha256:
        started["from_sha256"] = from_sha256
    write_json(folder / "run.json", checked(started, Started))


def check_same_data(folder: Path, fingerprint: str) -> None:
    """Raises RunError if the run was started with other data."""
    known = read_started(folder)
    if known and known.fingerprint != fingerprint:
        raise _changed(folder, "data", "fingerprint", known.fingerprint, fingerprint)


def finished_result(folder: Path) -> Result:
    """The Result of a run whose card has been written."""
    again = "start again with --overwrite"
    card = read_card(folder, again)
    return Result(
        output=folder,
        metrics=read_figures(folder, card, again),
        class_names=card.class_names,
        model_path=card.model_file(folder),
        report_path=folder / "report.html",
        warnings=card.data.warnings + card.warnings,
    )


def check_results_folder(folder: Path, mark: str, what: str, *, overwrite: bool, received: str, fix: str) -> None:
    """Raises RunError for a folder that holds anything but older results, which `overwrite` allows to replace.

    mark: a file by which such a folder is known.  what: it holds, in words.  received, fix: of the error where it is
    there and may not be replaced.
    """
    if not is_used(folder):
        return
    if not (folder / mark).is_file():
        raise RunError(
            f"{folder} exists and is no {what} of multitl, so it is left alone.",
            expected="a new or empty folder",
            received=f"{folder}: {'a folder with other files' if folder.is_dir() else 'a file'}",
            fix="choose another folder with --out",
        )
    if not overwrite:
        raise RunError(f"{folder} exists already.", expected="a new folder, or permission", received=received, fix=fix)


def beside(folder: str | os.PathLike[str], ending: str) -> Path:
    """Where results of a folder go by default, such as RUN-review; of "." and ".." beside what they are.

    Those of one of several heads, RUN/heads/NAME, go beside the run: RUN-NAME-review. In it they would go with it.
    """
    place = Path(folder)
    place = place.resolve() if place.name in ("", "..") else place
    run = place.absolute().parent.parent
    if place.absolute().parent.name == HEAD_FOLDER and (run / HEADS).is_file():
        return run.with_name(f"{run.name}-{place.name}-{ending}")
    return place.with_name(f"{place.name}-{ending}")


def is_used(folder: Path) -> bool:
    """Whether something lies there besides hidden files: a lock, and what a killed process left."""
    try:
        return folder.exists() and (
            not folder.is_dir() or any(not path.name.startswith(".") for path in folder.iterdir())
        )
    except OSError as error:
        raise cannot_write(folder, error) from error


def _check_same_run(folder: Path, recipe: Recipe, backend: str) -> None:
    changes = Recipe.read(folder / "recipe.toml").differences(recipe)
    known = read_started(folder)
    started = known.backend if known else backend
    if started != backend:
        changes["backend"] = (started, backend)
    fix = f"resume with --recipe {folder / 'recipe.toml'} --backend {started}, or choose another --out"
    if known and known.recipe and not changes:  # people edit recipe.toml
        asked = _plain(recipe)
        changes = {name: (old, asked[name]) for name, old in known.recipe.items() if asked.get(name, old) != old}
        fix = f"put {folder / 'recipe.toml'} back as it was, or choose another --out"
    if changes:
        raise RunError(
            f"{folder} was started with other options.",
            expected=", ".join(f"{name} = {old!r}" for name, (old, _) in changes.items()),
            received=", ".join(f"{name} = {new!r}" for name, (_, new) in changes.items()),
            fix=fix,
        )


def _plain(recipe: Recipe) -> dict[str, Any]:
    """As it comes back from JSON."""
    return json.loads(json.dumps(asdict(recipe)))


def _changed(folder: Path, what: str, key: str, known: str | None, value: str) -> RunError:
    return RunError(
        f"The {what} changed since {folder} was started.",
        expected=f"{what} with {key} {str(known)[:12]}",
        received=f"{what} with {key} {value[:12]}",
        fix="start again with --overwrite; features of unchanged images are reused",
    )


def _clear(folder: Path) -> None:
    """Remove an older run, except for recipe.toml, which is replaced next: by that file a folder is known as a run."""
    for path in (*(folder / name for name in RUN_FILES[1:]), *_files_of_heads(folder / HEAD_FOLDER)):
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
    with suppress(OSError):  # it stays if there is something else in it
        (folder / HEAD_FOLDER).rmdir()


def _files_of_heads(folder: Path) -> list[Path]:
    """Each head's own folder and then its table, by which it is known: something else may have been put there, too."""
    tables = sorted(folder.glob("*.csv"))
    return [path for table in tables for path in (table.with_suffix(""), table)]
