"""Cells that a kernel runs, and what a reader sees below them. Skips where nbclient or ipykernel are not installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")


def run_cells(cells: Sequence[str], folder: Path, *, may_fail: bool = False) -> list[list[Any]]:
    """The outputs of each cell, run one after the other in a new kernel that works in `folder`."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    run_notebook(notebook, folder, may_fail=may_fail)
    return [cell.outputs for cell in notebook.cells]


def run_notebook(notebook: Any, folder: Path, *, may_fail: bool = False) -> None:
    """Fill in the outputs."""
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", allow_errors=may_fail,
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    client.execute()


def streams(outputs: Sequence[Any], name: str) -> str:
    """What was printed. name: "stdout" or "stderr"."""
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == name)


def displays(outputs: Sequence[Any], form: str) -> list[str]:
    """What was displayed, each as it was at last. form: such as "text/plain"."""
    return [output.data[form] for output in outputs if output.output_type == "display_data"]
