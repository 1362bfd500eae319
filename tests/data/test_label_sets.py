"""Several labels an image: columns of 0 and 1, and cells of several labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from image_folders import make_images

from multitl.data.scanning import scan_for_evaluation, scan_for_training
from multitl.data.tables import Reading, list_table
from multitl.errors import DataError, RecipeError
from multitl.recipes import Recipe

SEVERAL = Reading(labels="several")
CELLS = {
    "|": ["cat|dog", "", "dog", "cat"],
    ";": ["dog; cat", " ", "dog", "cat;"],
    ",": ['"cat, dog"', "", "dog", "cat"],
    "lists": ["\"['cat', 'dog']\"", "[]", "['dog']", "['cat']"],
}
SETS = [("cat", "dog"), (), ("dog",), ("cat",)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_images(tmp_path, {"pictures": 40})


def write(folder: Path, header: str, rows: list[str]) -> Path:
    lines = [header, *(f"pictures/{number}.png,{row}" for number, row in enumerate(rows))]
    (folder / "data.csv").write_text("\n".join(lines))
    return folder / "data.csv"


@pytest.mark.parametrize("kind", CELLS)
def test_labels_in_a_cell(folder: Path, kind: str) -> None:
    listing = list_table(write(folder, "path,labels", CELLS[kind]), SEVERAL)
    assert [record.label for record in listing.records] == SETS
    assert listing.class_names == ("cat", "dog")


def test_labels_with_spaces_between_them(folder: Path) -> None:
    """Where they are seen to be shared, as in the table that is refused for one class an image."""
    listing = list_table(write(folder, "path,labels", ["a b", "a", "b", "c a", "a b c", "b c"]), SEVERAL)
    assert listing.class_names == ("a", "b", "c") and listing.records[4].label == ("a", "b", "c")


def test_a_separator_that_is_given(folder: Path) -> None:
    path = write(folder, "path,labels", ["cat | small+dog", "dog", "", "cat | small"])
    listing = list_table(path, Reading(labels="several", separator="+"))
    assert listing.class_names == ("cat | small", "dog") and listing.records[0].label == ("cat | small", "dog")


@pytest.mark.parametrize("asked", ["", "dog,cat"])
def test_columns_of_bits(folder: Path, asked: str) -> None:
    path = write(folder, "path,cat,dog,year", ["1,1,2020", "0,0,2021", "0,true,2020", "1.0,False,2020"])
    listing = list_table(path, Reading(label_column=asked, labels="several"))
    assert [record.label for record in listing.records] == SETS


def test_parquet_with_lists_and_with_bits(folder: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    paths = [f"pictures/{number}.png" for number in range(4)]
    tables = {
        "lists": {"path": paths, "labels": [["cat", "dog"], [], ["dog"], ["cat"]]},
        "bits": {"path": paths, "cat": [1, 0, 0, 1], "dog": [True, False, True, False]},
    }
    for name, columns in tables.items():
        parquet.write_table(arrow.table(columns), folder / f"{name}.parquet")
        listing = list_table(folder / f"{name}.parquet", SEVERAL)
        assert [record.label for record in listing.records] == SETS, name


@pytest.mark.parametrize(
    ("header", "rows", "reading", "problem"),
    [
        (
            "path,cat,dog",
            ["1,2", "0,1"],
            Reading(label_column="cat,dog", labels="several"),
            "other values than 0 and 1",
        ),
        ("path,cat,dog", ["1,1", "0,1"], Reading(label_column="cat,dgo", labels="several"), "no column 'dgo'"),
        ("path,animal", ["a", "b"], SEVERAL, "no column of the labels"),
        ("path,label", ["cat|dog", "dog"], Reading(), "several labels an image"),
        ("path,cat,dog", ["1,1", "0,1"], Reading(), "several labels an image, one column each"),
    ],
)
def test_what_is_refused_names_what_to_do(
    folder: Path, header: str, rows: list[str], reading: Reading, problem: str
) -> None:
    with pytest.raises(DataError, match=problem) as error:
        list_table(write(folder, header, rows), reading)
    assert error.value.fix
    if reading == Reading():
        assert "--labels several" in error.value.fix


def test_folders_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"an image in it is of one class") as error:
        scan_for_training(folder, Recipe(labels="several"))
    assert "--images" in error.value.fix


@pytest.mark.parametrize("options", [{"head": "mean"}, {"class_weights": "balanced"}])
def test_what_goes_with_one_class_only_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match=r"is for one class an image"):
        Recipe(labels="several", **options)


def test_a_data_set_of_label_sets(folder: Path) -> None:
    """Splits are cut, shots drawn, counts made; the same whatever the table's form."""
    sets = (["a|b"] * 4 + ["a"] * 6 + ["b|c"] * 6 + ["c"] * 12 + [""] * 12)[:40]
    cells = scan_for_training(write(folder, "path,labels", sets), Recipe(labels="several"))
    rows = [",".join(str(int(name in row.split("|"))) for name in "abc") for row in sets]
    bits = scan_for_training(write(folder, "path,a,b,c", rows), Recipe(labels="several"))
    assert cells.examples == bits.examples and cells.fingerprint == bits.fingerprint
    assert cells.class_names == ("a", "b", "c") and not cells.warnings
    for split in ("train", "validation", "test"):
        labels = {label for example in cells.split(split) for label in example.labels}
        assert labels == {0, 1, 2} and any(example.label == () for example in cells.split(split))
    few = scan_for_training(folder / "data.csv", Recipe(labels="several", shots=3))
    drawn = [example for example in few.examples if example.split != "test"]
    assert {example.path for example in few.split("test")} == {example.path for example in cells.split("test")}
    for label in range(3):
        assert 3 <= sum(label in example.labels for example in drawn) <= 9
    json.dumps([example.label for example in cells.examples])


def test_evaluation_reads_labels_as_training_did(folder: Path) -> None:
    path = write(folder, "path,labels", ["cat", "", "dog"])
    reading = Reading().as_trained(Recipe(labels="several", label_column="labels"))
    dataset = scan_for_evaluation(path, ("cat", "dog", "owl"), max_unreadable=0, reading=reading)
    assert [example.label for example in dataset.examples] == [(0,), (), (1,)]
    with pytest.raises(DataError, match=r"does not know: owl"):
        scan_for_evaluation(
            write(folder, "path,labels", ["owl|cat"]), ("cat", "dog"), max_unreadable=0, reading=reading
        )


def test_labels_on_no_image_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"No image .* has a label"):
        scan_for_training(write(folder, "path,labels", [""] * 20), Recipe(labels="several"))
