"""Runs in which classes weigh differently and mistakes cost differently, on each backend."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from labelled_photos import save_small_backbone

import multitl
from multitl.cli.main import main
from multitl.contracts import Result
from multitl.data.scanning import scan_for_training
from multitl.errors import RecipeError, RunError
from multitl.judging.predictions import read_predictions
from multitl.recipes import Recipe
from multitl.training.targets import targets_of

RECIPE = Recipe(image_size=32, batch_size=8, unfreeze="none", head_epochs=2, hidden=8)
WEIGHTS = "red=3,green=1,blue=0.5"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = save_small_backbone(tmp_path_factory.mktemp("backbones") / "small.keras")
    return replace(RECIPE, backbone=f"file:{path}")


def probabilities_of(result: Result) -> np.ndarray:
    return read_predictions(result.output / "predictions.csv").probabilities


def test_a_table_of_what_balanced_computes_gives_the_same_weights(photo_folder: Path, recipe: Recipe):
    dataset = scan_for_training(photo_folder, recipe)
    targets, weights = targets_of(dataset, replace(recipe, class_weights=WEIGHTS))
    np.testing.assert_array_equal(weights, targets @ np.array([0.5, 1, 3]))
    shares = len(targets) / (3 * targets.sum(axis=0))
    table = ",".join(f"{name}={share:.9g}" for name, share in zip(dataset.class_names, shares, strict=True))
    _, balanced = targets_of(dataset, replace(recipe, class_weights="balanced"))
    np.testing.assert_allclose(targets_of(dataset, replace(recipe, class_weights=table))[1], balanced, rtol=1e-6)


@pytest.mark.every_backend
@pytest.mark.parametrize("hidden", [0, 8])
def test_a_heavier_class_is_said_more_often(photo_folder: Path, recipe: Recipe, hidden: int, tmp_path: Path):
    """By a head that is solved, at one penalty, and by one that is trained."""
    recipe = replace(recipe, hidden=hidden, l2=0.0 if hidden else 1.0)
    plain = multitl.finetune(photo_folder, output=tmp_path / "plain", recipe=recipe)
    heavy = multitl.finetune(photo_folder, output=tmp_path / "heavy", recipe=recipe, class_weights=WEIGHTS)
    red = plain.class_names.index("red")
    assert probabilities_of(heavy)[:, red].mean() > probabilities_of(plain)[:, red].mean() + 0.02


def test_a_run_goes_on_and_is_made_again_without_the_file(photo_folder: Path, recipe: Recipe, tmp_path: Path):
    table, run = tmp_path / "weights.csv", str(tmp_path / "run")
    table.write_text("class,weight\nred,3\ngreen,1\nblue,0.5\n")
    recipe_file = tmp_path / "my.toml"
    recipe_file.write_text(recipe.to_toml())
    typed = ["finetune", str(photo_folder), "--recipe", str(recipe_file), "--class-weights", str(table), "--out", run]
    assert main(typed) == 0
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["recipe"]["class_weights"] == WEIGHTS
    (tmp_path / "run" / "predictions.csv").rename(tmp_path / "before.csv")
    table.unlink()
    assert main(["finetune", str(photo_folder), "--recipe", f"{run}/recipe.toml", "--out", run, "--resume"]) == 0
    before = (tmp_path / "before.csv").read_bytes()
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == before
    again = str(tmp_path / "again")
    assert main(["finetune", str(photo_folder), "--recipe", f"{run}/recipe.toml", "--out", again]) == 0
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == before


def test_other_classes_are_refused_where_they_are_met(photo_folder: Path, recipe: Recipe, tmp_path: Path):
    for table in ("red=1,gren=2,blue=1", "red=1,blue=1"):
        with pytest.raises(RecipeError, match="green"):
            multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe, class_weights=table)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="for one class an image"):
        Recipe(labels="several", class_weights="a=1,b=2")


def test_a_table_of_other_classes_in_a_card_is_refused(photo_folder: Path, recipe: Recipe, tmp_path: Path):
    run = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe).output
    card = json.loads((run / "card.json").read_text())
    for table in ("red=1,green=2", "red=1,green=-2,blue=1", str(run / "card.csv"), "red=1,green=2,blue=1,pink=1", 3):
        changed = card | {"recipe": card["recipe"] | {"class_weights": table}}
        (run / "card.json").write_text(json.dumps(changed))
        with pytest.raises(RunError, match=r"Cannot read .*card\.json"):
            multitl.predict(run, photo_folder)
