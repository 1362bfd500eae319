"""What people really bring: folders and tables as they come out of archives, each with its outcome in words.

A layout is a folder -> how many images; a table is its text beside `photos/0.png` to `photos/11.png`. An outcome tells
the classes and the parts, then what is warned of; or the problem and how it is mended. `*` stands for anything.
"""

from __future__ import annotations

import fnmatch
import re

import pytest
from image_folders import make_images, scan_simply
from PIL import Image

from multitl.contracts import SPLITS
from multitl.data.tables import Reading
from multitl.errors import DataError

CUT = "8 train, 2 validation, 2 test"  # of 2 x 6 images


def both(*folders: str, count: int = 6) -> dict[str, int]:
    """Each folder with a class cat and a class dog in it."""
    return {f"{folder}/{name}": count for folder in folders for name in ("cat", "dog")}


FOLDERS = {
    "classes": (both("."), f"cat, dog: {CUT}"),
    "parts": (both("train", "val", "test"), "cat, dog: 12 train, 12 validation, 12 test"),
    "parts of Kaggle's Intel": (
        both("seg_train/seg_train", "seg_test/seg_test") | {"seg_pred/seg_pred": 4},
        "cat, dog: 10 train, 2 validation, 12 test; Beside the splits, DATA holds folders that are ignored: seg_pred.",
    ),
    "sets in themselves": (
        both("training_set/training_set", "test_set/test_set"),
        "cat, dog: 10 train, 2 validation, 12 test",
    ),
    "TrainingSet": (both("TrainingSet", "ValidationSet", "TestSet"), "cat, dog: 12 train, 12 validation, 12 test"),
    "trainset": (both("trainset", "testset"), "cat, dog: 10 train, 2 validation, 12 test"),
    "train-images": (both("Train-Images", "valid images"), "cat, dog: 12 train, 12 validation, 0 test; There is no*"),
    "parts with a year": (both("train2017", "val2017"), "cat, dog: 12 train, 12 validation, 0 test; There is no*"),
    "parts with a name": (both("birds_train", "birds_test"), "cat, dog: 10 train, 2 validation, 12 test"),
    "parts with a name, test without labels": (
        both("asl_train") | {"asl_test": 5},
        f"cat, dog: {CUT}; Beside the splits, DATA holds folders that are ignored: asl_test.",
    ),
    "a test part without labels": (
        both("train") | {"test": 5},
        f"cat, dog: {CUT}; Beside the splits, DATA holds folders that are ignored: test.",
    ),
    "two names of one part": (both("train", "training"), "DATA has several train folders: train, training. Mend: *"),
    "parts without classes": ({"train": 6, "test": 6}, "DATA/test has no class folders. Mend: sort the images*"),
    "a class called train": ({"train": 6, "car": 6}, f"car, train: {CUT}"),
    "classes called model_train and scale_train": (
        {"model_train": 6, "scale_train": 6},
        f"model_train, scale_train: {CUT}",
    ),
    "versions": (
        both("color", "grayscale", "segmented"),
        "DATA holds the same classes several times: color, grayscale, segmented are versions or parts, not classes. "
        "Mend: give one of them: DATA/color; or, if they are parts, rename them to train, validation and test;*",
    ),
    "folds": (
        both("fold_1", "fold_2", "fold_3"),
        "DATA holds the same classes several times: fold_1, fold_2, fold_3 are*Mend: give one of them: DATA/fold_1;*",
    ),
    "versions in a part": (both("train/color", "train/grey"), "DATA/train holds the same classes several times: *"),
    "folders inside classes": ({"cat/a": 3, "cat/b": 3, "dog/c": 3, "dog/d": 3}, f"cat, dog: {CUT}"),
    "one folder inside each class": ({"cat/images": 6, "dog/images": 6}, f"cat, dog: {CUT}"),
    "data sets": (
        both("google/train", "google/test", "bing/train", "bing/test"),
        "DATA holds several data sets, not classes: bing, google. Mend: give one of them: DATA/bing",
    ),
    "masks": (
        {"images": 6, "masks": 6},
        "DATA looks like pictures and what is drawn on them, not like classes: images, masks. Mend: multitl tells*",
    ),
    "masks in a part": ({"train/image": 6, "train/label": 6}, "DATA/train looks like pictures and what is drawn on *"),
    "faces with masks": ({"with_mask": 6, "without_mask": 6}, f"with_mask, without_mask: {CUT}"),
    "a wrapper": (
        both("PlantVillage"),
        "DATA has one class only: PlantVillage. Mend: give the folder inside: DATA/PlantVillage",
    ),
    "two wrappers": (
        both("archive/pets"),
        "DATA has one class only: archive. Mend: give the folder inside: DATA/archive/pets",
    ),
    "a wrapper of parts": (
        both("archive/train", "archive/test"),
        "DATA has one class only: archive. Mend: give the folder inside: DATA/archive",
    ),
    "a wrapper in a part": (
        both("train/pets"),
        "DATA has one class only: pets. Mend: move the folders of DATA/train/pets to DATA/train",
    ),
    "one class": ({"cat": 6}, "DATA has one class only: cat. Mend: add images that show something else, as another*"),
    "a copy of all inside": (
        both(".", "pets"),
        "DATA/pets holds the classes of DATA once more, and is no class itself. Mend: move DATA/pets elsewhere*",
    ),
    "numbers as classes": ({str(digit): 6 for digit in range(3)}, "0, 1, 2: 12 train, 3 validation, 3 test"),
    "leftovers of other systems": (both(".") | {"__MACOSX/cat": 6, ".git/dog": 6}, f"cat, dog: {CUT}"),
    "no folder": ({".": 6}, "DATA has no class folders. Mend: sort the images into one folder a class*"),
}  # fmt: skip


def rows(labels: list[str], header: str = "path,label", path: str = "photos/{}.png") -> str:
    """A table of the twelve photos, the labels taken in turn."""
    return "\n".join([header, *(f"{path.format(index)},{labels[index % len(labels)]}" for index in range(12))])


PETS = ["cat", "dog"]
TABLES = {
    "a table": (rows(PETS), {}, f"cat, dog: {CUT}"),
    "Windows' slashes": (rows(PETS, path="photos\\{}.png"), {}, f"cat, dog: {CUT}"),
    "no endings": (rows(PETS, "image_id,label", "photos/{}"), {}, f"cat, dog: {CUT}"),
    "endings in capitals": (rows(PETS, path="photos/{}.PNG"), {}, f"cat, dog: {CUT}"),
    "names alone": (
        rows(PETS, path="{}"), {},
        f"cat, dog: {CUT}; table.csv names files that lie elsewhere: taken from DATA/photos.",
    ),
    "paths of another machine": (
        rows(PETS, path=r"C:\Users\me\photos\{}.png"), {},
        f"cat, dog: {CUT}; table.csv names files that lie elsewhere: taken from DATA/photos.",
    ),
    "names in two folders": (
        rows(PETS, path="{}.png"), {"twice": True},
        "DATA/table.csv names 12 files that do not exist, of 12. "
        "Mend: --images DATA/copy, --images DATA/photos if they lie there; or correct*",
    ),
    "names in two folders, one given": (
        rows(PETS, path="{}.png"), {"twice": True, "reading": Reading(images="DATA/photos")}, f"cat, dog: {CUT}",
    ),
    "a folder that is not there": (
        rows(PETS), {"reading": Reading(images="DATA/fotos")},
        "Cannot find DATA/fotos: No such file*Mend: check the path",
    ),
    "files that are not there": (
        rows(PETS, path="photos/a{}.png"), {},
        "DATA/table.csv names 12 files that do not exist, of 12. Mend: --images DIR if they lie there;*",
    ),
    "other columns": (
        rows(PETS, "photo,kind"), {},
        "DATA/table.csv has no column of the paths. Mend: --path-column photo, or make path,label the first line*",
    ),
    "another column of labels": (
        rows(PETS, "path,kind"), {},
        "DATA/table.csv has no column of the labels. Mend: --label-column kind, or make path,label the first line*",
    ),
    "other columns, named": (
        rows(PETS, "photo,kind"), {"reading": Reading(path_column="photo", label_column="kind")}, f"cat, dog: {CUT}",
    ),
    "columns, misspelt": (
        rows(PETS, "photo,kind"), {"reading": Reading(path_column="foto")},
        "DATA/table.csv has no column 'foto'. Mend: --path-column NAME",
    ),
    "two factors, each with each": (
        rows(["Apple|rust", "Apple|healthy", "Corn|rust", "Corn|healthy"]), {}, "Apple|healthy, Apple|rust, *",
    ),
    "two columns of one name": (
        rows(["cat,x", "dog,y"], "path,label,label"), {}, "DATA/table.csv has columns of the same name*rename them*",
    ),
    "blank lines before the header": (
        "\n\n" + rows(PETS, "path;label").replace("png,", "png;"), {}, f"cat, dog: {CUT}",
    ),
    "several labels, |": (
        rows(["cat", "dog", "cat|dog"]), {},
        "DATA/table.csv looks like several labels an image, not one class. Mend: train several labels an image: "
        "--labels several*",
    ),
    "several labels, ;": (rows(["cat", "cat;dog"]), {}, "*looks like several labels an image*"),
    "paths of families": (rows(["pet|cat", "pet|dog"]), {}, f"pet|cat, pet|dog: {CUT}"),
    "several labels, quoted": (rows(["cat", "dog", '"cat, dog"']), {}, "*looks like several labels an image*"),
    "several labels, spaces": (
        rows(["a b", "a", "b", "c a", "a b c", "b c"]), {}, "*looks like several labels an image*",
    ),
    "several labels, lists": (rows(["\"['cat', 'dog']\"", "\"['dog']\""]), {}, "*looks like several labels an image*"),
    "a class with a comma": (rows(["sofa", '"chair, office"']), {}, f"chair, office, sofa: {CUT}"),
    "classes with synonyms": (rows(['"tench, Tinca"', '"shark, white"']), {}, f"shark, white, tench, Tinca: {CUT}"),
    "classes of two words": (
        rows(["red car", "red bus", "blue car", "blue bus"]), {}, "blue bus, blue car, red bus, red car: 4 train, 4 *",
    ),
    "one-hot": (
        rows(["1,0", "0,1"], "image,cat,dog"), {},
        "DATA/table.csv looks like one column a class (one-hot), not one of labels. Mend: write their names into one: "
        "t['label'] = t.loc[:, 'cat':'dog'].idxmax(axis=1) in pandas",
    ),
    "one-hot with points": (rows(["1.0,0.0", "0.0,1.0"], "image,MEL,NV"), {}, "*looks like one column a class *"),
    "several bits": (
        rows(["1,1", "0,1"], "image,cat,dog"), {},
        "DATA/table.csv looks like several labels an image, one column each. Mend: learn them all: "
        "--labels several; or choose one of them, as in --label-column cat",
    ),
    "one bit, chosen": (
        rows(["1,1", "0,1"], "image,cat,dog"), {"reading": Reading(label_column="cat")}, f"0, 1: {CUT}",
    ),
    "two targets": (
        rows(["cat,old", "dog,old", "cat,new", "dog,new"], "path,label,label2"), {},
        "DATA/table.csv looks like several targets: it has more than one column of labels. "
        "Mend: say which one is to be learned: --label-column label or --label-column label2",
    ),
    "two targets, one chosen": (
        rows(["cat,old", "dog,old", "cat,new", "dog,new"], "path,label,label2"),
        {"reading": Reading(label_column="label2")}, f"new, old: {CUT}",
    ),
    "numbered targets alone": (
        rows(["cat,old", "dog,new"], "path,target_1,target_2"), {},
        "DATA/table.csv has no column of the labels. Mend: --label-column target_1, or*",
    ),
    "species and family": (
        rows(["cat,pet", "dog,pet"], "path,label,category"), {}, f"cat, dog: {CUT}",
    ),
    "a regression": (
        rows(PETS[:1]).replace(",cat", ",{}").format(*(0.37 * index for index in range(1, 13))) + "\n"
        + "\n".join(f"photos/{index}.png,{index + 0.5}" for index in range(12)), {},
        "DATA/table.csv looks like a regression, numbers to be predicted, not classes. Mend: predict them: --labels "
        "number; or group*",
    ),
    "ratings": (rows(["1.0", "1.5", "2.0"]), {}, "1.0, 1.5, 2.0: 6 train, 3 validation, 3 test"),
    "digits": (rows(["0", "1", "2"]), {}, "0, 1, 2: 6 train, 3 validation, 3 test"),
}  # fmt: skip


def outcome_of(folder, path, **options) -> str:
    """In words."""
    try:
        dataset = scan_simply(path, **options)
    except DataError as error:
        return f"{error.problem} Mend: {error.fix}".replace(str(folder), "DATA")
    sizes = ", ".join(f"{len(dataset.split(split))} {split}" for split in SPLITS)
    told = "; ".join([f"{', '.join(dataset.class_names)}: {sizes}", *dataset.warnings])
    return told.replace(str(folder), "DATA")


def matches(outcome: str, expected: str) -> bool:
    return fnmatch.fnmatchcase(outcome, re.sub(r"([\[?])", r"[\1]", expected))


@pytest.mark.parametrize("name", FOLDERS)
def test_folders(name: str, tmp_path) -> None:
    counts, expected = FOLDERS[name]
    outcome = outcome_of(tmp_path, make_images(tmp_path, counts))
    assert matches(outcome, expected), outcome


@pytest.mark.parametrize("name", TABLES)
def test_tables(name: str, tmp_path) -> None:
    text, options, expected = TABLES[name]
    make_images(tmp_path, {"photos": 12} | ({"copy": 12} if options.get("twice") else {}))
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    reading = options.get("reading", Reading())
    given = Reading(reading.images.replace("DATA", str(tmp_path)), reading.path_column, reading.label_column)
    outcome = outcome_of(tmp_path, tmp_path / "table.csv", reading=given)
    assert matches(outcome, expected), outcome


def test_there_are_fifty_of_them() -> None:
    assert len(FOLDERS) + len(TABLES) >= 50


def test_files_of_the_same_names_are_versions_unless_they_count(tmp_path) -> None:
    """Views of the same birds may be classes all the same, so this is a warning."""
    for label in ("left", "right"):
        (tmp_path / label).mkdir()
        for bird in range(6):
            Image.new("RGB", (8, 6), (bird, len(label), 0)).save(tmp_path / label / f"ISIC_{bird**3 + 700}.png")
    assert "have the same names, such as ISIC_700. If they are versions" in outcome_of(tmp_path, tmp_path)
