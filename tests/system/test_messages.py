"""Messages are records of the logger "multitl", and its level says whether anybody is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from multitl.system.messages import LOGGER, say, warn
from multitl.system.progress import progress_bar


@pytest.fixture
def level() -> Iterator[None]:
    before = LOGGER.level
    yield
    LOGGER.setLevel(before)


def test_messages_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say("kept: [red] 100 %s")
    warn("one class has 3 images")
    assert capsys.readouterr() == ("", "kept: [red] 100 %s\nwarning: one class has 3 images\n")


def test_warnings_alone(level: None, capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.setLevel("WARNING")
    say("nobody hears it")
    with progress_bar() as bar:
        task = bar.add_task("judging", total=2, note="")
        bar.advance(task, 2)
        bar.update(task, note="done")
    warn("one class has 3 images")
    assert capsys.readouterr() == ("", "warning: one class has 3 images\n")


def test_a_programs_own_handler_gets_them(caplog: pytest.LogCaptureFixture) -> None:
    LOGGER.addHandler(caplog.handler)
    say("found 3 classes")
    LOGGER.removeHandler(caplog.handler)
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("multitl", "INFO", "found 3 classes")
    ]


@pytest.mark.parametrize("first", ["logging.getLogger('multitl').setLevel('ERROR')", "pass"])
def test_a_level_that_was_set_before_stays_and_programs_that_log_show_nothing_twice(first: str) -> None:
    code = f"import logging; {first}; logging.basicConfig(); from multitl.system import messages as m; m.warn('a')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ("warning: a\n" if first == "pass" else "")
