"""In a kernel: progress in one display, messages below the cell, errors that begin with what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

from notebook_cells import displays, run_cells, streams

WORK = """
import logging, sys, time
from multitl.system.messages import say, warn
from multitl.system.progress import progress_bar, waiting

def work():
    with progress_bar() as bar:
        task = bar.add_task("reading  ", total=None, note="")
        bar.update(task, completed=2, total=2)
        task = bar.add_task("<b>judging", total=200, note="")
        for _ in range(200):
            time.sleep(0.001)
            bar.advance(task)
    say("kept: the [red] head")
    warn("one class has 3 images")
"""
COUNTED = """
calls, publisher = [], get_ipython().display_pub
publish = publisher.publish
publisher.publish = lambda *given, **options: (calls.append(options.get("update", False)), publish(*given, **options))
work()
print(len(calls), sum(calls))
"""


def test_a_display_is_written_anew_and_messages_are_no_errors(tmp_path: Path) -> None:
    _, outputs, quiet, loud = run_cells(
        [WORK, "work()", "logging.getLogger('multitl').setLevel('WARNING'); work()",
         "logging.getLogger('multitl').setLevel('INFO')\nwith waiting('timing   '): pass"],
        tmp_path,
    )  # fmt: skip
    (text,), (page,) = displays(outputs, "text/plain"), displays(outputs, "text/html")
    assert re.fullmatch(r"reading 2/2, in 0 s\n<b>judging 200/200, in \d s", text)
    assert page.count('<progress max="1" value="1.000">') == 2 and "&lt;b&gt;judging" in page and "<b>" not in page
    assert streams(outputs, "stdout") == "kept: the [red] head\nwarning: one class has 3 images\n"
    assert displays(quiet, "text/plain") == [] and streams(quiet, "stdout") == "warning: one class has 3 images\n"
    assert displays(loud, "text/plain") == ["timing"]
    assert streams(outputs + quiet + loud, "stderr") == ""


def test_a_display_is_not_written_more_often_than_eyes_can_follow(tmp_path: Path) -> None:
    _, outputs = run_cells([WORK, COUNTED], tmp_path)
    shown, updates = map(int, streams(outputs, "stdout").splitlines()[-1].split())
    assert updates == shown - 1 and 3 <= shown <= 10


def test_an_error_begins_with_what_is_wrong(tmp_path: Path) -> None:
    cells = ["import multitl\ndef train():\n    multitl.finetune('gone')", "train()"]
    (*_, (error,)) = run_cells(cells, tmp_path, may_fail=True)
    lines = "\n".join(error.traceback).splitlines()
    assert lines[0].startswith("DataError: ") and "gone" in lines[0]
    assert any(line.startswith("  to mend: ") for line in lines)
    assert "    train()" in lines and "    multitl.finetune('gone')" in lines
    assert "multitl/" not in "".join(lines) and len(lines) < 15
