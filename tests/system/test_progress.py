"""Progress where nobody watches: enough lines to see that it goes on, and no more."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console
from rich.progress import Progress

from multitl.system import progress
from multitl.system.progress import PlainProgress, Work, describe, progress_bar, show_wait


def lines(screen: Console) -> list[str]:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue().splitlines()


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_a_line_an_epoch_and_none_for_each_step(screen: Console, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "MOMENT", 0.0)
    with PlainProgress(screen) as bar:
        task = bar.add_task("finetune ", total=30)
        for epoch in range(3):
            for _ in range(10):
                bar.advance(task)
            bar.update(task, note=f"loss {epoch}")
    assert [line.split(", ")[-1] for line in lines(screen)] == ["loss 0", "loss 1", "loss 2"]
    assert lines(screen)[0].startswith("finetune 10/30, ") and " left, " in lines(screen)[0]


def test_short_epochs_share_a_line_and_the_end_is_told(screen: Console):
    with PlainProgress(screen) as bar:
        task = bar.add_task("head", total=60)
        for epoch in range(60):
            bar.advance(task)
            bar.update(task, note=f"loss {epoch}")
    first, last = lines(screen)
    assert first.startswith("head 1/60") and last.startswith("head 60/60, in 0 s, loss 59")


def test_a_line_a_minute_whatever_happens(screen: Console, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "MINUTE", 0.05)
    with PlainProgress(screen) as bar:
        bar.add_task("finetune", total=30)
        time.sleep(0.5)  # a step that is being compiled
    assert 3 <= len(lines(screen)) <= 10
    assert set(lines(screen)) == {"finetune 0/30"}


def test_waiting_for_what_nobody_can_count(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(progress, "MINUTE", 0.05)
    with progress.waiting("timing   "):
        time.sleep(0.3)
    assert set(capsys.readouterr().err.splitlines()) == {"timing"}


def test_what_was_never_begun_is_not_told(screen: Console):
    with PlainProgress(screen) as bar:
        bar.add_task("reading", total=None)
    assert lines(screen) == []


def test_one_thing_after_the_other(screen: Console):
    with PlainProgress(screen) as bar:
        task = bar.add_task("reading", total=None)
        bar.update(task, completed=64, total=2624)
        bar.update(task, completed=2624, total=2624)
        bar.advance(bar.add_task("judging", total=10), 4)
    assert [line.partition(",")[0] for line in lines(screen)] == ["reading 2", "judging 4/10"]
    assert lines(screen)[0].startswith("reading 2,624/2,624, in ")


def test_words():
    work = Work("finetune", 640, done=80, begun=40, note="loss 0.1", started=100.0)
    assert describe(work, now=120.0) == "finetune 80/640, 2.0/s, 5 min left, loss 0.1"
    work = Work("onnx", 3, done=1, begun=0, note="opening it again", started=100.0)
    assert describe(work, now=120.0) == "onnx 1/3, for 20 s, opening it again"
    assert [show_wait(seconds) for seconds in (12, 99, 100, 4800)] == ["12 s", "99 s", "2 min", "1 h 20 min"]


def test_a_bar_on_a_terminal_leaves_stdout_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Results may go to a file while the bar is on the terminal."""
    screen = Console(file=io.StringIO(), force_terminal=True, force_interactive=True)
    monkeypatch.setattr(progress, "console", lambda: screen)
    bar = progress_bar()
    assert isinstance(bar, Progress)
    with bar:
        bar.add_task("classify", total=3, note="[red]")
        print('{"path": "a.png"}')
    assert capsys.readouterr().out == '{"path": "a.png"}\n'


def test_messages_keep_their_lines_in_a_file(capsys: pytest.CaptureFixture[str]):
    progress.console().print("a" * 300)
    assert capsys.readouterr().err == "a" * 300 + "\n"
