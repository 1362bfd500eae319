"""A finished run is what its card says, or is made so again from its checkpoint, or says that it cannot be."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import pytest
from quick_runs import BACKBONE

import multitl
from multitl.cli.main import main
from multitl.runs.promises import FILES, REPORT, broken_files
from multitl.training.checkpoints import CHECKPOINT, load_state, save_state

QUICK = [
    "--backbone", BACKBONE, "--weights", "none", "--image-size", "32", "--hidden", "8",
    "--dropout", "0.2", "--unfreeze", "none",
]  # fmt: skip
EPOCHS = {
    "head": ["--head-epochs", "2"],
    "both": ["--head-epochs", "2", "--unfreeze", "last", "--learning-rate", "5e-4", "--steps", "2"],
}
SAME = ("model.keras", "metrics.json", "predictions.csv", "history.csv", "recipe.toml", "run.json", CHECKPOINT)


def resume(photos: Path, out: Path, phases: str = "head") -> int:
    return main(["finetune", str(photos), "--out", str(out), *QUICK, *EPOCHS[phases], "--resume"])


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert resume(photos, out) == 0
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def contents(folder: Path) -> dict[str, object]:
    """Of a model the weights alone: in one process, Keras numbers the layers of each further model on."""
    found: dict[str, object] = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    if "model.keras" in found:
        found["model.keras"] = weights_in(folder / "model.keras")
    return found


def weights_in(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        values: dict[str, bytes] = {}

        def note(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset):
                values[name] = item[()].tobytes()

        file.visititems(note)
        return values


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """On stderr, lines joined again."""
    return " ".join(capsys.readouterr().err.split())


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "missing": Path.unlink,
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_bytes(b""),
    "pipe": as_pipe,
    "endless": lambda path: path.unlink() or path.symlink_to("/dev/zero"),
}


def test_the_card_holds_the_checksum_of_each_file(finished: Path) -> None:
    files = json.loads((finished / "card.json").read_text())["files"]
    assert set(files) == {path.name for path in finished.iterdir()} - {"card.json", CHECKPOINT}
    for name, digest in files.items():
        assert digest == hashlib.sha256((finished / name).read_bytes()).hexdigest()
    assert broken_files(finished) == []


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, damage) for name in (*FILES, REPORT, "card.json") for damage in DAMAGES
     if (name, damage) != ("card.json", "flipped")],  # its types are checked, but it has no checksum of its own
)  # fmt: skip
def test_every_damage_is_noticed(run: Path, name: str, damage: str) -> None:
    DAMAGES[damage](run / name)
    assert broken_files(run) == [name]


@pytest.mark.parametrize("files", [{}, {"../card.json": "0" * 64}, {"model.keras": "0" * 64}, {"model.keras": "x"}, []])
def test_a_card_that_lists_other_files_promises_nothing(run: Path, files: object) -> None:
    card = json.loads((run / "card.json").read_text())
    (run / "card.json").write_text(json.dumps(card | {"files": files}))
    assert broken_files(run)


@pytest.mark.parametrize("phases", EPOCHS)
@pytest.mark.every_backend
def test_lost_files_are_made_again_to_the_bit(photos: Path, tmp_path: Path, phases: str, capsys) -> None:
    run = tmp_path / "run"
    assert resume(photos, run, phases) == 0
    before = contents(run)
    for name in ("model.keras", "metrics.json"):
        (run / name).unlink()
    for name in ("predictions.csv", "history.csv", REPORT):
        flip(run / name)
    capsys.readouterr()
    assert resume(photos, run, phases) == 0
    assert "made again from the checkpoint" in said(capsys)
    after = contents(run)
    assert {name: after[name] for name in SAME} == {name: before[name] for name in SAME}
    assert set(after) == set(before) and broken_files(run) == []
    assert resume(photos, run, phases) == 0
    assert "complete already" in said(capsys)


def test_a_lost_card_is_made_again(photos: Path, run: Path) -> None:
    before = contents(run)
    (run / "card.json").write_text("{half")
    assert resume(photos, run) == 0
    after = contents(run)
    assert {name: after[name] for name in SAME} == {name: before[name] for name in SAME}
    assert broken_files(run) == []


def test_a_report_is_made_again_from_the_other_files_alone(photos: Path, run: Path) -> None:
    before = contents(run)
    (run / CHECKPOINT).unlink()
    (run / REPORT).write_text("<html>")
    assert resume(photos, run) == 0
    assert contents(run) == {name: content for name, content in before.items() if name != CHECKPOINT}


def test_what_cannot_be_made_again_is_an_error(photos: Path, run: Path, capsys) -> None:
    (run / "model.keras").unlink()
    before = contents(run)
    flip(run / CHECKPOINT)
    assert resume(photos, run) == 2
    assert "damaged" in capsys.readouterr().err
    (run / CHECKPOINT).unlink()
    assert resume(photos, run) == 2
    message = capsys.readouterr().err
    assert "model.keras" in message and "no checkpoint" in message and "--overwrite" in message
    assert contents(run) == {name: content for name, content in before.items() if name != CHECKPOINT}


def test_a_checkpoint_of_another_recipe_is_refused(photos: Path, run: Path, capsys) -> None:
    state = load_state(run)
    state.phase = "finetune"
    save_state(run, state)
    (run / "model.keras").unlink()
    assert resume(photos, run) == 2
    assert "belongs to another recipe" in said(capsys)
    state.phase, state.best = "head", state.best[:1]
    save_state(run, state)
    assert resume(photos, run) == 2
    assert "belongs to another model" in said(capsys)


def test_other_data_is_refused_on_a_finished_run(photos: Path, run: Path, tmp_path: Path, capsys) -> None:
    other = Path(shutil.copytree(photos, tmp_path / "other"))
    (other / "cat" / "00.png").unlink()
    before = contents(run)
    assert resume(other, run) == 2
    assert "The data changed" in capsys.readouterr().err
    assert contents(run) == before
    moved = Path(shutil.copytree(photos, tmp_path / "moved"))  # the same pictures elsewhere are the same data
    assert resume(moved, run) == 0


def test_other_weights_of_the_backbone_make_nothing_again(photos: Path, run: Path, capsys) -> None:
    """The checkpoint holds the trained part alone."""
    started = json.loads((run / "run.json").read_text()) | {"weights_sha256": "0" * 64}
    (run / "run.json").write_text(json.dumps(started))
    assert resume(photos, run) == 2
    assert "backbone's weights changed" in capsys.readouterr().err


def test_a_run_of_an_older_version_can_be_used_and_says_what_it_lacks(photos: Path, run: Path, capsys) -> None:
    card = json.loads((run / "card.json").read_text())
    del card["files"], card["warnings"]
    (run / "card.json").write_text(json.dumps(card))
    (run / CHECKPOINT).unlink()
    before = contents(run)
    assert resume(photos, run) == 0
    text = said(capsys)
    assert "cannot be checked" in text and "--overwrite" in text and "complete already" in text
    assert multitl.predict(run, [photos / "cat"])[0]["predicted"] in ("cat", "dog")
    assert contents(run) == before
    (run / "model.keras").unlink()
    assert resume(photos, run) == 2
    message = capsys.readouterr().err
    assert "has lost model.keras" in message and "--overwrite" in message


CLOCK = """
import time
time.time = lambda: 3600.0  # an hour into 1970
import sys
import zipfile
from multitl.cli.main import main
sys.exit(main())
"""


def test_a_clock_before_1980_does_not_lose_a_training(photos: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", CLOCK, "finetune", photos, "--out", out, *QUICK, *EPOCHS["head"]]
    environment = os.environ | {"KERAS_BACKEND": keras.config.backend()}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (out / "metrics.json").read_text() == (finished / "metrics.json").read_text()
    assert broken_files(out) == []


@pytest.mark.slow
def test_fine_tuning_that_diverges_is_a_finished_run_with_a_warning(photos: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    fast = ["--optimizer", "sgd", "--learning-rate", "100", "--schedule", "constant", "--patience", "0"]
    command = ["finetune", str(photos), "--out", str(out), *QUICK, "--head-epochs", "1", *fast]
    command += ["--head-learning-rate", "1e-3", "--unfreeze", "all", "--steps", "60"]
    assert main(command) == 0
    assert "Fine-tuning diverged" in said(capsys)
    card = json.loads((out / "card.json").read_text())
    assert "diverged" in card["warnings"][0] and "--learning-rate" in card["warnings"][0]
    assert "Fine-tuning diverged" in (out / REPORT).read_text()
    before = contents(out)
    (out / "model.keras").unlink()
    assert main([*command, "--resume"]) == 0
    assert contents(out)["model.keras"] == before["model.keras"]
