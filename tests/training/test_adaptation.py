"""`--unlabelled`: whole runs on photos of two cameras, the second of which gives everything a colour of its own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from quick_runs import BACKBONE

import multitl
from multitl.cli.main import main
from multitl.models.heads import backbone_of
from multitl.runs.cards import read_card
from multitl.training.adaptation import Seen, Way, choose
from multitl.training.publishing import Publisher

pytestmark = pytest.mark.every_backend
HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "photos-of-another-camera.md"
QUICK = {"backbone": BACKBONE, "weights": "none", "image_size": 32, "unfreeze": "none", "head": "linear"}


def make_camera(root: Path, count: int, seed: int, gain: float, cast: tuple[int, int, int]) -> Path:
    """Stripes, upright or level, at any place."""
    random = np.random.default_rng(seed)
    for name in ("level", "upright"):
        (root / name).mkdir(parents=True)
        for index in range(count):
            stripes = 80 * (np.sin(np.arange(32) + random.uniform(0, 6)) > 0)[:, None, None]
            pixels = (stripes if name == "level" else stripes.transpose(1, 0, 2)) + random.integers(0, 60, (32, 32, 3))
            values = np.clip(pixels * gain + cast, 0, 255).astype("uint8")
            Image.fromarray(values).save(root / name / f"{index:02}.png")
    return root


@pytest.fixture(scope="module")
def cameras(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Labelled photos of the one; photos of the other, whose folders say nothing."""
    root = tmp_path_factory.mktemp("cameras")
    return make_camera(root / "one", 20, 1, 1.0, (0, 0, 0)), make_camera(root / "other", 16, 2, 0.5, (90, 20, 0))


def moving_means(run: Path) -> list[np.ndarray]:
    network = backbone_of(keras.models.load_model(run / "model.keras", compile=False))
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return [keras.ops.convert_to_numpy(norm.moving_mean.value) for norm in norms]


@pytest.fixture(scope="module")
def plain(cameras: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> multitl.Result:
    return multitl.finetune(cameras[0], output=tmp_path_factory.mktemp("plain") / "run", **QUICK)


def test_every_way_is_tried_and_the_most_promising_is_saved(
    cameras: tuple[Path, Path], plain: multitl.Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    result = multitl.finetune(cameras[0], output=out, unlabelled=cameras[1], **QUICK)
    found = read_card(out).adaptation
    assert found and found.images == 32
    names = ["none", "coral", "transport", "norm", "norm+coral", "norm+transport"]
    assert [one["name"] for one in found.tried] == names
    assert found.counterparts < 0.8  # so nothing is carried
    plain_heads = [one for one in found.tried if "transport" not in one["name"]]
    assert found.chosen == min(plain_heads, key=lambda one: one["log_loss"])["name"]
    by_name = {one["name"]: one["figures"] for one in found.tried}
    for split in ("test", "validation"):  # unadapted: the run without; chosen: what was saved
        for metrics, name in ((plain.metrics, "none"), (result.metrics, found.chosen)):
            assert by_name[name][split]["accuracy"] == pytest.approx(metrics[split]["accuracy"])
            assert by_name[name][split]["log_loss"] == pytest.approx(metrics[split]["log_loss"], rel=1e-3)
    assert f"adapted by: {found.chosen}" in capsys.readouterr().err
    assert "Ways to adapt to 32 images" in (out / "report.html").read_text(encoding="utf-8")
    assert len(multitl.predict(out, cameras[1])) == 32


def way_of(name: str, kind: str, log_loss: float) -> Way:
    return Way(Seen(name, [], np.empty((0, 1)), {}), kind, log_loss, 0.5, 1.0, {})


@pytest.mark.parametrize(("has_counterparts", "chosen"), [(True, "transport"), (False, "norm")])
def test_labels_are_carried_to_the_same_things_again_and_only_there(has_counterparts: bool, chosen: str) -> None:
    ways = [way_of("none", "none", 1.2), way_of("none", "transport", 1.3), way_of("norm", "none", 1.1)]
    assert choose([*ways, way_of("norm", "transport", 1.0)], has_counterparts).name == chosen


def test_moved_statistics_are_in_the_saved_model_and_the_head_is_as_it_was(
    cameras: tuple[Path, Path], plain: multitl.Result, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    multitl.finetune(cameras[0], output=out, unlabelled=cameras[1], adapt="norm", **QUICK)
    assert [one["name"] for one in read_card(out).adaptation.tried] == ["none", "norm"]
    before, after = moving_means(plain.output), moving_means(out)
    assert max(np.abs(one - other).max() for one, other in zip(before, after, strict=True)) > 0.01
    heads = [keras.models.load_model(run / "model.keras").get_layer("head") for run in (plain.output, out)]
    for one, other in zip(*(head.get_weights() for head in heads), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_run_that_is_killed_after_it_was_adapted_comes_to_the_same(
    cameras: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"unlabelled": cameras[1], "adapt": "norm+transport", **QUICK}
    whole = multitl.finetune(cameras[0], output=tmp_path / "whole", **options)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Publisher, "complete", interrupt)
        multitl.finetune(cameras[0], output=tmp_path / "killed", **options)
    resumed = multitl.finetune(cameras[0], output=tmp_path / "killed", resume=True, **options)
    assert resumed.metrics == whole.metrics
    cards = [json.loads((run.output / "card.json").read_text())["adaptation"] for run in (whole, resumed)]
    assert cards[0] == cards[1]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_other_images_are_other_data(cameras: tuple[Path, Path], plain: multitl.Result, tmp_path: Path) -> None:
    options = {"unlabelled": cameras[1], "adapt": "none", **QUICK}
    multitl.finetune(cameras[0], output=tmp_path / "run", **options)
    (cameras[1] / "level" / "new.png").write_bytes((cameras[0] / "level" / "00.png").read_bytes())
    with pytest.raises(multitl.RunError, match="data changed"):
        multitl.finetune(cameras[0], output=tmp_path / "run", resume=True, **options)
    (cameras[1] / "level" / "new.png").unlink()


def test_a_network_that_was_fine_tuned_moves_its_statistics_and_keeps_its_head(
    cameras: tuple[Path, Path], tmp_path: Path
) -> None:
    options = QUICK | {"unfreeze": "last", "steps": 4, "learning_rate": 1e-4, "head_epochs": 0, "head": "auto"}
    multitl.finetune(cameras[0], output=tmp_path / "run", unlabelled=cameras[1], **options)
    card = read_card(tmp_path / "run")
    assert card.trials.kept == 1 and [one["name"] for one in card.adaptation.tried] == ["none", "norm"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"adapt": "coral"}, "nothing to adapt to"),
        ({"unlabelled": "missing"}, "missing"),
        ({"unlabelled": "few"}, "too few"),
        ({"unlabelled": "few/1.png"}, "not a folder"),
        ({"unlabelled": "enough", "adapt": "coral", "unfreeze": "last"}, "has to be solved"),
        ({"unlabelled": "enough", "adapt": "transport", "hidden": 8}, "has to be solved"),
        ({"unlabelled": "enough", "labels": "several", "adapt": "transport"}, "cannot be adapted by transport"),
        ({"unlabelled": "enough", "labels": "number"}, "told by probabilities"),
        ({"unlabelled": "enough", "adapt": "norm", "backbone": "keras/VGG16"}, "no batch normalisation"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    cameras: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, count in (("few", 2), ("enough", 9)):
        Path(folder).mkdir()
        for index in range(count):
            Image.new("RGB", (9, 9), (index, 0, 0)).save(Path(folder, f"{index}.png"))
    with pytest.raises(multitl.MultitlError, match=problem):
        multitl.finetune(cameras[0], output=tmp_path / "run", **QUICK | options)
    assert not (tmp_path / "run" / "model.keras").exists()


def test_the_how_to(cameras: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands and its Python as they stand, on our photos and a small network."""
    text = HOW_TO.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 25
    monkeypatch.chdir(tmp_path)
    for name, folder in zip(("photos", "new-photos"), cameras, strict=True):
        Path(name).symlink_to(folder)
    quick = ["--backbone", BACKBONE, "--weights", "none", "--image-size", "32", "--head", "linear"]
    (commands,), (code,) = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("bash", "python"))
    for line in commands.splitlines():
        words = line.split()[1:]
        assert main([*words, *(quick if words[0] == "finetune" else [])]) == 0
    assert len(Path("answers.csv").read_text().splitlines()) == 33
    names: dict = {}
    small = f'backbone="{BACKBONE}", weights="none", image_size=32, output='
    exec(code.replace("output=", small), names)
    assert [one["name"] for one in read_card("runs/moved").adaptation.tried] == ["none", "norm"]
