"""CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import sys

import pytest
from image_folders import make_images

from multitl.data.tables import Reading, list_table
from multitl.errors import DataError
from multitl.recipes import Recipe

HEADERS = ["path,label", "filename,class", "File , TARGET", "image,category,extra"]


@pytest.fixture
def folder(tmp_path):
    return make_images(tmp_path, {"pictures": 4})


def write(folder, text: str, name: str = "data.csv"):
    (folder / name).write_bytes(text.encode())
    return folder / name


def found(listing):
    return [(record.path, record.label, record.split) for record in listing.records]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_text_tables(folder, header, separator, start):
    rows = [header, "pictures/0.png,cat,1", f"{folder}/pictures/1.png,dog,2", "", "pictures/2.png, cat ,3"]
    path = write(folder, start + "\r\n".join(rows).replace(",", separator))
    listing = list_table(path)
    assert found(listing) == [
        (f"{folder}/pictures/0.png", "cat", None),
        (f"{folder}/pictures/1.png", "dog", None),
        (f"{folder}/pictures/2.png", "cat", None),
    ]
    assert listing.class_names == ("cat", "dog") and listing.root == str(path)


def test_splits_in_a_table(folder):
    rows = ["label\tsplit\tpath", "a\tTrain\t0.png", "b\ttrain\t1.png", "a\tVAL\t2.png", "c\ttest\t3.png"]
    listing = list_table(write(folder / "pictures", "\n".join(rows), "data.tsv"))
    assert [record.split for record in listing.records] == ["train", "train", "validation", "test"]
    assert listing.class_names == ("a", "b")


def test_a_column_called_set_may_be_something_else(folder):
    """Of numbers it is not the parts, unless it is called what nothing else is; asked for as labels it is these."""
    rows = ["path,label,Set", "pictures/0.png,a,10", "pictures/1.png,b,7.5"]
    listing = list_table(write(folder, "\n".join(rows)))
    assert [record.split for record in listing.records] == [None, None]
    assert len(listing.warnings) == 1 and "set of data.csv holds numbers" in listing.warnings[0]
    labelled = list_table(write(folder, "\n".join(rows)), Reading(label_column="Set", labels="number"))
    assert [record.label for record in labelled.records] == [10, 7.5] and not labelled.warnings
    parts = write(folder, "\n".join(rows).replace("10", "train").replace("7.5", "test"))
    assert [record.split for record in list_table(parts).records] == ["train", "test"]
    for strange in ("\n".join(rows).replace("7.5", "tset"), "\n".join(rows).replace("Set", "split")):
        with pytest.raises(DataError, match="splits that are not known"):
            list_table(write(folder, strange))


def test_quoted_names_with_commas(folder):
    (folder / "pictures/0.png").rename(folder / "a, b.png")
    assert found(list_table(write(folder, 'path,label\n"a, b.png","x, y"\n'))) == [(f"{folder}/a, b.png", "x, y", None)]


@pytest.mark.parametrize(
    ("text", "problem", "detail"),
    [
        ("", "no column of the paths", "no header"),
        ("path,kind\npictures/0.png,a", "no column of the labels", "path, kind"),
        ("pictures/0.png,a\npictures/1.png,b", "no column of the paths", "pictures/0.png, a"),
        ("path,label", "no rows", "no rows"),
        ("path,label\npictures/0.png,a\npictures/1.png,\npictures/2.png", "2 empty labels", "row 2, row 3"),
        ("path,label\n,a", "1 empty paths", "row 1"),
        ("path,label\npictures/0.png,a\npictures/7.png,b\nx.png,b", "2 files that do not exist, of 3", "7.png"),
        ("path,label\npictures,a", "1 files that do not exist", "pictures"),
        (f"path,label\n{'x' * 5000},a", "1 files that do not exist", "xxx"),
        ("path,label,split\npictures/0.png,a,train\npictures/1.png,b,trian", "splits that are not known", "'trian'"),
        ("path,label,split\npictures/0.png,a,train\npictures/1.png,b,", "splits that are not known", "''"),
        ("path,label\n" + '"' * 3 + "x" * 2**24, "cannot be read", "field larger"),
    ],
)
def test_tables_that_are_refused(folder, text, problem, detail):
    with pytest.raises(DataError, match=problem) as error:
        list_table(write(folder, text))
    assert detail in error.value.received and error.value.fix
    assert "data.csv" in str(error.value)


def test_text_that_is_not_utf8(folder):
    (folder / "data.csv").write_bytes(b"path,label\npictures/0.png,caf\xe9\n")
    with pytest.raises(DataError, match="cannot be read") as error:
        list_table(folder / "data.csv")
    assert "utf-8" in error.value.received


def write_parquet(folder, columns: dict):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), folder / "data.parquet")
    return folder / "data.parquet"


def test_parquet(folder):
    columns = {
        "Filename": ["pictures/0.png", "pictures/1.png"],
        "label": [7, 10],
        "score": [0.5, 1.5],
        "split": ["train", "test"],
    }
    listing = list_table(write_parquet(folder, columns))
    assert found(listing) == [(f"{folder}/pictures/0.png", "7", "train"), (f"{folder}/pictures/1.png", "10", "test")]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"path": ["pictures/0.png"], "kind": ["a"]}, "no column of the labels"),
        ({"path": ["pictures/0.png", "pictures/1.png"], "a": [1.0, 0.0], "b": [0.0, 1.0]}, r"one-hot"),
        ({"path": ["pictures/0.png"], "label_a": ["x"], "label_b": ["y"]}, "no column of the labels"),
        ({"path": ["pictures/0.png", "pictures/1.png"], "label": [1.0, None]}, "1 empty labels"),
        ({"path": ["pictures/0.png", "pictures/1.png"], "label": [1.0, float("nan")]}, "1 empty labels"),
        ({"path": ["gone.png"], "label": ["a"]}, "1 files that do not exist"),
        ({"image": [[1, 2], [3]], "label": [0, 1]}, "holds no images and no paths"),
    ],
)
def test_parquet_that_is_refused(folder, columns, problem):
    with pytest.raises(DataError, match=problem):
        list_table(write_parquet(folder, columns))


def test_a_column_of_parquet_that_is_asked_for(folder):
    path = write_parquet(folder, {"photo": ["pictures/0.png", "pictures/1.png"], "kind": ["a", "b"], "bit": [0, 1]})
    listing = list_table(path, Reading(path_column="photo", label_column="kind"))
    assert [record.label for record in listing.records] == ["a", "b"]


def test_a_file_that_is_no_parquet(folder):
    pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match="cannot be read"):
        list_table(write(folder, "path,label\n", "data.parquet"))


def test_parquet_without_pyarrow(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="pyarrow") as error:
        list_table(write(folder, "", "data.parquet"))
    assert error.value.fix == "pip install 'multitl[parquet]'"


def test_cells_longer_than_csv_allows_are_read(folder):
    rows = ["path,label,polygon", f"pictures/0.png,cat,{'7 ' * 200_000}", "pictures/1.png,dog,"]
    assert list_table(write(folder, "\n".join(rows))).class_names == ("cat", "dog")
    assert csv.field_size_limit() == 131072


def test_a_table_to_judge_by_may_hold_a_few_of_the_classes(folder):
    """Apple|rust and its like are a grid of kinds, which some of its cells are not."""
    grid = ["Apple|rust", "Apple|healthy", "Corn|rust", "Corn|healthy"]
    rows = [f"pictures/{number}.png,{label}" for number, label in enumerate(grid)]
    assert len(list_table(write(folder, "\n".join(["path,label", *rows]))).class_names) == 4
    some = write(folder, "\n".join(["path,label", *rows[:3]]), "some.csv")
    with pytest.raises(DataError, match="looks like several labels"):
        list_table(some)
    assert len(list_table(some, Reading().as_trained(Recipe())).class_names) == 3


def test_columns_of_bits_beside_a_column_of_paths_of_another_name(folder):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"photo": ["pictures/0.png", "pictures/1.png"], "hat": [0, 1], "shoe": [1, 1]}
    parquet.write_table(arrow.table(columns), folder / "data.parquet")
    listing = list_table(folder / "data.parquet", Reading(path_column="photo", labels="several"))
    assert [record.label for record in listing.records] == [("shoe",), ("hat", "shoe")]
