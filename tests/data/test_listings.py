"""Which folders are classes and splits, and what is passed over."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from image_folders import make_images

from multitl.data.folders import find_files
from multitl.data.listings import Record, check_exists, list_folder, list_records
from multitl.data.split_names import parse_split
from multitl.errors import DataError


def names(listing, root):
    return [(os.path.relpath(record.path, root), record.label, record.split) for record in listing.records]


def test_class_folders(tmp_path):
    make_images(tmp_path, {"b": 1, "a": 2, "a/deep/er": 1})
    listing = list_folder(tmp_path)
    assert listing.class_names == ("a", "b")
    assert names(listing, tmp_path) == [
        ("a/0.png", "a", None), ("a/1.png", "a", None), ("a/deep/er/0.png", "a", None), ("b/0.png", "b", None),
    ]  # fmt: skip
    assert listing.warnings == ()


@pytest.mark.parametrize("train", ["train", "Training", "TRAIN"])
@pytest.mark.parametrize("validation", ["val", "Valid", "validation", "dev"])
@pytest.mark.parametrize("test", ["test", "Testing", "eval"])
def test_spellings_of_splits(tmp_path, train, validation, test):
    make_images(tmp_path, {f"{train}/a": 2, f"{train}/b": 1, f"{validation}/a": 1, f"{test}/b": 1})
    listing = list_folder(tmp_path)
    assert listing.class_names == ("a", "b")
    assert Counter(record.split for record in listing.records) == {"train": 3, "validation": 1, "test": 1}


def test_parse_split_is_not_greedy():
    assert parse_split(" Validation-Set ") == "validation"
    assert [parse_split(name) for name in ("trainer", "tests of metal", "", "cat", "2")] == [None] * 5


def test_a_class_may_be_called_train(tmp_path):
    make_images(tmp_path, {"train": 2, "car": 2, "bus": 1})
    assert list_folder(tmp_path).class_names == ("bus", "car", "train")


def test_what_is_passed_over(tmp_path):
    make_images(tmp_path, {"a": 1, "b": 1, ".hidden": 1, "__MACOSX": 1, "a/.thumbs": 1, "a/@eaDir": 1})
    for name in ("LICENSE", "a/SOURCE.txt", "a/Thumbs.db", "a/.DS_Store", "b/._0.png", "b/notes.json"):
        (tmp_path / name).write_bytes(b"x")
    listing = list_folder(tmp_path)
    assert [record[0] for record in names(listing, tmp_path)] == ["a/0.png", "b/0.png"]
    assert listing.warnings == ()


def test_pictures_that_cannot_be_read_are_counted(tmp_path):
    make_images(tmp_path, {"train/a": 1, "train/b": 1})
    for name in ("a/1.jxl", "a/2.JXL", "b/3.svg"):
        (tmp_path / "train" / name).touch()
    (warning,) = list_folder(tmp_path).warnings
    assert "2 .jxl, 1 .svg" in warning


def test_stray_images_and_folders_are_mentioned(tmp_path):
    make_images(tmp_path, {"": 2, "a": 1, "b": 1})
    (warning,) = list_folder(tmp_path).warnings
    assert "ignored: 2" in warning
    make_images(tmp_path / "data", {"train/a": 1, "train/b": 1, "train": 3, "masks": 1})
    strays, folders = list_folder(tmp_path / "data").warnings
    assert "data/train" in strays and "ignored: 3" in strays
    assert "masks" in folders


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({}, "is empty"),
        ({"": 3}, "has no class folders"),
        ({"train": 3, "test": 2}, "train has no class folders|test has no class folders"),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "valid/a": 1}, "several validation folders: val, valid"),
        (
            {"google/train/a": 1, "google/test/a": 1, "twitter/train/a": 1},
            "several data sets, not classes: google, twitter",
        ),
    ],
)
def test_layouts_that_are_refused(tmp_path, counts, problem):
    with pytest.raises(DataError, match=problem) as error:
        list_folder(make_images(tmp_path, counts))
    assert error.value.fix and error.value.expected


def test_empty_class_folders_are_classes(tmp_path):
    make_images(tmp_path, {"a": 1, "b": 0})
    assert list_folder(tmp_path).class_names == ("a", "b")


def test_links_are_followed_but_never_in_circles(tmp_path):
    make_images(tmp_path / "data", {"a": 1, "b": 1})
    make_images(tmp_path / "elsewhere", {"more": 2})
    (tmp_path / "data/a/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/a/self").symlink_to(tmp_path / "data/a")
    (tmp_path / "data/b/more").symlink_to(tmp_path / "elsewhere/more")
    (tmp_path / "data/b/again").symlink_to(tmp_path / "elsewhere/more")
    (tmp_path / "data/b/nowhere.png").symlink_to(tmp_path / "nowhere.png")
    listing = list_folder(tmp_path / "data")
    assert [name for name, _, _ in names(listing, tmp_path / "data")] == [
        "a/0.png", "b/0.png", "b/again/0.png", "b/again/1.png", "b/nowhere.png",
    ]  # fmt: skip


def test_the_order_is_that_of_names(tmp_path, monkeypatch):
    make_images(tmp_path, {"b": 2, "a": 3, "a/x": 1})
    sorted_once = list(find_files(tmp_path))
    listed = type(tmp_path).iterdir
    monkeypatch.setattr(type(tmp_path), "iterdir", lambda self: reversed(list(listed(self))))
    assert list(find_files(tmp_path)) == sorted_once


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    make_images(tmp_path, {"a": 1, "b": 1})

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(DataError, match=r"Cannot look into .*: Permission denied"):
        list_folder(tmp_path)


def test_check_exists_names_what_is_near(tmp_path):
    make_images(tmp_path, {"clothing": 1})
    check_exists(tmp_path / "clothing")
    with pytest.raises(DataError, match="No such file") as error:
        check_exists(tmp_path / "clothin")
    assert error.value.nearest == ("clothing",)
    for bad in ("x" * 5000, "nul\0", "clothing/0.png/deeper"):
        with pytest.raises(DataError, match="Cannot find"):
            check_exists(tmp_path / bad)


def test_list_records_takes_classes_from_the_training_part():
    records = [Record("1", "b", "train"), Record("2", "a", "train"), Record("3", "c", "test")]
    assert list_records("root", records).class_names == ("a", "b")
