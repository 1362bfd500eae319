"""`multitl choose` from the command line: what it says, what it leaves, and what it leaves alone."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import multitl
from multitl.adapters import load_backend
from multitl.cli.main import main
from multitl.data import scanning
from multitl.errors import MultitlError
from multitl.judging.choice_page import write_choice_page
from multitl.recipes import Recipe
from multitl.runs.cards import read_card
from multitl.training.choosing import command_of
from tests.quick_runs import BACKBONE, MOBILENET, QUICK

SECOND = "torchvision/squeezenet1_1"
SMALL = ["--image-size", "64", "--weights", "none"]


def choose(photos: Path, out: Path, names: str, *more: str) -> int:
    return main(["choose", str(photos), "--backbones", names, "--out", str(out), *SMALL, *more])


@pytest.mark.every_backend
def test_it_ranks_says_why_not_and_ends_with_a_command_that_reuses_its_features(
    photos: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("MULTITL_CACHE", str(tmp_path / "cache"))
    assert choose(photos, tmp_path / "choice", f"{BACKBONE},keras/InceptionV3,{SECOND}") == 0
    out, err = capsys.readouterr()
    assert "keras/InceptionV3: cannot be used: keras/InceptionV3 cannot take images" in " ".join(err.split())
    about = json.loads((tmp_path / "choice" / "choice.json").read_text())
    first, second = about["standings"]
    assert {first["name"], second["name"]} == {BACKBONE, SECOND} and first["score"] >= second["score"]
    assert [one["name"] for one in about["unusable"]] == ["keras/InceptionV3"]
    page = (tmp_path / "choice" / "choice.html").read_text()
    assert all(name in page for name in (BACKBONE, SECOND, "keras/InceptionV3", shlex.quote(str(photos))))

    command = shlex.split(out.strip().splitlines()[-1])
    assert command[1:3] == ["finetune", str(photos)] and first["name"] in command
    assert main([*command[1:], "--unfreeze", "none", "--out", str(tmp_path / "run")]) == 0
    features, counts = read_card(tmp_path / "run").features, read_card(tmp_path / "run").data.counts
    assert features.computed == sum(counts["test"].values())
    assert features.reused == sum(counts["train"].values()) + sum(counts["validation"].values())


def test_python_gets_the_same(photos: Path, tmp_path: Path) -> None:
    recipe = {"weights": "none", "image_size": 64}
    choice = multitl.choose(photos, [BACKBONE], output=tmp_path / "choice", recipe=recipe)
    (standing,) = choice.standings
    assert standing.name == BACKBONE and standing.images == standing.of
    assert choice.page.is_file() and not choice.unusable
    assert list(choice.command[5:9]) == ["--weights", "none", "--image-size", "64"]


def test_the_command_cuts_the_same_parts(photos: Path, tmp_path: Path) -> None:
    recipe = {"weights": "none", "image_size": 64, "validation_fraction": 0.4, "test_fraction": 0.3, "shots": 6}
    choice = multitl.choose(photos, [BACKBONE], output=tmp_path / "choice", recipe=recipe)
    given = dict(zip(choice.command[3::2], choice.command[4::2], strict=True))
    assert (given["--validation-fraction"], given["--test-fraction"], given["--shots"]) == ("0.4", "0.3", "6")


def test_a_value_that_begins_as_an_option_does_stands_behind_its_name() -> None:
    command = command_of("photos", BACKBONE, Recipe(range="-1000,400"), load_backend())
    assert "--range=-1000,400" in command


def test_weights_of_its_own_stand_after_the_name(photos: Path, tmp_path: Path) -> None:
    weights = tmp_path / "my weights.weights.h5"
    multitl.load_pretrained(MOBILENET, "none", 64).backbone.save_weights(weights)
    choice = multitl.choose(photos, [f"{MOBILENET}@{weights}"], output=tmp_path / "choice", recipe={"image_size": 64})
    assert choice.command[4:7] == (MOBILENET, "--weights", str(weights))


def test_folders_of_others_are_left_alone_and_an_older_choice_only_on_request(photos: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.tex").write_text("...")
    for flags in ([], ["--overwrite"]):
        assert choose(photos, thesis, BACKBONE, *flags) == 2
    assert [path.name for path in thesis.iterdir()] == ["chapter1.tex"]
    assert choose(photos, tmp_path / "choice", BACKBONE) == 0
    assert choose(photos, tmp_path / "choice", BACKBONE) == 2
    assert choose(photos, tmp_path / "choice", BACKBONE, "--overwrite") == 0


def test_interrupted_it_leaves_what_is_finished(photos: Path, tmp_path: Path, monkeypatch) -> None:
    from multitl.training import choosing

    real = choosing.rank

    def stopped(*given: Any):
        yield next(real(*given))
        raise KeyboardInterrupt

    monkeypatch.setattr(choosing, "rank", stopped)
    assert choose(photos, tmp_path / "choice", f"{BACKBONE},{SECOND}") == 130
    about = json.loads((tmp_path / "choice" / "choice.json").read_text())
    assert len(about["standings"]) == 1 and (tmp_path / "choice" / "choice.html").is_file()


def test_a_run_with_several_backbones_takes_the_best_and_says_how_they_stood(photos: Path, tmp_path: Path) -> None:
    out, names = tmp_path / "run", f"{BACKBONE},keras/InceptionV3,{SECOND}"
    assert main(["finetune", str(photos), "--backbone", names, *SMALL, "--unfreeze", "none", "--out", str(out)]) == 0
    card = read_card(out)
    assert {one.name for one in card.ranked} == {BACKBONE, SECOND}
    assert card.backbone.name == card.recipe.backbone == card.ranked[0].name
    assert multitl.Recipe.read(out / "recipe.toml").backbone == names
    assert "How backbones stood" in (out / "report.html").read_text()
    (out / "model.keras").unlink()
    assert main(["finetune", str(photos), "--recipe", str(out / "recipe.toml"), "--out", str(out), "--resume"]) == 0
    assert read_card(out).backbone.name == card.backbone.name


def test_data_are_listed_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a run and by a choice: what was looked at for mistakes is what is read."""
    real, seen = scanning.list_folder, []
    monkeypatch.setattr(scanning, "list_folder", lambda root: seen.append(root) or real(root))
    assert choose(photos, tmp_path / "choice", BACKBONE) == 0 and len(seen) == 1
    assert main(["finetune", str(photos), *QUICK, "--out", str(tmp_path / "run")]) == 0 and len(seen) == 2


@pytest.mark.parametrize("names", [[], [""], [BACKBONE, BACKBONE]])
def test_names_that_are_no_choice_are_refused(photos: Path, tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(MultitlError, match="different backbones"):
        multitl.choose(photos, names, output=tmp_path / "choice")
    assert not (tmp_path / "choice").exists()


def test_nothing_of_a_name_is_taken_for_html(tmp_path: Path) -> None:
    hostile = "<script>document.title='pwned'</script>"
    about = {
        "data": f"/data/{hostile}", "class_names": [hostile], "backend": "jax", "devices": [hostile], "standings": [],
        "figure": "accuracy", "baselines": [{"says": f"always {hostile}", "score": 0.5, "mae": None}],
        "unusable": [{"name": hostile, "reason": hostile}], "command": f"multitl finetune {hostile}",
    }  # fmt: skip
    write_choice_page(tmp_path / "choice.html", about)
    page = (tmp_path / "choice.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
