"""Runs of several labels an image, and of numbers, that go on from others."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from labelled_photos import make_labelled, save_small_backbone
from numbered_photos import make_numbered

import multitl
from multitl.contracts import Result, Scale
from multitl.errors import RunError
from multitl.judging.predictions import read_predictions
from multitl.recipes import Recipe
from multitl.runs.cards import Start
from multitl.training.starts import open_start


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """labels/ with all.csv and two.csv, where nobody has said what is red; numbers/ with odd.csv and high.csv."""
    root = tmp_path_factory.mktemp("goals")
    make_labelled(root / "labels")
    make_numbered(root / "numbers")
    rewrite(root / "labels" / "photos.csv", "two.csv", lambda row: [row[0], row[1].replace("red", "").strip("|")])
    rewrite(root / "numbers" / "photos.csv", "odd.csv", lambda row: row if int(row[0][:3]) % 2 else None)
    high = lambda row: row if not int(row[0][:3]) % 2 and float(row[1]) > 120 else None  # noqa: E731
    rewrite(root / "numbers" / "photos.csv", "high.csv", high)
    save_small_backbone(root / "small.keras")
    return root


def rewrite(table: Path, name: str, change: Callable[[list[str]], list[str] | None]) -> None:
    with table.open() as file, (table.parent / name).open("w", newline="") as target:
        header, *rows = csv.reader(file)
        csv.writer(target).writerows([header, *filter(None, map(change, rows))])


@pytest.fixture(scope="module")
def recipe(place: Path) -> Recipe:
    return Recipe(backbone=f"file:{place / 'small.keras'}", image_size=32, unfreeze="none")


@pytest.fixture(scope="module")
def two(place: Path, recipe: Recipe) -> Result:
    recipe = replace(recipe, labels="several")
    return multitl.finetune(place / "labels" / "two.csv", output=place / "two", recipe=recipe)


@pytest.fixture(scope="module")
def odd(place: Path, recipe: Recipe) -> Result:
    recipe = replace(recipe, labels="number", label_column="width")
    return multitl.finetune(place / "numbers" / "odd.csv", output=place / "odd", recipe=recipe)


def start_of(result: Result) -> Start:
    start = multitl.load(result.output).card.start
    assert start
    return start


def said(result: Result) -> np.ndarray:
    return read_predictions(result.output / "predictions.csv").probabilities


@pytest.mark.every_backend
def test_two_labels_then_three(place: Path, two: Result, tmp_path: Path) -> None:
    more = multitl.finetune(place / "labels" / "photos.csv", from_run=str(two.output), output=tmp_path / "more")
    start = start_of(more)
    assert (start.kept, start.new, start.dropped) == (("blue", "green"), ("red",), ())
    assert start.head == "solved anew" and start.images == start.known and start.old_test
    found = read_predictions(two.output / "predictions.csv").of("test")
    assert start.old_test.before == pytest.approx(((found.probabilities > 0.5) == found.labels).mean())
    assert start.old_test.images == len(found.paths) and start.old_test.after >= start.old_test.before - 0.05
    assert "2 labels were there before, 1 are new" in (more.output / "report.html").read_text()
    known = open_start(Recipe(labels="several", from_run=str(two.output)))
    assert known
    rows = known.rows(more.class_names)
    np.testing.assert_array_equal(rows[:, :2], known.rows(two.class_names))
    assert not rows[:, 2].any() and rows[:, :2].any()


def test_the_same_images_again_give_the_same_answers(place: Path, two: Result, odd: Result, tmp_path: Path) -> None:
    for name, table, run in (("two", "labels/two.csv", two), ("odd", "numbers/odd.csv", odd)):
        again = multitl.finetune(place / table, from_run=str(run.output), output=tmp_path / name)
        old = start_of(again).old_test
        assert old and old.after == pytest.approx(old.before, abs=1e-6) and old.images == run.metrics["test"]["count"]
        np.testing.assert_allclose(said(again), said(run), rtol=1e-4, atol=1e-5)


@pytest.mark.every_backend
def test_other_numbers_alone_are_added_to_what_is_known(place: Path, odd: Result, tmp_path: Path) -> None:
    """Their mean and deviation are others, so the old row is said anew in these."""
    more = multitl.finetune(place / "numbers" / "high.csv", from_run=str(odd.output), output=tmp_path / "more")
    start = start_of(more)
    assert start.head == "drawn towards it" and start.known == 0 and start.old_test
    assert start.old_test.before == pytest.approx(odd.metrics["test"]["r2"], abs=1e-6)
    assert start.old_test.after > start.old_test.before - 0.1
    known = open_start(Recipe(labels="number", from_run=str(odd.output)))
    assert known
    features, other = np.random.default_rng(0).uniform(0, 1, (9, 24)).astype("float32"), Scale(-70.0, 2.5)
    rows, own = known.rows(("value",), other), known.card.scale
    assert own
    mapped = np.column_stack([known.fixed(features), np.ones(9)])
    before = keras.ops.convert_to_numpy(known.head(features)) * own.deviation + own.mean
    np.testing.assert_allclose(mapped @ rows * other.deviation + other.mean, before, rtol=1e-4)


def test_a_label_is_forgotten_where_no_image_has_it(place: Path, recipe: Recipe, tmp_path: Path) -> None:
    """What it was judged on is judged by the labels that are left."""
    labels, recipe = place / "labels", replace(recipe, labels="several")
    three = multitl.finetune(labels / "photos.csv", output=tmp_path / "three", recipe=recipe).output
    two = multitl.finetune(labels / "two.csv", from_run=str(three), output=tmp_path / "two")
    start, found = start_of(two), read_predictions(three / "predictions.csv").of("test")
    assert start.dropped == ("red",) and start.old_test
    assert start.old_test.before == pytest.approx(((found.probabilities > 0.5) == found.labels)[:, :2].mean())


def test_another_kind_of_answer_is_refused(place: Path, two: Result, odd: Result, tmp_path: Path) -> None:
    for run, labels in ((two, "one"), (odd, "several")):
        with pytest.raises(RunError, match="the same kind of thing") as caught:
            multitl.finetune(place / "labels" / "photos.csv", from_run=str(run.output), labels=labels, output=tmp_path)
        assert f"--backbone {run.output}" in caught.value.fix
