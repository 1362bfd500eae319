"""The pages on notebooks and on trackers say what works: their blocks are run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import keras
import pytest

from multitl.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "how-to"

if keras.config.backend() != "jax":
    pytest.skip("what they show is tested on every backend elsewhere", allow_module_level=True)


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With `photos` to train on, and `new` ones."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    from toy_photos import make_photos

    make_photos(tmp_path / "photos")
    make_photos(tmp_path / "all", count=1).joinpath("disc").rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", ["use-a-notebook.md", "log-epochs.md"])
def test_a_page_is_short(page: str):
    assert len((PAGES / page).read_text(encoding="utf-8").splitlines()) <= 25


def test_log_epochs(folder: Path):
    (command,) = blocks("log-epochs.md", "console")
    program, *arguments = shlex.split(command.removeprefix("$ "))
    assert (program, main(arguments)) == ("multitl", 0)
    assert list((folder / "runs" / "logged" / "tensorboard").glob("*tfevents*"))
    names: dict[str, Any] = {}
    (code,) = blocks("log-epochs.md", "python")
    exec(code, names)
    lines = (folder / "runs" / "heard" / "history.csv").read_text().splitlines()
    assert len(names["losses"]) == len(lines) - 1 > 1


def test_use_a_notebook(folder: Path, monkeypatch: pytest.MonkeyPatch):
    import notebook_cells as cells  # skips

    monkeypatch.setenv("KERAS_BACKEND", "jax")
    trained, quiet = cells.run_cells(blocks("use-a-notebook.md", "python"), folder)
    assert cells.displays(trained, "text/plain") and not cells.displays(quiet, "text/plain")
    shown = [output.data["text/plain"] for outputs in (trained, quiet) for output in outputs[-1:]]
    assert float(shown[0]) > 0.5 and shown[1] == "'disc'"
    assert cells.streams(trained + quiet, "stderr") == ""
