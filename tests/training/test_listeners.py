"""Who hears of each epoch hears of all of them, and costs no run anything."""

from __future__ import annotations

import csv
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers
from quick_runs import make_photos
from test_logs import read_events

import multitl
from multitl.cli.main import main
from multitl.recipes import Recipe
from multitl.system.hiding import hide
from multitl.training.listeners import figures_of, listening
from multitl.training.trackers import FIGURES, PACKAGES

HEAD_EPOCHS = 3


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A head that is trained and a trial, on a network that compiles in a second."""
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    for width in (8, 12):
        x = layers.ReLU()(layers.Conv2D(width, 3, strides=4, padding="same")(x))
    path = tmp_path_factory.mktemp("backbones") / "small.keras"
    keras.utils.set_random_seed(0)
    keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)), name="small").save(path)
    return Recipe(backbone=f"file:{path}", image_size=32, dropout=0.2, head_epochs=HEAD_EPOCHS, batch_size=8,
                  learning_rate=1e-3, steps=4, budget="none")  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("data") / "photos", ["cat", "dog"], 12)


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


def stop_at(epoch: int, heard: list[int]) -> Callable[[dict[str, Any]], None]:
    def on_epoch(row: dict[str, Any]) -> None:
        heard.append(row["epoch"])
        if row["epoch"] == epoch:
            raise ZeroDivisionError("mine")

    return on_epoch


@pytest.mark.every_backend
def test_every_line_of_the_history_is_heard_once(photos: Path, recipe: Recipe, tmp_path: Path):
    heard: list[dict[str, Any]] = []

    def on_epoch(row: dict[str, Any]) -> None:
        heard.append(dict(row))
        row.clear()  # it is the listener's own

    result = multitl.finetune(photos, output=tmp_path / "run", recipe=recipe, on_epoch=on_epoch)
    lines = history(result.output)
    assert [{name: str(value) for name, value in row.items()} for row in heard] == [
        {"epoch": str(number), **line} for number, line in enumerate(lines, start=1)
    ]
    assert [row["phase"] for row in heard].count("head") == HEAD_EPOCHS and heard[-1]["phase"] == "finetune"
    assert not (result.output / "tensorboard").exists()


@pytest.mark.every_backend
@pytest.mark.parametrize("epoch", [2, HEAD_EPOCHS + 1])
def test_what_a_listener_raises_stops_the_run_and_resume_goes_on(
    photos: Path, recipe: Recipe, tmp_path: Path, epoch: int
):
    whole = multitl.finetune(photos, output=tmp_path / "whole", recipe=recipe)
    before: list[int] = []
    after: list[int] = []
    with pytest.raises(ZeroDivisionError, match="mine"):
        multitl.finetune(photos, output=tmp_path / "run", recipe=recipe, on_epoch=stop_at(epoch, before))
    result = multitl.finetune(photos, output=tmp_path / "run", recipe=recipe, on_epoch=stop_at(0, after), resume=True)
    assert before + after == list(range(1, len(history(whole.output)) + 1)) and before[-1] == epoch
    assert result.metrics == whole.metrics


@pytest.mark.parametrize("epoch", [1, HEAD_EPOCHS + 1])
def test_stop_iteration_is_named_for_what_it_is(photos: Path, recipe: Recipe, tmp_path: Path, epoch: int):
    """It comes through generators, which would make a RuntimeError of it, or their end."""

    def on_epoch(row: dict[str, Any]) -> None:
        if row["epoch"] == epoch:
            raise StopIteration

    with pytest.raises(multitl.RunError, match=rf"StopIteration(.|\n)*epoch {epoch}"):
        multitl.finetune(photos, output=tmp_path / "run", recipe=recipe, on_epoch=on_epoch)


def test_tensorboard_has_the_whole_history_after_resume(photos: Path, recipe: Recipe, tmp_path: Path):
    run = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        multitl.finetune(photos, output=run, recipe=recipe, on_epoch=stop_at(2, []), log_to="tensorboard")
    assert {event.step for event in read_events(run / "tensorboard")} == {0, 1, 2}
    multitl.finetune(photos, output=run, recipe=recipe, log_to="tensorboard", resume=True)
    _, *events = read_events(run / "tensorboard")
    assert [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value] == [
        (number, name, pytest.approx(float(line[name])))
        for number, line in enumerate(history(run), start=1)
        for name in FIGURES
    ]


@pytest.mark.parametrize("log_to", ["tensorbord", "tensorboard,", "mlflow"])
def test_a_tracker_that_is_not_there_is_refused_before_anything_loads(log_to: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    hide(frozenset({"mlflow"}))
    with pytest.raises(multitl.RecipeError) as caught:
        multitl.finetune("photos", log_to=log_to)
    assert caught.value.fix.startswith("pip install 'multitl[mlflow]'" if log_to == "mlflow" else "--log-to tensorb")
    assert caught.value.nearest == (("tensorboard",) if log_to == "tensorbord" else ())


def test_what_is_no_function_is_refused():
    with pytest.raises(multitl.RecipeError, match="on_epoch cannot be called"):
        multitl.finetune("photos", on_epoch=[])  # type: ignore[arg-type]


def test_no_tracker_is_loaded_unasked():
    packages = sorted(PACKAGES.values())
    code = f"import sys, multitl.training.finetuning as f\nprint([name for name in {packages} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_tracker_that_fails_is_told_of_once_and_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "tensorboard").write_text("no folder")
    row: Any = dict.fromkeys(FIGURES, 0.5)
    heard: list[dict[str, Any]] = []
    with listening(tmp_path, {}, heard.append, "tensorboard") as listeners:
        listeners.hear([row])
        listeners.hear([row, row])
    assert [row["epoch"] for row in heard] == [1, 2]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: tensorboard hears no more of this run: RunError: Cannot write")


def test_figures_of_a_finished_run_are_numbers():
    metrics = {"test": {"accuracy": 1, "per_class": {}, "accuracy_ci": [0.5, 1.0]}, "validation": None}
    assert figures_of(metrics) == {"test_accuracy": 1.0}


def test_mlflow(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_by: Callable[..., Path]):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    run = finished_by("mlflow")
    (record,) = mlflow.MlflowClient().search_runs(["0"])
    assert (record.info.status, record.info.run_name, record.data.params["dropout"]) == ("FINISHED", "run", "0.2")
    accuracy = json.loads((run / "metrics.json").read_text())["test"]["accuracy"]
    assert record.data.metrics["test_accuracy"] == accuracy
    for name in FIGURES:
        points = mlflow.MlflowClient().get_metric_history(record.info.run_id, name)
        told = sorted((point.step, point.value) for point in points)
        assert told == [(number, float(line[name])) for number, line in enumerate(history(run), start=1)]
    assert mlflow.active_run() is None


def test_wandb(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_by: Callable[..., Path]):
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    run = finished_by("wandb")
    rows, summary = read_wandb(next(tmp_path.glob("wandb/offline-run-*/run-*.wandb")))
    assert [(row["_step"], *(row[name] for name in FIGURES)) for row in rows] == [
        (number, *(float(line[name]) for name in FIGURES)) for number, line in enumerate(history(run), start=1)
    ]
    assert summary["test_accuracy"] == json.loads((run / "metrics.json").read_text())["test"]["accuracy"]


@pytest.fixture
def finished_by(photos: Path, recipe: Recipe, tmp_path: Path) -> Callable[..., Path]:
    """The folder of a run that the command line made, and logged."""

    def finish(log_to: str) -> Path:
        (tmp_path / "recipe.toml").write_text(recipe.to_toml())
        run, file = tmp_path / "run", str(tmp_path / "recipe.toml")
        assert main(["finetune", str(photos), "--recipe", file, "--out", str(run), "--log-to", log_to]) == 0
        return run

    return finish


def read_wandb(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The history and the last summary in the file that `wandb sync` sends."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows, summary = list[dict[str, Any]](), dict[str, Any]()
    for record in map(Record.FromString, leveldb_records(path.read_bytes())):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            rows.append({"_step": record.history.step.num, **values_of(record.history.item)})
        elif kind == "summary":
            summary |= values_of(record.summary.update)
    return rows, summary


def values_of(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """LevelDB's log format after 7 bytes of W&B: blocks of 32 KiB; of each piece checksum, length, and whether it is
    all of a record (1), its beginning (2), middle (3) or end (4).
    """
    place, parts = 7, b""
    while place < len(data):
        rest = -place % 2**15
        if 0 < rest < 7:  # the end of a block, with no room for the head of a piece
            place += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""
