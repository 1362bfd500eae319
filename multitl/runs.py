"""The run folder on disk: nothing in it is ever half written.

Every file is written beside its final place, flushed to the disk, and renamed over it, which POSIX does atomically.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from multitl.cache import cache_folder
from multitl.cards import read_card, read_metrics
from multitl.contracts import Result
from multitl.errors import DISK_FULL, RunError
from multitl.recipes import Recipe
from multitl.regular_files import MOST_CARD, read_regular_text
from multitl.scratch import clear, temporary_folder

RUN_FILES = (  # the first one marks a folder as a run
    "recipe.toml", "run.json", "checkpoint.npz", "checkpoint.safetensors", "checkpoint-previous.safetensors",
    "card.json", "metrics.json", "history.csv", "predictions.csv", "model.keras", "report.html", "tensorboard",
)  # fmt: skip


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path of the same name to write to; on success it replaces `path`, on error it is removed.

    Raises RunError for a full disk or a folder that cannot be written.
    """
    final = Path(path)
    try:
        with temporary_folder(final.parent) as folder:
            temporary = folder / final.name
            yield temporary
            _flush(temporary)
            temporary.chmod(0o666 & ~umask())  # as any other file, whatever its writer thinks
            temporary.replace(final)
    except OSError as error:
        raise cannot_write(final, error) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write indented JSON atomically. NaN is refused: it is not JSON, and a figure that is NaN is a bug."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike[str], missing: str, keys: Sequence[str] = ()) -> Any:
    """Read JSON; `missing` is the error's advice if the file is absent, damaged, or not an object with all `keys`."""
    try:
        value = json.loads(read_regular_text(path, MOST_CARD))
        if keys and not (isinstance(value, dict) and set(keys) <= value.keys()):
            raise ValueError(f"no {' or '.join(keys)} in it")
        return value
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"Cannot read {path}.", expected="a file that a finished run wrote", received=str(error), fix=missing
        ) from error


def cannot_write(path: Path, error: OSError) -> RunError:
    """The RunError for an operating-system error met while writing `path`."""
    if error.errno in DISK_FULL:
        advice = "free some space and run the same command with --resume; finished work is kept"
    elif path.is_relative_to(cache_folder()):
        advice = "let the variable MULTITL_CACHE name a folder you can write to"
    else:
        advice = "choose a folder you can write to with --out"
    return RunError(
        f"Cannot write {path}: {error.strerror or error}.",
        expected="a folder with room that this user may write to",
        received=str(path.parent),
        fix=advice,
    )


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def umask() -> int:
    """Which permissions this process takes from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
    folder: Path, recipe: Recipe, backend: str, fingerprint: str, weights_sha256: str, *, resume: bool
) -> None:
    """Make `folder` this run's own, once nothing about the input can be wrong any more.

    An older run's files go only now, so a mistyped option costs nobody a finished model. A run that is resumed must
    go on with the same data, by `fingerprint`, and the same weights of the backbone.
    """
    clear(folder)  # of a killed process
    if resume and read_started(folder):
        check_same_input(folder, "data", "fingerprint", fingerprint)
        check_same_input(folder, "backbone's weights", "weights_sha256", weights_sha256)
    else:
        _clear(folder)
    write_text(folder / "recipe.toml", recipe.to_toml())
    started = {"backend": backend, "fingerprint": fingerprint, "weights_sha256": weights_sha256}
    write_json(folder / "run.json", started)


def check_same_input(folder: Path, what: str, key: str, value: str) -> None:
    """Raises RunError unless run.json, where it knows this key, has this value."""
    known = read_started(folder).get(key, value)
    if known != value:
        raise RunError(
            f"The {what} changed since {folder} was started.",
            expected=f"{what} with {key} {str(known)[:12]}",
            received=f"{what} with {key} {value[:12]}",
            fix="start again with --overwrite; features of unchanged images are reused",
        )


def finished_result(folder: Path) -> Result:
    """The Result of a run whose card has been written."""
    again = "start again with --overwrite"
    card, metrics = read_card(folder, again), read_metrics(folder, again)
    return Result(
        output=folder,
        metrics=metrics,
        class_names=card.class_names,
        model_path=folder / "model.keras",
        report_path=folder / "report.html",
        warnings=card.data.warnings + card.warnings,
    )


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
    started = read_started(folder).get("backend", backend)
    if started != backend:
        changes["backend"] = (started, backend)
    if changes:
        raise RunError(
            f"{folder} was started with other options.",
            expected=", ".join(f"{name} = {old!r}" for name, (old, _) in changes.items()),
            received=", ".join(f"{name} = {new!r}" for name, (_, new) in changes.items()),
            fix=f"resume with --recipe {folder / 'recipe.toml'} --backend {started}, or choose another --out",
        )


def read_started(folder: Path) -> dict[str, Any]:
    """run.json: what a run was started with; empty if it was killed before it got that far. Raises RunError."""
    path = folder / "run.json"
    if not path.exists() and not (folder / "card.json").exists():
        return {}
    return read_json(path, missing="start again with --overwrite", keys=["backend", "fingerprint"])


def _clear(folder: Path) -> None:
    """Remove an older run, except for recipe.toml, which is replaced next: by that file a folder is known as a run."""
    for name in RUN_FILES[1:]:
        path = folder / name
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
