"""Temporary folders: whose owner is dead, goes; whose owner lives, stays. Real processes, really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from live_processes import Start, kill, names

from multitl.system.cache import clear_cache
from multitl.system.scratch import all_temporary_files, clear, temporary_folder
from multitl.system.writing import atomic_write, write_text

HOLDER = """
import sys
from pathlib import Path
from multitl.system.scratch import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    print(folder, flush=True)
    input()
"""


def test_a_dead_processs_folder_goes_and_a_live_ones_stays(start: Start, tmp_path: Path) -> None:
    alive = start(HOLDER, tmp_path)
    (of_alive,) = names(tmp_path)
    dead = start(HOLDER, tmp_path)
    assert len(names(tmp_path)) == 2
    kill(dead)
    with temporary_folder(tmp_path) as own:
        assert set(names(tmp_path)) == {of_alive, own.name}
    clear(tmp_path)
    assert names(tmp_path) == [of_alive]
    kill(alive)
    clear(tmp_path)
    assert names(tmp_path) == []


def test_ctrl_c_while_it_is_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = tempfile.mkdtemp

    def interrupted(*how: object, **named: object) -> str:
        made = make(*how, **named)
        signal.raise_signal(signal.SIGINT)
        return made

    monkeypatch.setattr(tempfile, "mkdtemp", interrupted)
    with pytest.raises(KeyboardInterrupt), temporary_folder(tmp_path):
        pytest.fail("went on")
    assert names(tmp_path) == []


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis").write_text("three years of work")
    (tmp_path / ".multitl-notes").mkdir()
    (tmp_path / ".multitl-abcdefgh").write_text("a file")
    (tmp_path / ".multitl-linklink").symlink_to(tmp_path / "elsewhere")
    before = names(tmp_path)
    clear(tmp_path)
    assert names(tmp_path) == before and names(tmp_path / "elsewhere") == ["thesis"]
    clear(tmp_path / "nowhere")


def test_many_processes_in_one_place_leave_each_other_alone(tmp_path: Path) -> None:
    """Each makes folders, and so clears the place, as fast as it can."""
    code = """
        import sys
        from pathlib import Path
        from multitl.system.writing import write_text
        for number in range(150):
            write_text(Path(sys.argv[1], sys.argv[2]), str(number))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    writers = [subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE, text=True) for i in range(4)]
    assert [writer.communicate()[1] for writer in writers] == [""] * 4
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys("0123", "149")


def test_a_file_that_is_being_written_is_not_a_file_yet(start: Start, tmp_path: Path) -> None:
    """A feature store looks for *.npz and removes what it cannot read: not what another process is writing."""
    code = """
        import sys
        from multitl.system.writing import atomic_write
        with atomic_write(sys.argv[1]) as path:
            path.write_text("half")
            print(flush=True)
            input()
            path.write_text("whole")
    """
    writer = start(code, tmp_path / "shard.npz")
    assert list(tmp_path.glob("*.npz")) == []
    write_text(tmp_path / "other.txt", "")  # clears the place
    writer.communicate("go on\n")
    assert (tmp_path / "shard.npz").read_text() == "whole"
    assert names(tmp_path) == ["other.txt", "shard.npz"]


def test_a_writer_may_replace_the_file(tmp_path: Path) -> None:
    """As safetensors does."""
    with atomic_write(tmp_path / "file") as path:
        path.with_suffix(".part").write_text("new")
        path.with_suffix(".part").rename(path)
    assert (tmp_path / "file").read_text() == "new" and names(tmp_path) == ["file"]


def test_the_cache_is_cleared(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTITL_CACHE", str(tmp_path))
    for place in ("translations", "features/a", "features/b"):
        kill(start(HOLDER, tmp_path / place))
        (tmp_path / place / "kept").mkdir()
    clear_cache()
    for place in ("translations", "features/a", "features/b"):
        assert names(tmp_path / place) == ["kept"]


def test_all_temporary_files_of_a_process_lie_in_one_folder(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of libraries and of other programs that it starts as well."""
    code = """
        import os, subprocess, tempfile
        from multitl.system.scratch import all_temporary_files
        with all_temporary_files():
            tempfile.mkdtemp()
            subprocess.run(["mktemp"], stdout=subprocess.DEVNULL, check=True)
            print(flush=True)
            input()
    """
    kill(start(code, TMPDIR=str(tmp_path)))
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".multitl-") and len(names(left)) == 2
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", "as it was")
    monkeypatch.delenv("TFHUB_CACHE_DIR", raising=False)
    with all_temporary_files():
        (own,) = tmp_path.iterdir()
        assert own != left and os.environ["TMPDIR"] == tempfile.gettempdir() == str(own)
        assert os.environ["TFHUB_CACHE_DIR"] == str(tmp_path / "tfhub_modules")
    assert names(tmp_path) == [] and os.environ["TMPDIR"] == "as it was" and tempfile.gettempdir() == str(tmp_path)
    assert "TFHUB_CACHE_DIR" not in os.environ


def test_without_a_place_for_temporary_files_a_command_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with all_temporary_files():
        assert tempfile.gettempdir() == "/proc/nowhere"
