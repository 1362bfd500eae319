"""Every example runs as its docstring says, each on another backend, and stays short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from multitl.adapters import BACKENDS

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RUN_ON = {"finetune_folder.py": "jax", "freeze_by_stage.py": "tensorflow", "load_without_multitl.py": "torch"}
SHARED_BY_ALL = {"toy_photos.py"}  # a module, not an example

if keras.config.backend() != "jax":
    pytest.skip("starts the backends itself", allow_module_level=True)


@pytest.mark.parametrize("name", RUN_ON)
def test_example_runs(name: str, tmp_path: Path):
    environment = os.environ | {"KERAS_BACKEND": RUN_ON[name]}
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout and list(tmp_path.iterdir()) == []


def test_there_are_three_on_three_backends():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(RUN_ON) | SHARED_BY_ALL
    assert set(RUN_ON.values()) == set(BACKENDS)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_example_is_short_and_checks_itself(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert path.name in SHARED_BY_ALL or "\n    assert " in text
    assert path.name in SHARED_BY_ALL or f"python examples/{path.name}" in text
