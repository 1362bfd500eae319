"""Runs on images of other channels than red, green and blue: trained, judged, asked, shown, gone on from, ported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from small_backbones import save_backbone

import multitl
from multitl.cli.main import main
from multitl.contracts import Result
from multitl.errors import MultitlError, PortError
from multitl.recipes import Recipe

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "more-or-fewer-channels.md"
RECIPE = Recipe(image_size=32, unfreeze="none", channels="all", bits=12, head="linear")
BANDS = 5


def make_fields(root: Path, each: int = 12) -> Path:
    """CLASS/0.npy ..., 12 bits of 5 channels: the fourth of one class is brighter, the other channels are alike."""
    random = np.random.default_rng(0)
    for number, name in enumerate(("dry", "green")):
        (root / name).mkdir(parents=True)
        for index in range(each):
            values = random.integers(0, 2000, (40, 36, BANDS), np.uint16)
            values[..., 3] += np.uint16(1500 * number)
            np.save(root / name / f"{index:02}.npy", values)
    return root


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_fields(tmp_path_factory.mktemp("data") / "fields")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return replace(RECIPE, backbone=f"file:{save_backbone(tmp_path_factory.mktemp('backbones') / 'small.keras')}")


@pytest.fixture(scope="module")
def result(fields: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return multitl.finetune(fields, output=tmp_path_factory.mktemp("runs") / "run", recipe=recipe)


@pytest.mark.every_backend
def test_what_only_the_fourth_channel_shows_is_learned(fields: Path, result: Result):
    """And `predict`, `evaluate` and the report see the same channels."""
    card = json.loads((result.output / "card.json").read_text())
    assert result.metrics["test"]["accuracy"] == 1.0
    assert card["recipe"]["channels"] == "1,2,3,4,5" and len(card["backbone"]["preprocess"]["scale"]) == BANDS
    (warning,) = [line for line in card["data"]["warnings"] if "first layer" in line]
    assert "conv1" in warning and "--unfreeze all trains it" in warning
    assert multitl.evaluate(result.output, fields)["count"] == 24
    assert "data:image/jpeg" in (result.output / "report.html").read_text()
    some = [str(fields / name / "03.npy") for name in ("dry", "green")]
    assert [row["predicted"] for row in multitl.predict(result.output, some)] == ["dry", "green"]


@pytest.mark.slow
@pytest.mark.every_backend
def test_the_program_beside_the_model_reads_the_same_channels(fields: Path, result: Result):
    some = [str(fields / name / "03.npy") for name in ("dry", "green")]
    rows = multitl.predict(result.output, some)
    command = [sys.executable, str(result.output / "classify.py"), *some]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout.splitlines()
    for line, row in zip(lines, rows, strict=True):
        assert line.split("\t")[:2] == [row["path"], row["predicted"]]
        assert float(line.split("\t")[2]) == pytest.approx(row["confidence"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.every_backend
def test_the_first_layer_trains_and_the_run_is_gone_on_from(fields: Path, recipe: Recipe, tmp_path: Path):
    deep = replace(recipe, unfreeze="all", steps=4, learning_rate=1e-2, batch_size=8, augment="strong", head_epochs=0)
    made = multitl.finetune(fields, output=tmp_path / "deep", recipe=deep)
    from multitl.sources.pretrained import load_pretrained

    before = load_pretrained(recipe.backbone).backbone.get_layer("conv1").get_weights()[0]
    after = load_pretrained(str(made.output)).backbone.get_layer("conv1").get_weights()[0]
    assert after.shape == (3, 3, BANDS, 8)
    assert np.abs(after - before[:, :, [0, 1, 2, 0, 1]] * (3 / BANDS)).max() > 1e-3
    again = multitl.finetune(
        fields, output=tmp_path / "again", from_run=str(made.output), unfreeze="none", head_epochs=60
    )
    assert again.metrics["test"]["accuracy"] >= 0.5
    assert multitl.load(again.output).card.preprocess.shape == (32, 32, BANDS)


def test_a_run_of_five_channels_is_no_start_for_three(fields: Path, result: Result, tmp_path: Path):
    Image.new("RGB", (40, 36)).save(tmp_path / "photo.png")
    row, _ = multitl.predict(result.output, [tmp_path / "photo.png", fields / "dry" / "00.npy"])
    assert "it has 3 channels" in row["error"]
    options = {"backbone": str(result.output), "channels": "4,3,2", "bits": 12, "unfreeze": "none"}
    with pytest.raises(MultitlError, match=r"(?s)images of 5 channels.*--channels 1,2,3,4,5"):
        multitl.finetune(fields, output=tmp_path / "run", **options)


@pytest.mark.slow
def test_the_how_to(fields: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its commands as they stand, on our images."""
    assert len(HOW_TO.read_text().splitlines()) <= 25
    (block,) = re.findall(r"```bash\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("fields").symlink_to(fields)
    quick = ["--backbone", recipe.backbone, "--image-size", "32", "--unfreeze", "none"]
    for line in block.splitlines():
        words = line.split()[1:]
        assert main([*words, *(quick if words[0] == "finetune" else ())]) == 0


@pytest.mark.slow
def test_grey_pictures_stay_one_channel(tmp_path: Path, recipe: Recipe):
    random = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (tmp_path / "cells" / name).mkdir(parents=True)
        for index in range(8):
            values = random.integers(0, 100, (36, 40), np.uint8) + np.uint8(120 * number)
            Image.fromarray(values).save(tmp_path / "cells" / name / f"{index}.png")
    grey = replace(recipe, channels="1", bits=0)
    one = multitl.finetune(tmp_path / "cells", output=tmp_path / "one", recipe=grey)
    three = multitl.finetune(tmp_path / "cells", output=tmp_path / "three", recipe=replace(grey, channels=""))
    assert multitl.load(one.output).model.input_shape == (None, 32, 32, 1)
    paths = sorted(map(str, (tmp_path / "cells").rglob("*.png")))
    for first, second in zip(multitl.predict(one.output, paths), multitl.predict(three.output, paths), strict=True):
        assert first["confidence"] == pytest.approx(second["confidence"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.every_backend
def test_heads_that_are_trained_together_see_all_channels(fields: Path, recipe: Recipe, tmp_path: Path):
    lines = [f"{path},{path.parent.name},{int(path.stem) % 3}" for path in sorted(fields.rglob("*.npy"))]
    (tmp_path / "fields.csv").write_text("\n".join(["path,kind,rest", *lines]))
    deep = replace(recipe, unfreeze="all", steps=4, learning_rate=1e-3, batch_size=8)
    made = multitl.finetune_heads(
        tmp_path / "fields.csv", "kind=class, rest=number", recipe=deep, output=tmp_path / "run"
    )
    assert keras.saving.load_model(made.model_path).input_shape == (None, 32, 32, BANDS)
    assert made.alone["kind"]["test"]["accuracy"] == 1.0
    (row,) = multitl.predict(made.output, [str(fields / "green" / "03.npy")])
    assert row["kind"]["predicted"] == "green"


@pytest.mark.slow
@pytest.mark.every_backend
@pytest.mark.parametrize("name", ["onnx", "litert", "torch-export", "savedmodel", "stablehlo", "keras"])
def test_it_leaves_with_its_channels(name: str, result: Result, tmp_path: Path):
    card = multitl.port(result.output, name, tmp_path / name).card
    assert card["takes"] == {"images": "pixels of 5 channels, uint8, 0 to 255", "shape": [None, 32, 32, BANDS]}
    assert card["proof"]["max_rel"] < 1e-5


def test_the_class_of_the_original_is_refused(fields: Path, result: Result, tmp_path: Path):
    from msgspec.structs import replace as changed

    from multitl.models.model_files import load_saved_model
    from multitl.porting.originals import original_tensors
    from multitl.runs.cards import read_card

    card = read_card(result.output)
    card = changed(card, backbone=changed(card.backbone, name="torchvision/resnet18"))
    with pytest.raises(PortError, match="its first layer reads 5 channels"):
        original_tensors(load_saved_model(result.output / "model.keras"), card)
