"""The committed notebook: without outputs, and every cell of it runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import pytest
from notebook_cells import displays, nbformat, run_notebook, streams

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NAME = "first_ten_minutes.ipynb"


def test_it_is_committed_without_outputs():
    cells = json.loads((EXAMPLES / NAME).read_text(encoding="utf-8"))["cells"]
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.every_backend
def test_every_cell_runs_and_shows_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KERAS_BACKEND", keras.config.backend())
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in (NAME, "toy_photos.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    notebook = nbformat.read(tmp_path / NAME, as_version=4)
    run_notebook(notebook, tmp_path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    _, trained, looked, predicted, watched, (mistake,), ported = (cell.outputs for cell in cells)

    assert "features 48/48" in "".join(displays(trained, "text/plain"))
    assert "kept: the solved head" in streams(trained, "stdout")
    assert streams(looked, "stdout").startswith("accuracy 1.00 [") and "report.html" in streams(looked, "stdout")
    assert streams(predicted, "stdout").count("disc -> disc") == 1
    assert streams(watched, "stdout").splitlines()[-1].startswith("validation loss ")
    assert "\n".join(mistake.traceback).startswith("BackboneError: Unknown backbone 'keras/MobilNet'")
    assert "'classify.py'" in streams(ported, "stdout") and "'model.onnx'" in streams(ported, "stdout")
    assert chatter(cells) == ""


def chatter(cells: list[Any]) -> str:
    return "".join(streams(cell.outputs, "stderr") for cell in cells)
