"""What frameworks print at their start is not shown, and their errors are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from quick_runs import BACKBONE, make_photos

from multitl.system.chatter import no_start_up_notes

QUIETLY = "from multitl.system.chatter import import_tensorflow_quietly as quieten; quieten()\n"
CALL = f"""
import logging, sys
import multitl
logging.getLogger("multitl").setLevel("WARNING")
run = multitl.finetune(
    sys.argv[1], output=sys.argv[2], backbone="{BACKBONE}", weights="none", image_size=32, unfreeze="none"
)
multitl.predict(run.output, sys.argv[1])
"""


def run_python(code: str, *arguments: str, level: str | None = None, **variables: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"KERAS_BACKEND": keras.config.backend()} | variables
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # the tests' own
    environment |= {"TF_CPP_MIN_LOG_LEVEL": level} if level else {}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)


@pytest.mark.parametrize(("level", "expected"), [("3", ["real error"]), ("0", ["I0000 a note", "real error"])])
def test_start_up_notes_are_dropped_and_errors_kept(monkeypatch, capfd, level, expected):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    with no_start_up_notes():
        os.write(2, b"I0000 a note\nreal error\n")
    assert capfd.readouterr().err.splitlines() == expected


def test_tensorflow_is_imported_quietly_unless_its_notes_are_wanted():
    code = f"{QUIETLY}import tensorflow\nfrom importlib import resources\nprint(resources.files('tensorflow').is_dir())"
    quiet, loud = run_python(code, level="3"), run_python(code, level="0")
    assert (quiet.stdout, quiet.stderr) == ("True\n", "")
    assert "I0000" in loud.stderr


def test_a_framework_that_is_hidden_stays_so():
    code = f"""
from multitl.system.hiding import hide
hide(frozenset(["tensorflow"]))
{QUIETLY}
import importlib.util
print(importlib.util.find_spec("tensorflow"))
"""
    assert run_python(code).stdout == "None\n"


@pytest.mark.every_backend
def test_a_call_from_python_can_be_silent(tmp_path: Path):
    photos = make_photos(tmp_path / "photos", ["cat", "dog"], 12)
    done = run_python(CALL, str(photos), str(tmp_path / "run"), MULTITL_CACHE=str(tmp_path / "cache"))
    assert (done.stdout, done.stderr) == ("", "")
