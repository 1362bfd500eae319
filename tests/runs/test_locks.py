"""One process at a time in one folder. Real processes; a killed one's lock is free by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from live_processes import Start, kill, names

from multitl.errors import RunError
from multitl.runs.locks import locked, place_lock, run_lock

HOLDER = """
import sys
from pathlib import Path
from multitl.runs.locks import locked, run_lock
folder = Path(sys.argv[1])
with locked(run_lock(folder), folder, wait=len(sys.argv) > 2):
    print("holds it", flush=True)
    input()
"""


def test_a_second_process_is_told_the_firsts_number(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = start(HOLDER, folder)
    with pytest.raises(RunError, match=rf"process {first.pid} is writing to it(.|\n)*--out"), lock(folder):
        pytest.fail("came in")
    first.communicate("\n")
    assert names(tmp_path) == []  # nothing was written there
    with lock(folder):
        assert names(folder) == [".multitl.lock"]


def lock(folder: Path, *, wait: bool = False):
    return locked(run_lock(folder), folder, wait=wait)


def test_a_killed_processs_lock_is_free(start: Start, tmp_path: Path) -> None:
    kill(start(HOLDER, tmp_path))
    assert names(tmp_path) == [".multitl.lock"]
    with lock(tmp_path), pytest.raises(RunError, match=f"process {os.getpid()} "), lock(tmp_path):
        pytest.fail("came in twice")
    assert names(tmp_path) == []


def test_who_waits_comes_in_when_the_first_has_gone(start: Start, tmp_path: Path) -> None:
    first = start(HOLDER, tmp_path)
    waiting = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), "wait"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert waiting.stderr and waiting.stdout and first.stdin
    assert f"waiting for process {first.pid}" in waiting.stderr.readline()
    first.communicate("\n")
    assert waiting.stdout.readline() == "holds it\n"
    waiting.communicate("\n")
    assert names(tmp_path) == []


def test_a_crowd_comes_in_one_by_one(tmp_path: Path) -> None:
    """The folder is made and removed again all the time; nobody overwrites what another one has added."""
    code = """
        import sys
        from pathlib import Path
        from multitl.runs.locks import locked, place_lock
        counter, place = Path(sys.argv[1]), Path(sys.argv[2])
        for _ in range(40):
            with locked(place_lock(place), place, wait=True):
                counter.write_text(str(int(counter.read_text()) + 1))
    """
    (tmp_path / "counter").write_text("0")
    arguments = [str(tmp_path / "counter"), str(tmp_path / "made" / "here" / "out")]
    crowd = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *arguments]) for _ in range(4)]
    assert [one.wait() for one in crowd] == [0] * 4
    assert (tmp_path / "counter").read_text() == "160"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["counter"]


def test_folders_that_are_of_use_stay(tmp_path: Path) -> None:
    with lock(tmp_path / "new" / "run"):
        (tmp_path / "new" / "run" / "file").touch()
    with locked(place_lock(tmp_path / "port" / "out"), tmp_path / "port" / "out"):
        (tmp_path / "port" / "out").mkdir()
    assert names(tmp_path / "new" / "run") == ["file"] and names(tmp_path / "port") == ["out"]


def test_a_lock_that_was_removed_by_hand_is_not_taken_from_the_next_one(tmp_path: Path) -> None:
    with lock(tmp_path):
        run_lock(tmp_path).unlink()
        run_lock(tmp_path).write_text("another one's")
    assert run_lock(tmp_path).read_text() == "another one's"


@pytest.mark.parametrize("kind", ["pipe", "link", "words"])
def test_a_lock_file_may_be_anything(tmp_path: Path, kind: str) -> None:
    """A run folder may be anybody's: nothing hangs, and nothing outside is written."""
    if kind == "pipe":
        os.mkfifo(run_lock(tmp_path))
    elif kind == "link":
        (tmp_path / "thesis").write_text("three years of work")
        run_lock(tmp_path).symlink_to(tmp_path / "thesis")
    else:
        run_lock(tmp_path).write_bytes(b"\xff not a number [red]" * 1000)
    if kind == "link":
        with pytest.raises(RunError, match="Cannot write"), lock(tmp_path):
            pytest.fail("came in")
        assert (tmp_path / "thesis").read_text() == "three years of work"
        return
    with lock(tmp_path), pytest.raises(RunError, match=r"is in use"), lock(tmp_path):
        pytest.fail("came in twice")


def test_a_platform_without_locks_is_told_and_goes_on(tmp_path: Path) -> None:
    code = """
        import sys
        sys.modules["fcntl"] = None  # as on Windows
        from pathlib import Path
        from multitl.runs.locks import locked, run_lock
        from multitl.system.writing import write_text
        folder = Path(sys.argv[1])
        with locked(run_lock(folder), folder):
            write_text(folder / "file", "x")
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"cannot\s+be\s+locked(.|\n)*start\s+no\s+other\s+process", done.stderr)
    assert names(tmp_path / "run") == ["file"]


def test_where_nothing_can_be_written_there_is_nothing_to_lock(tmp_path: Path) -> None:
    """A finished run on a read-only disk can still be asked whether it is complete."""
    with lock(Path("/sys/kernel")):
        pass
    (tmp_path / "file").touch()
    with lock(tmp_path / "file"):
        pass
    with pytest.raises(RunError, match="Cannot write"), lock(tmp_path / "file" / "run"):
        pytest.fail("came in")
