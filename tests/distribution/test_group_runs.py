"""Several processes work on one run as one would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from group_processes import answers, figures, run_group, started
from live_processes import kill, wait_until
from PIL import Image
from quick_runs import message_of
from small_backbones import save_backbone

from multitl.cli.main import main
from multitl.distribution.group import Group
from multitl.errors import LOST
from multitl.training.checkpoints import load_state

OPTIONS = "--unfreeze all --augment light --steps 24 --learning-rate 1e-3 --budget none --batch-size 4"


@pytest.fixture(scope="module")
def arguments(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    backbone = save_backbone(tmp_path_factory.mktemp("backbones") / "small.keras")
    return [str(photos), "--backbone", f"file:{backbone}", *OPTIONS.split()]


@pytest.fixture(scope="module")
def alone(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    ((code, _, told),) = run_group([*arguments, "--out", str(out)])
    assert code == 0, told
    return out


def assert_same(run: Path, other: Path) -> None:
    np.testing.assert_allclose(figures(run), figures(other), atol=1e-5)
    (names, probabilities), (same_names, same) = answers(run), answers(other)
    assert names == same_names
    np.testing.assert_allclose(probabilities, same, atol=1e-5)


@pytest.mark.every_backend
def test_two_processes_train_what_one_would(arguments: list[str], alone: Path, tmp_path: Path):
    together = [*arguments, "--out", str(tmp_path / "together")]
    (code, out, told), second = run_group(together, together)
    assert (code, second[0]) == (0, 0), told + second[2]
    assert str(tmp_path / "together") in out and second[1:] == ("", "")  # the first one speaks for both
    assert_same(tmp_path / "together", alone)


@pytest.mark.every_backend
@pytest.mark.slow
def test_what_two_began_one_ends(arguments: list[str], alone: Path, tmp_path: Path):
    """One of the two is killed while they fine-tune: the other ends with a message, and the checkpoint is there."""
    out = tmp_path / "run"
    with started([[*arguments, "--out", str(out)]] * 2) as (first, second):
        wait_until(lambda: (out / "checkpoint.safetensors").exists() and load_state(out).rows[-1]["trial"] == 1, 300)
        kill(second)
        _, told = first.communicate(timeout=300)
    assert first.returncode == LOST, told
    assert "Process 1 of 2 is lost" in told and "--resume" in told
    ((code, _, told),) = run_group([*arguments, "--out", str(out), "--resume"])
    assert code == 0, told
    assert_same(out, alone)
    assert json.loads((out / "card.json").read_text())["features"]["computed"] == 0


@pytest.mark.slow
def test_different_data_is_refused(arguments: list[str], photos: Path, tmp_path: Path):
    other = shutil.copytree(photos, tmp_path / "photos")
    Image.new("RGB", (12, 10)).save(other / "cat" / "03.png")
    out = ["--out", str(tmp_path / "run")]
    for code, _, told in run_group([*arguments, *out], [str(other), *arguments[1:], *out]):
        assert code == 2, told
        assert "Not all processes have the same data" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("group", "change", "problem"),
    [
        (Group(0, 3, "127.0.0.1:29500"), {}, "3 processes cannot share a batch of 4 images evenly"),
        (Group(0, 2, "127.0.0.1:29500"), {"RANK": ""}, "RANK is missing"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    group: Group, change: dict[str, str], problem: str, arguments: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    for name, value in (group.environment() | change).items():
        monkeypatch.setenv(name, value)
    code = main(["finetune", *arguments, "--out", str(tmp_path / "run")])
    assert problem in message_of(code, *capsys.readouterr())


@pytest.mark.every_backend
@pytest.mark.slow
def test_two_processes_train_what_one_would_on_real_photos(shared_data: Path, tmp_path: Path):
    runs = [tmp_path / "alone", tmp_path / "together"]
    options = "--unfreeze last --augment light --steps 12 --learning-rate 7e-4 --budget none"
    commands = [[str(shared_data / "clothing_tiny"), *options.split(), "--out", str(run)] for run in runs]
    for size, command in enumerate(commands, start=1):
        assert [code for code, _, _ in run_group(*[command] * size)] == [0] * size
    assert_same(*runs)
