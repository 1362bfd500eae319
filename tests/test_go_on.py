"""docs/how-to/go-on.md is run: every command and every line of Python, in order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import keras
import pytest
from quick_runs import QUICK, make_photos

import multitl
from multitl.cli.main import main

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "how-to" / "go-on.md").read_text(encoding="utf-8")
NAMES = ["bag", "cap", "coat", "dress", "hat", "shirt", "shoe"]

if keras.config.backend() != "jax":
    pytest.skip("the page is the same under each", allow_module_level=True)


def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    make_photos(tmp_path / "seven", NAMES, 6)
    make_photos(tmp_path / "five", NAMES[:5], 6)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks] == ["console", "python"]
    for line in blocks[0][1].splitlines():
        command = shlex.split(line.removeprefix("$ multitl "))
        assert main(command + (QUICK if "--from" not in command else [])) == 0
    assert "before," in capsys.readouterr().out
    exec(compile(blocks[1][1], "go-on.md", "exec"), {})
    assert multitl.load("runs/more").classes == tuple(NAMES)


def test_the_page_is_short():
    assert len(PAGE.splitlines()) <= 27
