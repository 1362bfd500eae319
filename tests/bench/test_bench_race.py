"""Whole races in real processes: files appear, a race goes on where it was, the budget holds."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import pytest

from multitl.bench import race
from multitl.bench.machine import describe_machine
from multitl.bench.results import read_results
from multitl.bench.standings import rank
from multitl.cli.main import main

FILES = ("results.jsonl", "results.csv", "bench.html")


def insist_on(*packages: str) -> None:
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        pytest.skip(f"needs {', '.join(missing)}")


def test_reading_files_is_raced_and_goes_on_where_it_was(
    photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    insist_on("torchvision")
    folder = tmp_path / "race"
    command = ["bench", "--task", "input", "--data", str(photo_folder), "--image-size", "32", "--batch-size", "4"]
    command += ["--backends", "multitl,torch-dataloader"]
    command += ["--threads", "1", "--out", str(folder), "--timeout", "120"]
    started = time.monotonic()
    assert main([*command, "--budget", "100", "--repetitions", "1", "--markdown", str(tmp_path / "R.md")]) == 0
    assert time.monotonic() - started < 100
    assert all((folder / name).stat().st_size > 200 for name in FILES)
    assert "multitl" in capsys.readouterr().out
    found = read_results(folder / "results.jsonl")
    (contest,) = rank(found.records)
    states = {standing.contender: standing.status for standing in contest.standings}
    assert states["multitl"] == states["torch-dataloader"] == "ranked"
    assert "# Benchmark" in (tmp_path / "R.md").read_text(encoding="utf-8")

    assert main([*command, "--budget", "100", "--repetitions", "1"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*command, "--budget", "100", "--repetitions", "1", "--resume"]) == 0
    assert read_results(folder / "results.jsonl").records == found.records  # nothing was left to do
    assert main([*command, "--budget", "100", "--resume", "--overwrite"]) == 2
    assert main([*command, "--budget", "100", "--resume", "--batch-size", "2"]) == 2
    assert "started with other options" in capsys.readouterr().err
    monkeypatch.setattr(race, "describe_machine", lambda: describe_machine() | {"processor": "abacus"})
    assert main([*command, "--budget", "100", "--resume"]) == 2
    assert "processor abacus" in capsys.readouterr().err
    (tmp_path / "R.md").write_text("my notes")
    assert main([*command, "--budget", "100", "--resume", "--markdown", str(tmp_path / "R.md")]) == 2
    assert "--markdown" in capsys.readouterr().err and (tmp_path / "R.md").read_text() == "my notes"
    assert main(["bench", "compare", str(folder), str(folder)]) == 0
    assert "no clear change" in capsys.readouterr().out


def test_a_folder_of_others_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "letter.txt").write_text("dear")
    assert main(["bench", "--out", str(tmp_path), "--overwrite"]) == 2
    assert "is left alone" in capsys.readouterr().err
    assert (tmp_path / "letter.txt").read_text() == "dear"


@pytest.mark.slow
def test_multitl_and_native_loops_agree_and_are_ranked(tmp_path: Path):
    """Every contender but torch.compile, on a small network: about six minutes on two cores."""
    insist_on("jax", "tensorflow", "torchvision")
    folder = tmp_path / "race"
    command = ["bench", "--backbone", "torchvision/resnet18", "--image-size", "64", "--batch-size", "8"]
    command += ["--task", "head,finetune", "--repetitions", "1", "--budget", "1500", "--out", str(folder)]
    assert main(command) == 0
    for contest in rank(read_results(folder / "results.jsonl").records):
        states = {standing.contender: (standing.status, standing.note) for standing in contest.standings}
        outsiders = {"textbook"} if contest.cell.task == "finetune" else set()
        assert {name for name, (state, _) in states.items() if state != "ranked"} == outsiders, states
        assert contest.gap is not None
        assert contest.gap < 2e-3
