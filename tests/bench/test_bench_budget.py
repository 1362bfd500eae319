"""What the budget is spent on, in races whose processes are faked: their clock goes on by what each would take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from multitl.bench import race as module
from multitl.bench.jobs import Job, Record
from multitl.bench.results import read_results
from multitl.cli.main import main

TAKES = {"import": 10.0, "load": 2.0, "compile": 8.0}  # seconds of a process
COMMAND = ["bench", "--backbone", "torchvision/resnet18", "--task", "finetune", "--backends", "jax,tensorflow,torch"]


class FakeRace:
    """Processes that take 20 seconds, a check and a measurement alike."""

    def __init__(self) -> None:
        self.now, self.begun = 0.0, list[Job]()

    def run_job(self, job: Job, limit: float, *, is_last: bool) -> Record:
        self.begun.append(job)
        seconds = sum(TAKES.values())
        self.now += min(seconds, limit)
        if seconds > limit:
            return Record(job, "out of time" if is_last else "hung", "no result")
        if job.stage == "check":
            return Record(job, seconds=TAKES | {"step": 0.01}, logits=[[1.0]], losses=[1.0], trainable=1)
        return Record(job, seconds=TAKES, window_seconds=[1.0, 1.0])


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRace:
    one = FakeRace()
    monkeypatch.setattr(module, "run_job", one.run_job)
    monkeypatch.setattr(module.time, "monotonic", lambda: one.now)
    monkeypatch.setattr(module, "missing_packages", lambda name: [])
    monkeypatch.setattr(module.Race, "_prepare", lambda race: None)
    return one


def stages(fake: FakeRace) -> list[tuple[str, str]]:
    return [(job.cell.contender, job.stage) for job in fake.begun]


def test_checks_leave_time_to_measure(fake: FakeRace, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """90 seconds are four processes and a bit: two checks, two measurements, where three checks would have left one."""
    out = tmp_path / "race"
    assert main([*COMMAND, "--budget", "96", "--repetitions", "1", "--out", str(out)]) == 0
    assert stages(fake) == [
        ("jax", "check"), ("tensorflow", "check"), ("jax", "measure"), ("tensorflow", "measure"),
    ]  # fmt: skip
    assert "not begun: what is left of the budget is for the others" in capsys.readouterr().out


def test_with_more_time_a_race_goes_on_with_those_that_were_not_begun(fake: FakeRace, tmp_path: Path):
    out = tmp_path / "race"
    assert main([*COMMAND, "--budget", "96", "--repetitions", "1", "--out", str(out)]) == 0
    fake.begun.clear()
    assert main([*COMMAND, "--budget", "300", "--repetitions", "1", "--out", str(out), "--resume"]) == 0
    assert stages(fake) == [("torch", "check"), ("torch", "measure")]
    assert {record.state for record in read_results(out / "results.jsonl").records} == {"done"}


def test_a_race_in_which_nothing_was_measured_fails(
    fake: FakeRace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    crash: Callable[..., Record] = lambda job, limit, is_last: Record(job, "crashed", "Segmentation fault")  # noqa: E731
    monkeypatch.setattr(module, "run_job", crash)
    assert main([*COMMAND, "--budget", "300", "--out", str(tmp_path / "race")]) == 2
    said = capsys.readouterr().err
    assert "multitl: Nothing was measured." in said and "jax: crashed (Segmentation fault)" in said
    assert (tmp_path / "race" / "bench.html").is_file()


def test_a_budget_that_is_too_small_for_anything_is_told(
    fake: FakeRace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name, seconds in dict(TAKES).items():
        monkeypatch.setitem(TAKES, name, 2 * seconds)
    assert main([*COMMAND, "--budget", "60", "--out", str(tmp_path / "race")]) == 2
    assert "a larger --budget (with --resume it goes on)" in capsys.readouterr().err
