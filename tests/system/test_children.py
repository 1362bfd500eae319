"""A child process never outlives its parent, and neither does what it starts itself. Real processes, really killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from live_processes import Start, is_alive, kill, names, wait_until

from multitl.system import children

MODULE = """
import multiprocessing, os, sys, threading, time
from pathlib import Path
from multitl.system import children

def note(name):
    Path(sys.argv[1], f"{name}.part").write_text(str(os.getpid()))
    Path(sys.argv[1], f"{name}.part").rename(Path(sys.argv[1], name))
    time.sleep(600)

def main():
    multiprocessing.get_context("fork").Process(target=note, args=("forked",)).start()
    threading.Thread(target=note, args=("child",), daemon=True).start()
    if len(sys.argv) == 2:
        Path(sys.argv[1], "deep").mkdir()
        children.run("sleeper", [str(Path(sys.argv[1], "deep")), "no deeper"], os.environ)
    time.sleep(600)

if __name__ == "__main__":
    main()
"""
PARENT = """
import os, sys
from multitl.system import children
print(flush=True)
children.run("sleeper", [sys.argv[1]], os.environ)
"""
PROCESSES = ("forked", "child", "deep/forked", "deep/child")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that children can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "sleeper.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sigkill_takes_children_and_grandchildren_along(start: Start, modules: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "tmp").mkdir()
    parent = start(PARENT, tmp_path / "out", TMPDIR=str(tmp_path / "tmp"))
    wait_until(lambda: all((tmp_path / "out" / name).is_file() for name in PROCESSES))
    numbers = [int((tmp_path / "out" / name).read_text()) for name in PROCESSES]
    assert all(map(is_alive, numbers)) and len(set(numbers)) == 4
    kill(parent)
    wait_until(lambda: not any(map(is_alive, numbers)), seconds=5)
    assert len(names(tmp_path / "tmp")) == 1  # which the next one clears up


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_end_of_the_time_takes_all_along(modules: Path, tmp_path: Path) -> None:
    ended = children.run("sleeper", [str(tmp_path)], os.environ, limit=5)
    assert ended.code is None
    numbers = [int((tmp_path / name).read_text()) for name in PROCESSES if (tmp_path / name).is_file()]
    assert numbers
    wait_until(lambda: not any(map(is_alive, numbers)), seconds=5)


def test_a_child_without_its_parent_ends_at_once() -> None:
    """It was killed between starting the child and the child's first line: the number is another one's."""
    command = [sys.executable, "-P", "-m", "multitl.system.children", "1", "", "multitl"]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL


def test_a_child_is_its_modules_main(modules: Path, tmp_path: Path) -> None:
    (modules / "speaker.py").write_text(
        "import sys, tempfile\n"
        "print(__name__, sys.argv[1:], tempfile.gettempdir())\n"
        "print('first\\n  last words  \\n', file=sys.stderr)\n"
        "sys.exit(3)\n"
    )
    ended = children.run("speaker", ["a b", ""], os.environ)
    name, _, rest = ended.out.partition(" ")
    arguments, _, folder = rest.strip().rpartition(" ")
    assert (name, arguments, ended.code, children.last_words(ended)) == ("__main__", "['a b', '']", 3, "last words")
    assert Path(folder).name.startswith(".multitl-") and not Path(folder).exists()


def test_a_tie_by_looking_for_the_parent(start: Start, tmp_path: Path) -> None:
    """What other systems than Linux do."""
    code = """
        import os, subprocess, sys
        child = "import os, sys, time; from multitl.system import children; sys.platform = 'darwin'"
        child += "; children.die_with(int(sys.argv[1])); print(os.getpid(), flush=True); time.sleep(600)"
        process = subprocess.Popen([sys.executable, "-c", child, str(os.getpid())], stdout=open(sys.argv[1], "w"))
        print(flush=True)
        process.wait()
    """
    parent = start(code, tmp_path / "number")
    wait_until(lambda: (tmp_path / "number").read_text().endswith("\n"))
    number = int((tmp_path / "number").read_text())
    assert is_alive(number)
    kill(parent)
    wait_until(lambda: not is_alive(number), seconds=5)
