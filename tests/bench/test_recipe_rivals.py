"""benchmarks/recipes.py: its splits, its command lines and its page. The long rivals run in the benchmark itself."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from image_folders import make_images

from multitl.cli.main import parse
from multitl.judging.predictions import write_predictions
from multitl.sources.pretrained import load_pretrained

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = ("cat", "dog")


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/recipes.py"""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import recipes

    return recipes


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Of 12 training, 4 validation and 6 test images of two classes."""
    from multitl_rivals import tables

    counts = {"train": 6, "validation": 2, "test": 3}
    root = make_images(tmp_path / "data", {f"{split}/{name}": counts[split] for split in counts for name in NAMES})
    tables.write_rows(tmp_path / "table.csv", [
        (str(path), path.parent.name, path.parents[1].name) for path in sorted(root.rglob("*.png"))
    ])  # fmt: skip
    return tmp_path / "table.csv"


def row(contender: str, seed: int, accuracy: float) -> dict:
    """Of a results file."""
    scores = {"accuracy": accuracy, "f1_macro": accuracy, "log_loss": 0.25, "ece": 0.0625, "cpu": 61.2, "wall": 40.0}
    return {
        "data": "shoes",
        "contender": contender,
        "seed": seed,
        "size": 96,
        "images": {"train": 9, "test": 100},
    } | scores


def test_a_rival_sees_the_pixels_that_multitl_sees():
    from multitl_rivals.answering import lite0_pixels

    for size in (96, 150, 224):
        assert lite0_pixels(size) == load_pretrained("pypi/efficientnet_lite0", "none", size).preprocess


def test_every_contender_of_ours_is_a_valid_command(recipes: ModuleType, table: Path):
    for name in recipes.OWN:
        run = recipes.Run("photos", name, 1, table, 96)
        _, *words = recipes.command(run, table.parent / "run", recipes.Options("torch", None))
        assert words[:2] == ["-m", "multitl"]
        options = parse(words[2:])
        assert (options.data, options.seed, options.image_size) == (str(table), 1, 96)


def test_every_rival_is_a_program(recipes: ModuleType, table: Path):
    for name in recipes.RIVALS:
        run = recipes.Run("photos", name, 1, table, 96)
        _, _, module, *_ = recipes.command(run, table.parent / "run", recipes.Options("torch", "python"))
        assert importlib.util.find_spec(module), name


def test_a_rival_answers_and_is_measured(recipes: ModuleType, table: Path):
    for package in ("torch", "efficientnet_lite_pytorch"):
        pytest.importorskip(package)
    measured = recipes.measure(recipes.Run("photos", "logistic", 0, table, 32), recipes.Options("torch", None))
    assert measured["images"] == {"train": 12, "validation": 4, "test": 6}
    assert 0 <= measured["accuracy"] <= 1 and measured["cpu"] > 0
    assert measured["chosen"].startswith("C = ")


def test_what_fails_is_named_and_not_kept(recipes: ModuleType, tmp_path: Path):
    missing: dict[str, str] = {}
    run = recipes.Run("photos", "quick", 0, tmp_path / "no_such_table.csv", 32)
    assert recipes.measured([run], recipes.Options("jax", None), tmp_path / "rows.jsonl", missing) == []
    assert list(missing) == [run.name]
    assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8") == ""


def test_few_images_are_drawn_from_all_but_test(table: Path):
    from multitl_rivals.tables import draw_few, read_rows

    rows = read_rows(table)
    draws = [draw_few(rows, 5, draw) for draw in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert Counter(one[1:] for one in draws[0]) == {("cat", "train"): 5, ("dog", "train"): 5} | {
        (name, "test"): 3 for name in NAMES
    }
    test = {path for path, _, split in rows if split == "test"}
    assert not test & {path for path, _, split in draws[0] if split == "train"}


def test_figures_are_of_the_test_images(recipes: ModuleType, tmp_path: Path):
    sure, unsure = np.array([0.9, 0.1]), np.array([0.6, 0.4])
    rows = [("test", "a.png", "cat", sure), ("test", "b.png", "dog", unsure), ("validation", "c.png", "dog", sure)]
    write_predictions(tmp_path / "predictions.csv", rows, NAMES)
    found = recipes.figures(tmp_path / "predictions.csv")
    assert found["accuracy"] == 0.5
    assert found["log_loss"] == pytest.approx(-(np.log(0.9) + np.log(0.4)) / 2)
    assert found["ece"] == pytest.approx((0.1 + 0.6) / 2)


def test_page_has_means_spreads_and_standard_errors(recipes: ModuleType):
    text = recipes.pages.page(
        [row("quick", 0, 0.8), row("quick", 1, 0.9), row("expert", 0, 0.9)], {"elpv": "gone"}, "By us."
    )
    assert "## shoes\n\n9 train, 100 test; 96 px" in text
    assert "| multitl, `--unfreeze none` | 2 | 0.850 ± 0.071 | 0.036 | 0.850 ± 0.071 | 0.250 ± 0.000 |" in text
    assert "| LP-FT in PyTorch | 1 | 0.900 | 0.030 | 0.900 | 0.250 | 0.062 | 61 | 40 |" in text
    assert "- elpv: gone" in text and "By us." in text


def test_every_contender_has_a_name(recipes: ModuleType):
    assert recipes.pages.NAMES.keys() == set(recipes.CONTENDERS)
