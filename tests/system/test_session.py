"""Commands as processes: two at once, ended, killed. Everything is real, and small."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import pytest
from conftest import ELSEWHERE_SLOW, elsewhere_slow
from live_processes import is_alive, wait_until
from quick_runs import QUICK, message_of

from multitl.cli.main import main
from multitl.system import children

SLOW = [*QUICK, "--head-epochs", "4000", "--patience", "0"]  # it would take minutes


Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command in a process of its own, which hears the signals that this one may ignore."""
    processes = []
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "[signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)]; "
    program += "from multitl.cli.main import main; sys.exit(main())"

    def start_command(*arguments: str | Path, **variables: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=os.environ | {"KERAS_BACKEND": keras.config.backend()} | variables,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start_command
    for process in processes:
        if process.returncode is None:
            process.kill()
            process.communicate()


def wait_for(process: subprocess.Popen, is_ready: Callable[[], object]) -> None:
    ends = time.monotonic() + 240
    while not is_ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends, "never got that far"
        time.sleep(0.01)


def finish(process: subprocess.Popen) -> None:
    said = process.communicate(timeout=240)
    assert process.returncode == 0, said


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@elsewhere_slow
def test_a_second_process_is_refused_and_the_first_ends_well(
    start: Start, capsys: pytest.CaptureFixture[str], photos: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = [*QUICK, "--head-epochs", "50"]
    first = start("finetune", photos, "--out", out, *options)
    wait_for(first, (out / "run.json").is_file)
    before = (out / "run.json").read_bytes()
    for permission in ("--overwrite", "--resume"):
        capsys.readouterr()
        command = ["finetune", str(photos), "--out", str(out), *options, permission]
        message = message_of(main(command), *capsys.readouterr())
        assert f"process {first.pid} " in message and "--out" in message
    assert (out / "run.json").read_bytes() == before
    finish(first)
    assert tree(out) - {name for name in tree(out) if "events" in name} == {
        name for name in tree(finished) if "events" not in name
    }
    assert main(["finetune", str(photos), "--out", str(out), *options, "--resume"]) == 0  # nobody is there any more


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.every_backend),
        pytest.param(signal.SIGHUP, 129, marks=ELSEWHERE_SLOW),  # goes the same way, see test_interrupts.py
    ],
)
def test_sigterm_says_how_to_resume(start: Start, photos: Path, tmp_path: Path, number: int, code: int) -> None:
    out, temporary = tmp_path / "run", tmp_path / "tmp"
    temporary.mkdir()
    process = start("finetune", photos, "--out", out, *SLOW, TMPDIR=str(temporary))
    wait_for(process, (out / "history.csv").is_file)
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:  # as Ctrl-C in test_resume.py: Python drops what meets it in a destructor
        process.send_signal(number)
        _, said = process.communicate(timeout=240)
    assert process.returncode == code and "--resume" in said and "Traceback" not in said
    assert tree(temporary) == set() and not any("multitl" in name for name in tree(out))


@elsewhere_slow
def test_two_processes_fill_one_store(start: Start, photos: Path, finished: Path, tmp_path: Path) -> None:
    """Both compute the same features at the same time, and end right."""
    cache, runs = str(tmp_path / "cache"), [tmp_path / "one", tmp_path / "two"]
    both = [start("finetune", photos, "--out", out, *QUICK, MULTITL_CACHE=cache) for out in runs]
    for process in both:
        finish(process)
    metrics = [(out / "metrics.json").read_text() for out in [finished, *runs]]
    assert metrics[0] == metrics[1] == metrics[2]
    assert not any("multitl" in name for name in tree(tmp_path))


@pytest.mark.slow
def test_a_killed_port_leaves_no_process_and_the_next_one_no_trace(
    start: Start, finished: Path, tmp_path: Path
) -> None:
    out, temporary = tmp_path / "out" / "port", tmp_path / "tmp"
    temporary.mkdir()
    command = ["port", finished, "--to", "keras", "--out", out]
    process = start(*command, TMPDIR=str(temporary))
    wait_for(process, lambda: workers_of(process.pid))
    family = [process.pid, *workers_of(process.pid)]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not any(map(is_alive, family)), seconds=5)
    assert tree(tmp_path / "out") and tree(temporary)
    finish(start(*command, TMPDIR=str(temporary)))
    assert tree(temporary) == set() and {"port/card.json", "port/model.keras"} <= tree(tmp_path / "out")
    assert not any("multitl" in name for name in tree(tmp_path / "out"))
    assert json.loads((out / "card.json").read_text())["proof"]["top1"] == 1


def workers_of(number: int) -> list[int]:
    """The processes that were started by `children.run` of a process."""
    mark = f"\0{children.__name__}\0{number}\0".encode()
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found += [int(file.parent.name)] if mark in file.read_bytes() else []
    return found


@elsewhere_slow
def test_two_processes_port_to_one_place(
    start: Start, capsys: pytest.CaptureFixture[str], finished: Path, tmp_path: Path
) -> None:
    command = ["port", str(finished), "--to", "keras", "--out", str(tmp_path / "port")]
    first = start(*command)
    wait_for(first, (tmp_path / ".port.multitl.lock").is_file)
    capsys.readouterr()
    message = message_of(main([*command, "--overwrite"]), *capsys.readouterr())
    assert f"process {first.pid} " in message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for two pages, or skip."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # whatever still looks at it


@elsewhere_slow
def test_a_full_tmpdir_is_a_full_disk(start: Start, finished: Path, small_disk: Path, tmp_path: Path) -> None:
    """Its images to compare on do not fit."""
    process = start("port", finished, "--to", "keras", "--out", tmp_path / "port", TMPDIR=str(small_disk))
    out, said = process.communicate(timeout=240)
    message = message_of(process.returncode, out, said)
    assert "no room left" in message and "No space left" in message and "TMPDIR" in message
    assert tree(tmp_path) == {"disk"}
