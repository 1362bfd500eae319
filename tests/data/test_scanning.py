"""The look at the data: splits, counts, faults and their messages."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from image_folders import make_images, scan_simply
from PIL import Image

from multitl.contracts import SPLITS, Preprocess
from multitl.data.pixels import PixelReader
from multitl.data.scanning import count_images, list_images, scan_examples, scan_for_evaluation
from multitl.errors import DataError

OPTIONS = {"seed": 0, "validation_fraction": 0.2, "test_fraction": 0.2, "max_unreadable": 0.05}


def sizes(dataset) -> dict[str, int]:
    return {split: len(dataset.split(split)) for split in SPLITS}


def places(dataset) -> dict[str, str]:
    """sha256 -> split"""
    return {example.sha256: example.split for example in dataset.examples}


def test_class_folders_are_cut_in_three(photo_folder):
    dataset = scan_simply(photo_folder)
    assert dataset.class_names == ("blue", "green", "red")
    assert sizes(dataset) == {"train": 30, "validation": 9, "test": 9}  # of 16: 3 for test, 3 of the other 13
    assert count_images(dataset)["test"] == {"blue": 3, "green": 3, "red": 3}
    assert dataset.warnings == () and dataset.unreadable == ()
    for example in dataset.examples:
        assert Path(example.path).parent.name == dataset.class_names[example.label]
    keys = [(SPLITS.index(example.split), example.path) for example in dataset.examples]
    assert keys == sorted(keys)


def test_the_cut_depends_on_seed_and_contents_alone(photo_folder, tmp_path):
    dataset = scan_simply(photo_folder)
    moved = tmp_path / "somewhere" / "else"
    shutil.copytree(photo_folder, moved)
    for path in list(moved.rglob("*.png")):
        path.rename(path.with_name(f"renamed-{99 - int(path.stem)}.png"))
    again = scan_simply(moved)
    assert places(again) == places(dataset)
    assert again.fingerprint == dataset.fingerprint
    assert places(scan_simply(photo_folder, seed=1)) != places(dataset)


def test_the_fingerprint_sees_contents_labels_splits_and_names(tmp_path):
    make_images(tmp_path, {"train/a": 4, "train/b": 4, "val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1})
    prints = [scan_simply(tmp_path).fingerprint]
    (tmp_path / "train/a/0.png").rename(tmp_path / "test/a/9.png")
    prints.append(scan_simply(tmp_path).fingerprint)
    (tmp_path / "train/a/1.png").rename(tmp_path / "train/b/9.png")
    prints.append(scan_simply(tmp_path).fingerprint)
    Image.new("RGB", (8, 6), "white").save(tmp_path / "train/b/9.png")
    prints.append(scan_simply(tmp_path).fingerprint)
    for split in ("train", "val", "test"):
        (tmp_path / split / "a").rename(tmp_path / split / "A")
    prints.append(scan_simply(tmp_path).fingerprint)
    assert len(set(prints)) == 5


@pytest.mark.parametrize(
    ("given", "expected", "words"),
    [
        ({"train": 10, "val": 3, "test": 2}, {"train": 20, "validation": 6, "test": 4}, ""),
        ({"train": 10, "test": 2}, {"train": 16, "validation": 4, "test": 4}, ""),
        ({"train": 10, "val": 3}, {"train": 20, "validation": 6, "test": 0}, "no test part"),
        ({"train": 10}, {"train": 12, "validation": 4, "test": 4}, ""),
    ],
)
def test_missing_splits_are_cut(tmp_path, given, expected, words):
    counts = {f"{split}/{name}": count for split, count in given.items() for name in "ab"}
    dataset = scan_simply(make_images(tmp_path, counts))
    assert sizes(dataset) == expected
    assert (words in " ".join(dataset.warnings)) if words else dataset.warnings == ()
    for example in dataset.examples:
        folder = os.path.relpath(example.path, tmp_path).split("/")[0]
        assert example.split == {"train": example.split, "val": "validation", "test": "test"}[folder]


def test_small_classes_stay_in_train_with_a_warning(tmp_path):
    dataset = scan_simply(make_images(tmp_path, {"one": 1, "two": 2, "three": 3, "many": 20}))
    counts = count_images(dataset)
    assert counts["train"] == {"many": 13, "one": 1, "three": 1, "two": 2}
    assert counts["validation"]["three"] == counts["test"]["three"] == 1
    small, *gaps = sorted(dataset.warnings)
    assert "Classes too small" in small and "one, two" in small
    assert ["has no image of one, two" in gap for gap in gaps] == [True, True]


def test_classes_that_differ_in_spelling_alone_are_told(tmp_path):
    dataset = scan_simply(make_images(tmp_path, {"hat": 4, "Hat": 4, "cafe\u0301": 4, "caf\u00e9": 4, "shoe": 4}))
    (warning,) = [one for one in dataset.warnings if "spelling" in one]
    assert "'Hat' and 'hat'" in warning and "caf\u00e9" in warning and "shoe" not in warning


def test_copies_in_two_splits_are_leakage(tmp_path):
    make_images(tmp_path, {"train/a": 5, "train/b": 5, "val/a": 2, "val/b": 2, "test/a": 2, "test/b": 2})
    for number in (1, 2):
        shutil.copy(tmp_path / f"train/a/{number}.png", tmp_path / f"test/a/copy{number}.png")
    (warning,) = scan_simply(tmp_path).warnings
    assert "Leakage: 2 images" in warning
    assert "train/a/1.png (train)" in warning and "test/a/copy1.png (test)" in warning


def test_copies_end_on_one_side_of_a_cut(tmp_path):
    make_images(tmp_path, {"a": 12, "b": 12})
    for number in range(12):
        shutil.copy(tmp_path / f"a/{number}.png", tmp_path / f"a/copy-{number}.png")
    for seed in range(3):
        dataset = scan_simply(tmp_path, seed=seed)
        assert dataset.warnings == ()
        assert len(places(dataset)) == 24 and len(dataset.examples) == 36


def test_one_image_with_two_labels(tmp_path):
    make_images(tmp_path, {"a": 9, "b": 9})
    shutil.copy(tmp_path / "a/3.png", tmp_path / "b/same.png")
    dataset = scan_simply(tmp_path)
    (warning,) = dataset.warnings
    assert "1 images carry two labels" in warning and "a/3.png (a)" in warning and "b/same.png (b)" in warning
    assert {example.split for example in dataset.examples if example.path.endswith(("a/3.png", "same.png"))} == {
        "train"
    }


def damaged(tmp_path, bad: int, good: int = 20):
    make_images(tmp_path, {"a": good // 2, "b": good // 2})
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    half = (tmp_path / "whole.jpg").read_bytes()[:2000]
    (tmp_path / "whole.jpg").unlink()
    for number in range(bad):
        (tmp_path / f"a/bad{number}.jpg").write_bytes([half, b"", b"no image"][number % 3])
    return tmp_path


def test_unreadable_files_are_listed_and_skipped(tmp_path):
    dataset = scan_simply(damaged(tmp_path, bad=3), max_unreadable=0.2)
    assert len(dataset.examples) == 20
    reasons = {Path(file.path).name: file.reason for file in dataset.unreadable}
    assert "truncated" in reasons["bad0.jpg"]
    assert reasons["bad1.jpg"] == "empty: 0 bytes"
    assert "not an image" in reasons["bad2.jpg"]


def test_too_many_unreadable_files(tmp_path):
    damaged(tmp_path, bad=7)
    with pytest.raises(DataError, match=r"7 of 27 image files .* cannot be read") as error:
        scan_simply(tmp_path)
    assert "bad0.jpg (truncated" in error.value.received and "and 2 more" in error.value.received
    advised = float(error.value.fix.rpartition("--max-unreadable ")[2])
    assert len(scan_simply(tmp_path, max_unreadable=advised).unreadable) == 7


def test_exactly_the_limit_is_allowed(tmp_path):
    assert len(scan_simply(damaged(tmp_path, bad=1, good=18), max_unreadable=1 / 19).unreadable) == 1


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({"a": 3}, "one class only: a"),
        ({"train/a": 3, "test/a": 1}, "one class only: a"),
        ({"a": 0, "b": 0}, "There is no image in"),
        ({"train/a": 0, "train/b": 0}, "There is no image in"),
        ({"test/a": 2, "test/b": 2}, "nothing to train on"),
        ({"val/a": 2, "val/b": 2, "test/a": 1}, "nothing to train on"),
        ({"train/a": 3, "train/b": 3, "val/c": 1}, "training part of .* does not know: c"),
        ({"train/a": 3, "train/b": 3, "test/bb": 1, "test/d": 1}, "does not know: bb, d"),
        ({"a": 3, "b": 3, "c": 0}, "without a training image in .*: c"),
        ({"train/a": 3, "train/b": 0, "val/b": 3}, "without a training image in .*: b"),
        ({"a": 1, "b": 2}, "too few images"),
    ],
)
def test_data_that_cannot_be_trained_on(tmp_path, counts, problem):
    with pytest.raises(DataError, match=problem) as error:
        scan_simply(make_images(tmp_path, counts))
    assert error.value.fix and error.value.expected and error.value.received


def test_the_nearest_class_is_named(tmp_path):
    make_images(tmp_path, {"train/trousers": 3, "train/hat": 3, "val/trouser": 1})
    with pytest.raises(DataError) as error:
        scan_simply(tmp_path)
    assert error.value.nearest == ("trousers",)


def test_no_readable_image_at_all(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match="None of the 2 image files"):
        scan_simply(tmp_path, max_unreadable=1.0)


def test_a_class_whose_every_image_is_unreadable(tmp_path):
    make_images(tmp_path, {"a": 9, "b": 9, "c": 1})
    (tmp_path / "c/0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"without a training image in .*: c"):
        scan_simply(tmp_path, max_unreadable=0.5)


def test_paths_that_are_no_data(tmp_path):
    with pytest.raises(DataError, match="Cannot find"):
        scan_simply(tmp_path / "missing")
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="neither a folder nor a table") as error:
        scan_simply(tmp_path / "data.zip")
    assert "unpack" in error.value.fix
    (tmp_path / "data.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="save the sheet"):
        scan_simply(tmp_path / "data.xlsx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        scan_simply(tmp_path / "empty")


def test_names_that_are_not_utf8(tmp_path):
    make_images(tmp_path, {"a": 9, "b": 9})
    strange = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "a/0.png").rename(tmp_path / "a" / strange)
    dataset = scan_simply(tmp_path, max_unreadable=0.1)
    (file,) = dataset.unreadable
    assert file.reason == "its name is not valid UTF-8" and file.path.encode("utf-8").endswith(b"caf\\udce9.png")
    (tmp_path / "a").rename(tmp_path / os.fsdecode(b"\xff"))
    with pytest.raises(DataError, match="not valid UTF-8"):
        scan_simply(tmp_path)


def test_tables_and_lists_give_the_same_as_folders(tmp_path):
    make_images(tmp_path, {"a": 10, "b": 10})
    expected = scan_simply(tmp_path)
    rows = [(f"{name}/{number}.png", name) for name in "ba" for number in range(10)]
    (tmp_path / "data.csv").write_text("path,label\n" + "\n".join(map(",".join, rows)))
    for dataset in (scan_simply(tmp_path / "data.csv"), scan_examples(rows, tmp_path, **OPTIONS)):
        assert dataset.examples == expected.examples and dataset.fingerprint == expected.fingerprint


def test_lists_with_splits(tmp_path):
    make_images(tmp_path, {"a": 4, "b": 4})
    rows = [(f"{name}/{n}.png", name, ["train", "train", "val", "test"][n]) for name in "ab" for n in range(4)]
    assert sizes(scan_examples(rows, tmp_path, **OPTIONS)) == {"train": 4, "validation": 2, "test": 2}
    with pytest.raises(DataError, match="'nowhere' is not the name of a split"):
        scan_examples([*rows, ("a/0.png", "a", "nowhere")], tmp_path, **OPTIONS)
    with pytest.raises(DataError, match="There is no image"):
        scan_examples([], tmp_path, **OPTIONS)


def test_progress_counts_every_file(tmp_path):
    make_images(tmp_path, {"a": 70, "b": 70})
    seen = []
    scan_simply(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1] == (140, 140) and len(seen) > 2


def test_evaluation_takes_the_test_part(tmp_path):
    make_images(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 1, "test/b": 2, "test/a": 1})
    dataset = scan_for_evaluation(tmp_path, ["b", "c", "a"], max_unreadable=0)
    assert dataset.class_names == ("b", "c", "a")
    assert [(example.label, example.split) for example in dataset.examples] == [(2, "test"), (0, "test"), (0, "test")]
    judged = scan_for_evaluation(tmp_path, ["a", "b"], split="validation", max_unreadable=0)
    assert [(example.label, example.split) for example in judged.examples] == [(0, "test")]


def test_evaluation_takes_everything_without_splits(tmp_path):
    make_images(tmp_path, {"a": 2, "b": 3})
    dataset = scan_for_evaluation(tmp_path, ["a", "b"], max_unreadable=0)
    assert sizes(dataset) == {"train": 0, "validation": 0, "test": 5}
    make_images(tmp_path / "only", {"test/a": 2})
    assert sizes(scan_for_evaluation(tmp_path / "only", ["a", "b"], max_unreadable=0))["test"] == 2


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({"a": 1, "cats": 1}, "the run does not know: cats"),
        ({"train/a": 1, "val/a": 1}, "has no test images"),
        ({"a": 0}, "There is no image in"),
        ({}, "is empty"),
    ],
)
def test_data_that_cannot_be_judged_on(tmp_path, counts, problem):
    with pytest.raises(DataError, match=problem):
        scan_for_evaluation(make_images(tmp_path, counts), ["a", "cat"], max_unreadable=0)


def test_list_images_for_predict(tmp_path):
    make_images(tmp_path, {"b": 2, "a/deep": 1})
    (tmp_path / "odd.bin").touch()
    listed = list_images([tmp_path / "b/1.png", tmp_path, str(tmp_path / "odd.bin")])
    assert [os.path.relpath(path, tmp_path) for path in listed] == ["b/1.png", "a/deep/0.png", "b/0.png", "odd.bin"]
    (tmp_path / "none").mkdir()
    for paths, problem in [([tmp_path / "none"], "no image"), ([], "no image"), ([tmp_path / "gone"], "Cannot find")]:
        with pytest.raises(DataError, match=problem):
            list_images(paths)


def test_a_scan_leaves_no_open_thread_when_interrupted(tmp_path):
    make_images(tmp_path, {"a": 200, "b": 200})

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_simply(tmp_path, progress=interrupt)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("multitl")]


@pytest.mark.parametrize(
    ("name", "images", "classes"),
    [
        ("clothing_tiny", 320, 4),
        ("deeppcb_crops", 2400, 6),
        ("emoji_vendors/google", 585, 6),
        ("clothing_medium", 3781, 10),
    ],
)
def test_real_photos(shared_data, name, images, classes):
    dataset = scan_simply(shared_data / name)
    assert (len(dataset.examples), len(dataset.class_names)) == (images, classes)
    assert dataset.unreadable == () and dataset.warnings == ()
    assert all(sizes(dataset).values())
    pixels = PixelReader(dataset.examples, Preprocess(64, 64, shorter_side=72)).read(range(0, images, images // 20))
    assert pixels.std() > 20


def test_a_folder_of_data_sets_is_not_a_data_set(shared_data):
    with pytest.raises(DataError, match="several data sets"):
        scan_simply(shared_data / "emoji_vendors")


def in_split(dataset, split: str) -> set[str]:
    return {example.sha256 for example in dataset.split(split)}


def test_shots_leave_the_test_part_as_it_is_and_cut_validation_from_what_is_drawn(photo_folder):
    everything, few = scan_simply(photo_folder), scan_simply(photo_folder, shots=5)
    assert in_split(few, "test") == in_split(everything, "test")
    counts = count_images(few)
    assert counts["train"] == {"blue": 4, "green": 4, "red": 4}  # of 5 images one validates
    assert counts["validation"] == {"blue": 1, "green": 1, "red": 1}
    assert few.warnings == () and few.fingerprint != everything.fingerprint
    again = scan_simply(photo_folder, shots=5, seed=1)
    assert in_split(again, "train") != in_split(few, "train")


def test_shots_are_all_that_a_run_sees_of_train_and_validation(tmp_path):
    make_images(tmp_path, {"train/a": 9, "train/b": 9, "val/a": 9, "val/b": 9, "test/a": 2, "test/b": 2})
    few = scan_simply(tmp_path, shots=8)
    assert sizes(few) == {"train": 12, "validation": 4, "test": 4}
    drawn = {Path(example.path).parts[-3] for example in few.examples if example.split != "test"}
    assert drawn == {"train", "val"}


def test_without_a_test_part_the_shots_are_judged_on_the_validation_part(tmp_path):
    make_images(tmp_path, {"train/a": 9, "train/b": 9, "val/a": 5, "val/b": 5})
    few, everything = scan_simply(tmp_path, shots=3), scan_simply(tmp_path)
    assert sizes(few) == {"train": 6, "validation": 10, "test": 0}
    assert in_split(few, "validation") == in_split(everything, "validation")


def test_a_class_of_fewer_images_than_shots_is_taken_whole_with_a_warning(tmp_path):
    make_images(tmp_path, {"train/few": 3, "train/many": 9, "test/few": 2, "test/many": 2})
    dataset = scan_simply(tmp_path, shots=4)
    counts = count_images(dataset)
    assert (counts["train"]["few"] + counts["validation"]["few"], counts["train"]["many"]) == (3, 3)
    assert [warning for warning in dataset.warnings if "fewer than 4 images" in warning and "few" in warning]
