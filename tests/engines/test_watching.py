"""Workers that are lost come back, those that fail end the work, and none is ever left. Processes are really ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import keras
import pytest
from live_processes import Start, is_alive, names, wait_until

from multitl.engines import ray_engine, watching
from multitl.engines.this_machine import local_team
from multitl.errors import GroupError
from multitl.runs.folders import RUN_FILES

if keras.config.backend() != "jax":
    pytest.skip("loads no framework", allow_module_level=True)

# FOLDER DEED...: notes that it was started, then does what it is told, as RANK:START:HOW, where HOW is an exit code, or
# negative a signal to itself; deeds are done in their order. Who is told nothing waits while a deed of this start is
# left, and is done.
MODULE = """
import os, sys, time
from pathlib import Path
folder, rank, name = Path(sys.argv[1]), os.environ["RANK"], "RANK WORLD_SIZE MASTER_PORT OMP_NUM_THREADS"
start = len(list(folder.glob(f"*.{rank}")))
told = [os.environ[one] for one in name.split()] + [str(sorted(os.sched_getaffinity(0))), str(os.getpid())]
Path(folder, "part").joinpath(f"{start}.{rank}").write_text("|".join(told))
Path(folder, "part", f"{start}.{rank}").rename(folder / f"{start}.{rank}")
deeds = [deed.split(":") for deed in sys.argv[2:] if deed.split(":")[1] == str(start)]
while len(list(folder.glob(f"{start}.*"))) < int(os.environ["WORLD_SIZE"]):
    time.sleep(0.01)
for number, (who, _, how) in enumerate(deeds):
    done = folder / "part" / f"{start}.done{number}"
    while who != rank and not done.exists():
        time.sleep(0.01)
    if who == rank:
        print(f"multitl: worker {rank} did {how}", file=sys.stderr, flush=True)
        done.touch()
        os.kill(os.getpid(), -int(how)) if int(how) < 0 else sys.exit(int(how))
if deeds:
    time.sleep(600)
print(f"{rank} is done")
"""
LAUNCHER = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
from multitl.engines.this_machine import local_team
from multitl.system.interrupts import requests_to_end
print(flush=True)
with requests_to_end(), local_team(sys.argv[1:], 2, [], "deeds") as team:
    while None in team.codes():
        pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workers note their starts; their module can be imported."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "deeds.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "modules"), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "folder" / "part").mkdir(parents=True)
    return tmp_path / "folder"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that was begun."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").touch()
    return tmp_path / "run"


class Launcher:
    """Starts teams of two in this process, and remembers whether they were to resume."""

    def __init__(self, folder: Path, *deeds: str, begins: Path | None = None) -> None:
        self.arguments, self.resumed, self.begins = [str(folder), *deeds], list[bool](), begins

    def __call__(self, resumes: bool) -> AbstractContextManager[watching.Team]:
        self.resumed.append(resumes)
        if self.begins:  # a new file, as rank 0 makes it
            self.begins.with_suffix(".new").write_text("")
            self.begins.with_suffix(".new").replace(self.begins)
        return local_team(self.arguments, 2, [], "deeds")


def starts(folder: Path) -> list[list[str]]:
    return [path.read_text().split("|") for path in sorted(folder.glob("*.*"))]


def nothing_is_left(folder: Path) -> bool:
    return not any(is_alive(int(words[-1])) for words in starts(folder))


def test_workers_know_each_other_and_share_the_cores(folder: Path, run: Path, capfd: pytest.CaptureFixture[str]):
    watching.see_through(Launcher(folder), run, 0, resumes=False)
    first, second = starts(folder)
    assert (first[:2], second[:2]) == (["0", "2"], ["1", "2"])
    assert first[2] == second[2] and int(first[2]) > 0
    cores = len(os.sched_getaffinity(0))
    assert first[3] == str(max(1, cores // 2))
    assert cores < 2 or not {*first[4].strip("[]").split(", ")} & {*second[4].strip("[]").split(", ")}
    assert capfd.readouterr().out == "0 is done\n"  # the others are not heard
    assert names(run) == ["recipe.toml"]


@pytest.mark.parametrize(("deeds", "lost"), [("1:0:-9", 1), ("0:0:75 1:0:143", 1), ("1:0:75 0:0:-6", 0)])
def test_a_lost_worker_comes_back_and_all_resume(folder: Path, run: Path, deeds: str, lost: int, capfd):
    """75: it lost another one."""
    launcher = Launcher(folder, *deeds.split(), begins=run / "recipe.toml")
    watching.see_through(launcher, run, 1, resumes=False)
    assert launcher.resumed == [False, True]
    assert len(starts(folder)) == 4 and nothing_is_left(folder)
    assert f"worker {lost} was lost" in capfd.readouterr().err
    log = (run / watching.LOG).read_text()
    assert ("multitl: worker 1 did" in log) and log.count("worker 0 of 2") == 1
    assert watching.LOG in RUN_FILES  # it goes with the run


def test_a_run_that_had_not_begun_begins_again(folder: Path, run: Path):
    """What lies there is an older run, that was to be overwritten."""
    launcher = Launcher(folder, "1:0:-9")
    watching.see_through(launcher, run, 1, resumes=False)
    assert launcher.resumed == [False, False]


def test_what_is_lost_before_there_is_a_run_is_told_at_once(folder: Path, tmp_path: Path, capfd):
    with pytest.raises(GroupError, match="were lost 1 times") as told:
        watching.see_through(Launcher(folder, "1:0:-9"), tmp_path / "none", 0, resumes=False)
    assert "multitl: worker 1 did -9" in capfd.readouterr().err and watching.LOG not in str(told.value)
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_earns_new_tries(folder: Path, run: Path):
    launcher = Launcher(folder, "1:0:-9", "1:1:-9", begins=run / "checkpoint.safetensors")
    watching.see_through(launcher, run, 1, resumes=True)
    with pytest.raises(GroupError, match="2 times without a new checkpoint"):
        watching.see_through(Launcher(folder, "1:3:-9", "1:4:-9"), run, 1, resumes=True)
    assert nothing_is_left(folder)


@pytest.mark.parametrize(("code", "rank"), [(2, 0), (2, 1), (1, 1)])
def test_a_worker_at_fault_ends_all_at_once(folder: Path, run: Path, code: int, rank: int, capfd, monkeypatch):
    monkeypatch.setattr(watching, "GRACE", 0.5)  # the other one will not end by itself
    launcher = Launcher(folder, f"{rank}:0:{code}")
    with pytest.raises(SystemExit) as ended:
        watching.see_through(launcher, run, 3, resumes=False)
    assert ended.value.code == code and launcher.resumed == [False] and nothing_is_left(folder)
    told = capfd.readouterr().err
    assert told.count(f"multitl: worker {rank} did {code}") == 1
    assert ("worker 1 of 2:" in told) == (rank == 1)


def test_a_fault_weighs_more_than_the_loss_that_follows(folder: Path, run: Path):
    with pytest.raises(SystemExit):
        watching.see_through(Launcher(folder, "0:0:75", "1:0:2"), run, 3, resumes=False)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_the_end_of_the_launcher_is_that_of_its_workers(folder: Path, start: Start, tmp_path: Path, number: int):
    (tmp_path / "tmp").mkdir()
    launcher = start(LAUNCHER, folder, "0:0:0", "1:9:0", TMPDIR=str(tmp_path / "tmp"))
    wait_until(lambda: len(starts(folder)) == 2)
    launcher.send_signal(number)
    assert launcher.wait(30)
    wait_until(lambda: nothing_is_left(folder), seconds=5)
    assert number == signal.SIGKILL or names(tmp_path / "tmp") == []


@pytest.fixture
def ray(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    handler = signal.getsignal(signal.SIGTERM)
    with ray_engine.connected("", 2):
        assert signal.getsignal(signal.SIGTERM) == handler
        yield


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_ray_does_the_same(ray: None, folder: Path, run: Path, capfd: pytest.CaptureFixture[str]):
    def start(resumes: bool) -> AbstractContextManager[watching.Team]:
        return ray_engine.ray_team([str(folder), "1:0:-9", "0:1:2"], 2, run, "deeds")

    with pytest.raises(SystemExit):
        watching.see_through(start, run, 1, resumes=False)
    assert len(starts(folder)) == 4
    wait_until(lambda: nothing_is_left(folder), seconds=10)
    assert "worker 0 did 2" in capfd.readouterr().err
    assert "worker 1 did -9" in (run / watching.LOG).read_text()
    watching.see_through(lambda resumes: ray_engine.ray_team([str(folder)], 2, run, "deeds"), run, 0, resumes=False)
    assert capfd.readouterr().out == "0 is done\n"
