"""Runs in which classes weigh differently and mistakes cost differently, on each backend."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
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

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "mistakes-that-cost.md"
RECIPE = Recipe(image_size=32, batch_size=8, unfreeze="none", head_epochs=2, hidden=8)
COSTS = "true,blue,green,red\nblue,0,1,1\ngreen,1,0,1\nred,400,90,0\n"  # whoever misses red pays
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
    plain = targets @ np.array([0.5, 1, 3])
    np.testing.assert_allclose(weights, plain / plain.mean(), rtol=1e-6)  # only ratios matter
    shares = len(targets) / (3 * targets.sum(axis=0))
    table = ",".join(f"{name}={share:.9g}" for name, share in zip(dataset.class_names, shares, strict=True))
    _, balanced = targets_of(dataset, replace(recipe, class_weights="balanced"))
    np.testing.assert_allclose(targets_of(dataset, replace(recipe, class_weights=table))[1], balanced, rtol=1e-6)


def test_a_class_that_no_validation_image_has_is_no_division_by_zero(photo_folder: Path, recipe: Recipe):
    dataset = scan_for_training(photo_folder, recipe)
    kept = tuple(one for one in dataset.examples if one.split != "validation" or one.label)
    _, weights = targets_of(replace(dataset, examples=kept), replace(recipe, class_weights="balanced"), ("validation",))
    assert len(weights) and np.isfinite(weights).all()


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


def write_costs(folder: Path) -> Path:
    path = folder / "costs.csv"
    path.write_text(COSTS)
    return path


def known_costs() -> dict[tuple[str, str], float]:
    header, *rows = csv.reader(COSTS.splitlines())
    return {(row[0], name): float(cell) for row in rows for name, cell in zip(header[1:], row[1:], strict=True)}


def cheapest(names: tuple[str, ...], probabilities: np.ndarray) -> list[str]:
    """The definition, in loops."""
    known, answers = known_costs(), []
    for row in probabilities.astype("float64"):
        expected = [sum(p * known[true, said] for true, p in zip(names, row, strict=True)) for said in names]
        answers.append(names[int(np.argmin(expected))])
    return answers


@pytest.mark.every_backend
def test_the_cheapest_class_is_answered_everywhere(photo_folder: Path, recipe: Recipe, tmp_path: Path):
    """predictions.csv, metrics.json, the report, predict, evaluate and the program that goes with the model."""
    costs = write_costs(tmp_path)
    done = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe, costs=str(costs))
    costs.unlink()
    names = done.class_names
    found = read_predictions(done.output / "predictions.csv").of("test")
    answers, likeliest = cheapest(names, found.probabilities), found.probabilities.argmax(axis=1)
    assert answers != [names[index] for index in likeliest] and len(set(answers)) > 0
    with (done.output / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert [row["predicted"] for row in rows] == answers
    assert all(row["confidence"] == row[f"p:{row['predicted']}"] for row in rows)
    test = done.metrics["test"]
    truth = [names[label] for label in found.labels]
    price = {("red", "blue"): 400, ("red", "green"): 90}
    bill = [0 if a == b else price.get((a, b), 1) for a, b in zip(truth, answers, strict=True)]
    plain = [0 if a == names[b] else price.get((a, names[b]), 1) for a, b in zip(truth, likeliest, strict=True)]
    assert test["cost"] == pytest.approx(np.mean(bill)) and test["cost_likeliest"] == pytest.approx(np.mean(plain))
    assert test["constant_class"] == "red"
    assert test["cost_constant"] == pytest.approx(np.mean([name != "red" for name in truth]))
    assert test["cost_ci"][0] <= test["cost"] <= test["cost_ci"][1]
    assert test["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(truth, answers, strict=True)]))
    matrix = np.array(test["confusion_matrix"])
    assert matrix.sum(axis=0).tolist() == [answers.count(name) for name in names]
    assert "an\n      image on average" in (done.output / "report.html").read_text()
    said = multitl.predict(done.output, found.paths)
    assert [row["predicted"] for row in said] == answers
    program = subprocess.run(
        [sys.executable, str(done.output / "classify.py"), *found.paths], capture_output=True, text=True, check=True
    )
    assert [line.split("\t")[1] for line in program.stdout.splitlines()] == answers


@pytest.mark.every_backend
def test_a_finished_run_answers_by_other_costs(
    photo_folder: Path, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = str(multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe).output)
    costs = str(write_costs(tmp_path))
    plain, said = multitl.predict(run, photo_folder), multitl.predict(run, photo_folder, costs=costs)
    values = np.array([list(row["probabilities"].values()) for row in plain])
    assert [row["predicted"] for row in said] == cheapest(("blue", "green", "red"), values)
    assert [row["predicted"] for row in said] != [row["predicted"] for row in plain]
    assert [row["probabilities"] for row in said] == [row["probabilities"] for row in plain]
    judged = multitl.evaluate(run, photo_folder, costs=costs)
    known, true = known_costs(), [Path(row["path"]).parent.name for row in plain]
    for figure, answers in (("cost", said), ("cost_likeliest", plain)):
        paid = [known[one, row["predicted"]] for one, row in zip(true, answers, strict=True)]
        assert judged[figure] == pytest.approx(sum(paid) / 48)
    assert judged["count"] == 48
    assert multitl.load(run).evaluate(photo_folder, costs=costs) == judged
    assert "cost" not in multitl.evaluate(run, photo_folder)
    capsys.readouterr()
    assert main(["evaluate", run, str(photo_folder), "--costs", costs]) == 0
    assert "mean cost of the likeliest class" in capsys.readouterr().out
    assert main(["predict", run, str(photo_folder), "--costs", costs, "--csv", str(tmp_path / "out.csv")]) == 0
    with (tmp_path / "out.csv").open() as file:
        assert [row["predicted"] for row in csv.DictReader(file)] == [row["predicted"] for row in said]
    capsys.readouterr()
    image = str(photo_folder / "blue" / "00.png")
    assert main(["predict", run, image, "--costs", costs, "--top", "3"]) == 0
    shown = capsys.readouterr().out.splitlines()[-1]
    assert sorted(word.strip(",") for word in shown.split() if word in ("red", "blue", "green")) == [
        "blue",
        "green",
        "red",
    ]


def test_costs_of_other_classes_are_refused(photo_folder: Path, recipe: Recipe, tmp_path: Path):
    run = multitl.finetune(photo_folder, output=tmp_path / "run", recipe=recipe).output
    other = tmp_path / "other.csv"
    other.write_text(COSTS.replace("green", "gren"))
    for call in (
        lambda: multitl.predict(run, photo_folder, costs=other),
        lambda: multitl.evaluate(run, photo_folder, costs=other),
        lambda: multitl.finetune(photo_folder, output=tmp_path / "new", recipe=recipe, costs=str(other)),
    ):
        with pytest.raises(RecipeError, match=r"(?s)there are not: gren.*green"):
            call()
    with pytest.raises(RecipeError, match="Cannot read"):
        multitl.predict(run, photo_folder, costs=tmp_path / "nowhere.csv")
    card = json.loads((run / "card.json").read_text())
    for table in (COSTS.replace("400", "-400"), COSTS.replace("red", "pink"), str(other), "costs", 3, "a\nb"):
        changed = card | {"recipe": card["recipe"] | {"costs": table}}
        (run / "card.json").write_text(json.dumps(changed))
        with pytest.raises(RunError, match=r"Cannot read .*card\.json"):
            multitl.predict(run, photo_folder)


def test_a_run_with_costs_goes_on_from_its_own_recipe(photo_folder: Path, recipe: Recipe, tmp_path: Path):
    costs, run = write_costs(tmp_path), tmp_path / "run"
    multitl.finetune(photo_folder, output=run, recipe=recipe, costs=str(costs))
    costs.unlink()
    before = (run / "predictions.csv").read_bytes()
    (run / "predictions.csv").unlink()
    again = ["finetune", str(photo_folder), "--recipe", str(run / "recipe.toml"), "--out", str(run), "--resume"]
    assert main(again) == 0
    assert (run / "predictions.csv").read_bytes() == before
    assert main([*again, "--costs", ""]) == 2  # other options than it was started with


def test_the_page_says_what_works(
    photo_folder: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a small backbone in the place of the default one."""
    text = HOW_TO.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 25
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL))
    monkeypatch.chdir(tmp_path)
    for name, source in (("sick", "red"), ("healthy", "green")):
        shutil.copytree(photo_folder / source, tmp_path / "photos" / name)
    shutil.copytree(photo_folder / "red", tmp_path / "new-photos")
    (tmp_path / "costs.csv").write_text(blocks["csv"])
    (tmp_path / "small.toml").write_text(recipe.to_toml())
    for line in blocks["bash"].splitlines():
        program, *arguments = shlex.split(line)
        small = ["--recipe", "small.toml"] if arguments[0] == "finetune" else []
        assert (program, main([*arguments, *small])) == ("multitl", 0)
    with (tmp_path / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert all((row["predicted"] == "sick") == (20 * float(row["p:sick"]) >= float(row["p:healthy"])) for row in rows)
    assert "cost" in json.loads((tmp_path / "runs" / "careful" / "metrics.json").read_text())["test"]
    assert Recipe.read(tmp_path / "runs" / "weighted" / "recipe.toml").loss == "focal"
