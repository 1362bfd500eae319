"""A number for each image: cells of numbers, and splits that are cut evenly over the range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_folders import make_images

from multitl.data.bins import bins_of
from multitl.data.scanning import scan_for_evaluation, scan_for_training
from multitl.data.tables import Reading, list_table
from multitl.errors import DataError, RecipeError
from multitl.recipes import Recipe

NUMBER = Reading(labels="number")
RECIPE = Recipe(labels="number")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_images(tmp_path, {"pictures": 60})


def write(folder: Path, rows: list[str], header: str = "path,label") -> Path:
    lines = [header, *(f"pictures/{number}.png,{row}" for number, row in enumerate(rows))]
    (folder / "data.csv").write_text("\n".join(lines))
    return folder / "data.csv"


def test_numbers_in_cells(folder: Path) -> None:
    assert list_table(write(folder, ['"0,125"', '"1,250"']), NUMBER).records[1].label == 1.25
    listing = list_table(write(folder, ["1", "-2.5", '"3,25"', " 4e2 ", ".5", "7."]), NUMBER)
    assert [record.label for record in listing.records] == [1.0, -2.5, 3.25, 400.0, 0.5, 7.0]
    assert listing.class_names == ("value",)


def test_numbers_of_parquet(folder: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    paths = [f"pictures/{number}.png" for number in range(3)]
    parquet.write_table(arrow.table({"path": paths, "grams": [1, 2.5, 1e-7]}), folder / "data.parquet")
    listing = list_table(folder / "data.parquet", Reading(label_column="grams", labels="number"))
    assert [record.label for record in listing.records] == [1.0, 2.5, 1e-7]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["1", "two", "3"], r"1 cells that are no numbers"),
        (["1", "", "nan"], r"2 cells that are no numbers"),
        (["1", "inf", "1e300"], r"2 cells that are no numbers"),
        (["950", '"1,250"', '"12,500"'], r"may mean thousands by its commas, or fractions"),
        (["5"] * 60, r"all have the same number: 5"),
        ([f"{20240101 + day}" for day in range(30)] * 2, r"hardly differ for their size"),
    ],
)
def test_what_is_no_number_is_named(folder: Path, rows: list[str], problem: str) -> None:
    with pytest.raises(DataError, match=problem) as error:
        scan_for_training(write(folder, rows), RECIPE)
    assert error.value.fix


def test_numbers_taken_for_classes_name_the_option(folder: Path) -> None:
    with pytest.raises(DataError, match=r"a regression") as error:
        scan_for_training(write(folder, [f"{number / 7:.3f}" for number in range(60)]), Recipe())
    assert "--labels number" in error.value.fix


def test_folders_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"an image in it is of one class") as error:
        scan_for_training(folder, RECIPE)
    assert "numbers" in error.value.expected


@pytest.mark.parametrize("options", [{"head": "mean"}, {"class_weights": "balanced"}, {"shots": 4},
                                     {"label_smoothing": 0.1}])  # fmt: skip
def test_what_goes_with_classes_only_is_refused(options: dict) -> None:
    with pytest.raises(RecipeError, match=r"is for one class an image"):
        Recipe(labels="number", **options)


def test_splits_are_cut_evenly_over_the_range(folder: Path) -> None:
    """Each third of the range is in each part, whatever the order of the rows; the fingerprint knows the numbers."""
    numbers = [f"{number**2 / 10}" for number in range(60)]
    dataset = scan_for_training(write(folder, numbers), RECIPE)
    assert not dataset.warnings
    for split, least in (("train", 36), ("validation", 6), ("test", 12)):
        ranks = np.sqrt([10 * float(example.label) for example in dataset.split(split)])
        assert len(ranks) >= least and np.histogram(ranks, bins=3, range=(0, 60))[0].min() >= least // 4
    other = scan_for_training(write(folder, [*numbers[:-1], "9999"]), RECIPE)
    assert other.fingerprint != dataset.fingerprint
    assert [example.path for example in other.split("test")] == [example.path for example in dataset.split("test")]


def test_copies_with_two_numbers_are_told(folder: Path) -> None:
    for number in range(4):
        (folder / f"pictures/{number}.png").write_bytes((folder / "pictures/5.png").read_bytes())
    dataset = scan_for_training(write(folder, [str(number) for number in range(60)]), RECIPE)
    assert any("carry two numbers" in warning for warning in dataset.warnings)


def test_evaluation_reads_numbers_as_training_did(folder: Path) -> None:
    path, reading = write(folder, ["5", "7.5"], "path,grams"), Reading().as_trained(
        Recipe(labels="number", label_column="grams")
    )  # fmt: skip
    dataset = scan_for_evaluation(path, ("value",), max_unreadable=0, reading=reading)
    assert [example.label for example in dataset.examples] == [5.0, 7.5]


def test_bins_hold_about_as_many_and_equal_numbers_share_one() -> None:
    numbers = np.random.default_rng(0).normal(size=95) ** 3
    found = bins_of(numbers, 10)
    assert len(set(found)) == 9 and np.bincount(found).min() >= 10
    assert all(numbers[found == one].max() < numbers[found == one + 1].min() for one in range(8))
    assert set(bins_of([1.0] * 30 + [2.0] * 10, 10)) == {0, 3} or len(set(bins_of([1.0] * 30 + [2.0] * 10, 10))) == 2
    assert set(bins_of([1.0, 2.0, 3.0], 10)) == {0}
