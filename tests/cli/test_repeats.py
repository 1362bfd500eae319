"""Several seeds, one summary."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import multitl
from multitl.cli import main as cli
from multitl.cli.repeats import repeat
from multitl.contracts import Result
from multitl.recipes import Recipe


def run(recipe: Recipe, output: Path) -> Result:
    """A run whose figures are made from its seed."""
    output.mkdir(parents=True)
    figures = {"count": 50, "accuracy": recipe.seed / 10, "f1_macro": 0.5, "log_loss": 1.0, "ece": 0.1}
    metrics = {"test": figures, "validation": figures | {"accuracy": 0.0}}
    return Result(output, metrics, ("cat", "dog"), output / "model.keras", output / "report.html")


def test_seeds_follow_each_other_each_in_its_own_folder(tmp_path: Path):
    summary = repeat(run, Recipe(seed=3, shots=5), tmp_path / "out", 3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["seed-3", "seed-4", "seed-5", "summary.json"]
    assert json.loads((tmp_path / "out/summary.json").read_text()) == summary
    found = [(row["seed"], row["folder"], row["split"]) for row in summary["runs"]]
    assert found == [(3, "seed-3", "test"), (4, "seed-4", "test"), (5, "seed-5", "test")]
    assert summary["mean"]["accuracy"] == pytest.approx(0.4)
    assert summary["standard_deviation"]["accuracy"] == pytest.approx(0.1)  # of 0.3, 0.4 and 0.5
    assert summary["standard_deviation"]["log_loss"] == 0


def test_without_a_test_part_it_is_the_validation_that_counts(tmp_path: Path):
    def untested(recipe: Recipe, output: Path) -> Result:
        result = run(recipe, output)
        return replace(result, metrics=result.metrics | {"test": None})

    summary = repeat(untested, Recipe(seed=3), tmp_path, 1)
    assert summary["runs"][0]["split"] == "validation" and summary["mean"]["accuracy"] == 0
    assert summary["standard_deviation"]["accuracy"] == 0


def test_the_last_folder_is_looked_at_before_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "out/seed-2").mkdir(parents=True)
    (tmp_path / "out/seed-2/letter.txt").touch()
    monkeypatch.setattr(multitl, "finetune", None)  # calling it would raise
    assert cli.main(["finetune", "photos", "--repeats", "3", "--out", str(tmp_path / "out")]) == 2
    assert "seed-2 exists and is not a run of multitl" in capsys.readouterr().err


def test_the_command_passes_on_all_but_seed_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    calls = []

    def fake(data: str, **options):
        calls.append((data, options))
        return run(options["recipe"], options["output"])

    monkeypatch.setattr(multitl, "finetune", fake)
    out, shared = tmp_path / "out", {"backend": "jax", "overwrite": False, "resume": True, "log_to": ""}
    arguments = ["finetune", "photos", "--repeats", "2", "--seed", "1", "--shots", "5", "--backend", "jax", "--resume"]
    assert cli.main([*arguments, "--out", str(out)]) == 0
    recipes = [Recipe(seed=seed, shots=5) for seed in (1, 2)]
    wanted = [("photos", shared | {"output": out / f"seed-{one.seed}", "recipe": one}) for one in recipes]
    assert calls == wanted
    said = capsys.readouterr().out
    assert "0.150 ± 0.071" in said and "50 test" in said and str(out / "summary.json") in said
