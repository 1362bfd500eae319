"""What a finished run promises: its card holds the SHA-256 of every file, so that a missing or damaged one is noticed.

The checkpoint carries its own checksum, and the logs for TensorBoard are not promised.
"""

from __future__ import annotations

from pathlib import Path

from multitl.errors import RunError
from multitl.runs.cards import read_card
from multitl.system.hashes import file_sha256
from multitl.system.messages import say

REPORT = "report.html"  # made from the others and from the card
FILES = (
    "recipe.toml", "run.json", "model.keras", "classify.py", "preprocess.json", "labels.txt", "metrics.json",
    "predictions.csv", "images.csv", "history.csv", "heatmaps.json", "familiarity.safetensors",
)  # fmt: skip
HEADS, HEAD_FOLDER = "heads.json", "heads"  # of a run with several heads, each of which has a folder in the latter
HEAD_FILES = ("recipe.toml", "metrics.json", "predictions.csv", "images.csv", "history.csv")  # in there
_LATER = ("classify.py", "preprocess.json", "labels.txt", "images.csv", "heatmaps.json", "familiarity.safetensors")
FIRST = tuple(name for name in (*FILES, REPORT) if name not in _LATER)
# those of every version


def hash_files(folder: Path, names: tuple[str, ...] = FILES) -> dict[str, str]:
    """File name -> hex SHA-256. Raises OSError."""
    return {name: file_sha256(folder / name) for name in names}


def broken_files(folder: Path) -> list[str]:
    """The files of a finished run that are missing or not as its card says, the card itself included.

    Raises RunError for a run of an older version, whose card says nothing of its files, if one of them is missing.
    """
    try:
        card = read_card(folder)
    except RunError:
        return ["card.json"]
    if card.files is None:
        _check_older(folder, card.multitl)
        return []
    return [name for name in {**dict.fromkeys(FIRST), **card.files} if card.files.get(name) != _hash(folder / name)]


def _hash(path: Path) -> str:
    """No hash of anything, if it cannot be read."""
    try:
        return file_sha256(path)
    except OSError as error:
        return str(error)


def _check_older(folder: Path, version: str) -> None:
    missing = [name for name in FIRST if not (folder / name).is_file()]
    if missing:
        raise RunError(
            f"{folder} has lost {', '.join(missing)}.",
            expected="all files of a finished run",
            received=f"a run of multitl {version}, which left nothing to make them from",
            fix="start again with --overwrite; or use what is there with multitl predict, evaluate or port",
        )
    note = "that they are undamaged cannot be checked, since it kept no checksums. --overwrite makes the run anew."
    say(f"{folder} was made by multitl {version}: all of its files are there; {note}")
