"""Tables: nothing that could be a name is broken, on any terminal; and no blank too many where they are piped."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from multitl.cli.terminal import print_backbones
from multitl.contracts import BackboneInfo
from multitl.system.printing import show, table
from multitl.system.sizes import show_bytes

NAME, LICENCE = "timm/vit_base_patch16_clip_quickgelu_224", "BSD-3-Clause"


def shown(width: int, rows: list[list[str]]) -> str:
    grid = table("backbone", "input", "licence", "weights", right=["input"], prose=["licence", "weights"])
    for row in rows:
        grid.add_row(*row)
    screen = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, markup=False)
    show(grid, screen)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


@pytest.mark.parametrize("width", [200, 90, 80, 72, 60, 45])
def test_no_name_is_broken_and_no_line_is_longer_than_the_terminal(width: int):
    text = shown(width, [[NAME, "224 px", LICENCE, "downloaded from pytorch.org (532 MB)"], ["a", "8 px", "none", "b"]])
    words = text.split()
    for word in [NAME, LICENCE, "224", "downloaded", "pytorch.org", "(532"]:
        assert word in words
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_prose_gives_way_before_the_table_does():
    text = shown(88, [[NAME, "224 px", LICENCE, "downloaded from pytorch.org (532 MB)"]])
    assert text.splitlines()[1].split() == ["backbone", "input", "licence", "weights"]
    assert "224 px" in text and "downloaded from pytorch.org (532 MB)" not in text


def test_a_row_that_has_no_room_becomes_a_paragraph():
    lines = [line.rstrip() for line in shown(60, [[NAME, "224 px", LICENCE, "downloaded by timm"]]).splitlines()]
    assert lines == [NAME, "  input 224 px   licence BSD-3-Clause", "  weights downloaded by timm"]


def test_a_pipe_gets_no_padding(capsys: pytest.CaptureFixture[str]):
    rows = [BackboneInfo("keras/A", 32, "MIT", "by Keras", ("alpha=0.25", "alpha=0.5")), BackboneInfo("b/B", 8, "", "")]
    print_backbones(rows, most=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("backbone   input   licence") and lines[2].startswith("keras/A    32 px   MIT")
    assert all(line == line.rstrip() for line in lines) and lines[-1].startswith("b/B ")


def test_a_tty_of_80_columns_is_believed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    print_backbones([BackboneInfo(f"torchvision/{'long_' * 10}name", 32, LICENCE, "downloaded (3 MB)")], most=1)
    assert f"torchvision/{'long_' * 10}name" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "text"),
    [(2.58e9, "2.6 GB"), (98e6, "98 MB"), (532e6, "532 MB"), (3.8e6, "3.8 MB"), (999.6e6, "1.0 GB"), (12, "12 B"),
     (9.96e6, "10 MB")],
)  # fmt: skip
def test_sizes_are_in_the_unit_that_fits(count: float, text: str):
    assert show_bytes(count) == text
