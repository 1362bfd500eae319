"""What is refused with which words, and what becomes of the rest: no model is needed for it."""

from __future__ import annotations

import csv
import gc
from pathlib import Path

import numpy as np
import pytest
from image_folders import make_images
from PIL import Image

import multitl
from multitl.data.scanning import list_images
from multitl.data.tables import AS_USUAL, Reading, list_table
from multitl.errors import DataError
from multitl.given.rows import label_set_text
from multitl.given.shelves import are_paths, keep, lent, listed

NOISE = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
LABELS = ["cat", "cat", "dog", "dog"]


def rows_of(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(table.read_text().splitlines()))


def test_arrays_become_the_files_that_pillow_saves(tmp_path):
    table = keep((NOISE, LABELS), AS_USUAL)
    rows = rows_of(table)
    assert [Path(row["path"]).name for row in rows] == ["row-0.png", "row-1.png", "row-2.png", "row-3.png"]
    assert [row["label"] for row in rows] == LABELS
    Image.fromarray(NOISE[2]).save(tmp_path / "saved.png")
    assert Path(rows[2]["path"]).read_bytes() == (tmp_path / "saved.png").read_bytes()


def test_the_same_data_are_the_same_table_and_what_was_lost_is_mended():
    table = keep((NOISE, LABELS), AS_USUAL)
    lost = Path(rows_of(table)[1]["path"])
    before = lost.read_bytes()
    lost.unlink()
    assert keep((NOISE.copy(), np.array(LABELS)), AS_USUAL) == table and lost.read_bytes() == before
    assert keep((NOISE, LABELS[::-1]), AS_USUAL) != table


@pytest.mark.parametrize("grey", [NOISE[..., 0], NOISE[..., :1]])
def test_grey_stays_grey(grey):
    path = rows_of(keep((grey, LABELS), AS_USUAL))[3]["path"]
    with Image.open(path) as image:
        assert image.mode == "L" and np.array_equal(np.asarray(image), NOISE[3, ..., 0])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "F", "I;16"])
def test_every_mode_of_pillow_comes_back_as_it_was(mode):
    image = Image.new(mode, (5, 4))
    path = rows_of(keep([(image, "a"), (Image.new(mode, (4, 5)), "b")], AS_USUAL))[0]["path"]
    with Image.open(path) as found:
        assert found.size == (5, 4) and np.array_equal(
            np.asarray(found.convert("RGB")), np.asarray(image.convert("RGB"))
        )


def test_numbers_are_labels_and_splits_have_their_usual_names():
    rows = rows_of(keep((NOISE, np.array([3.0, 3.0, 10.0, 10.0]), ["train", "val", "train", "test"]), AS_USUAL))
    assert [row["label"] for row in rows] == ["3", "3", "10", "10"]
    assert [row["split"] for row in rows] == ["train", "val", "train", "test"]


def test_a_dict_of_parts():
    rows = rows_of(keep({"training": (NOISE[:2], LABELS[:2]), "test": [(NOISE[2], "dog")]}, AS_USUAL))
    assert [row["split"] for row in rows] == ["train", "train", "test"]


@pytest.mark.parametrize("kind", [str, Path])
def test_parts_may_be_folders_and_tables(kind, tmp_path):
    for part in ("one", "two"):
        make_images(tmp_path / part, {"cat": 2, "dog": 1})
    (tmp_path / "some.csv").write_text(f"path,label\n{tmp_path}/two/dog/0.png,dog\n")
    given = {"train": kind(tmp_path / "one"), "val": kind(tmp_path / "some.csv"), "test": [(NOISE[0], "cat")]}
    rows = rows_of(keep(given, AS_USUAL))
    assert [(row["split"], row["label"]) for row in rows] == [
        ("train", "cat"), ("train", "cat"), ("train", "dog"), ("validation", "dog"), ("test", "cat"),
    ]  # fmt: skip
    assert rows[0]["path"] == str(tmp_path / "one" / "cat" / "0.png")


def test_parts_may_have_several_labels_or_numbers(tmp_path):
    image = make_images(tmp_path, {"x": 1}) / "x" / "0.png"
    (tmp_path / "labels.csv").write_text(f"path,labels\n{image},cat|dog\n")
    (tmp_path / "ages.csv").write_text(f"path,age\n{image},1.5\n")
    several = Reading(labels="several", label_column="labels")
    assert rows_of(keep({"train": tmp_path / "labels.csv"}, several))[0]["labels"] == "cat|dog"
    number = Reading(labels="number", label_column="age")
    assert float(rows_of(keep({"train": tmp_path / "ages.csv"}, number))[0]["age"]) == 1.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_of_many_channels_are_files_of_numpy(dtype):
    images = np.random.default_rng(0).integers(0, 200, (2, 9, 8, 5)).astype(dtype)
    for given in ((images, ["a", "b"]), [(images[0], "a"), (images[1], "b")]):
        rows = rows_of(keep(given, AS_USUAL))
        for row, image in zip(rows, images, strict=True):
            assert row["path"].endswith(".npy") and np.array_equal(np.load(row["path"]), image)


def test_a_frame_keeps_its_other_columns_and_the_names_of_its_files():
    data = [image.tobytes() for image in NOISE[:2]]
    cells = [{"bytes": one, "path": f"far/robin {n}.jpg"} for n, one in enumerate(data)]
    table = pytest.importorskip("pyarrow").table({"image": cells, "path": ["x", "y"], "species": [1, 2], "age": [7, 8]})
    rows = rows_of(keep(table, Reading(label_column="species")))
    assert rows[1].keys() == {"path", "species", "age"} and rows[1]["species"] == "2"
    assert Path(rows[1]["path"]).name == "row-1-robin 1" and Path(rows[1]["path"]).read_bytes() == data[1]


def test_a_column_of_another_name_is_another_table():
    cells = [image.tobytes() for image in NOISE]
    frame = pytest.importorskip("pandas").DataFrame({"photo": cells, "label": LABELS})
    tables = [keep(frame.rename(columns={"photo": "image"}), AS_USUAL), keep(frame, Reading(path_column="photo"))]
    assert [next(iter(rows_of(table)[0])) for table in tables] == ["path", "photo"]


def test_a_name_of_many_bytes_is_cut():
    frame = pytest.importorskip("pandas").DataFrame(
        {"image": [{"bytes": NOISE[0].tobytes(), "path": "\N{CAT FACE}" * 70 + ".png"}], "label": ["a"]}
    )
    (row,) = rows_of(keep(frame, AS_USUAL))
    assert Path(row["path"]).is_file() and Path(row["path"]).name == "row-0-" + "\N{CAT FACE}" * 20


def test_images_are_lent_and_taken_back():
    with lent([NOISE[0], Image.fromarray(NOISE[1])], AS_USUAL, needs_labels=False) as shelf:
        assert shelf.shown == ("row-0", "row-1") and all(Path(path).is_file() for path in shelf.paths)
    assert not Path(shelf.paths[0]).exists()


@pytest.mark.parametrize("paths", ["a.png", Path("a"), ["a.png", Path("b")], ("a.png",), iter(["a.png"]), {"a.png"}])
def test_paths_to_classify_stay_paths(paths):
    assert are_paths(listed(paths))


def test_one_picture_and_pictures_that_come_one_by_one():
    picture = Image.fromarray(NOISE[0])
    for images, count in ((picture, 1), (iter([picture, NOISE[1]]), 2)):
        with lent(listed(images), AS_USUAL, needs_labels=False) as shelf:
            assert len(shelf.paths) == count


@pytest.mark.parametrize("images", [NOISE, [NOISE[0]], (NOISE, LABELS), {"train": NOISE}, 7, [b"bytes"]])
def test_what_is_no_path(images):
    assert not are_paths(listed(images))


WRONG = {
    "floats of 1": ((NOISE / np.float32(255), LABELS), "float32 from 0 to 1", r"\* 255"),
    "floats of 255": ((NOISE.astype(float), LABELS), "float64 from 0 to 255", r"round\(\).astype\('uint8'\)"),
    "normalised": ((NOISE / 64.0 - 2, LABELS), "float64 from -2 to", "before they were normalised"),
    "channels first": ((NOISE.transpose(0, 3, 1, 2), LABELS), r"\(4, 3, 6, 5\)", r"transpose\(0, 2, 3, 1\)"),
    "a part of another split": ({"train": [(NOISE[0], "a", "test")]}, "'test'", "without the dict"),
    "one image": ((NOISE[0], LABELS), r"uint8 \(6, 5, 3\)", r"images\[None\]"),
    "one image alone": (NOISE[0], r"uint8 \(6, 5, 3\)", r"images\[None\]"),
    "labels that are none": ((NOISE, None), "NoneType", "a label for each image"),
    "a mode that no file has": ([(Image.new("HSV", (5, 4)), "a")], "mode HSV", r"convert\('RGB'\)"),
    "flat": ((NOISE.reshape(4, -1), LABELS), r"uint8 \(4, 90\)", "reshape"),
    "fewer labels": ((NOISE, LABELS[:3]), "4 images, 3 labels", "cut or filtered"),
    "fewer splits": ((NOISE, LABELS, ["train"]), "4 images, 4 labels, 1 splits", "cut or filtered"),
    "one-hot": ((NOISE, np.eye(4)), r"float64 of shape \(4,\)", "argmax"),
    "no labels": (NOISE, "4 images", "give the labels"),
    "a missing label": ([(NOISE[0], "a"), (NOISE[1], None), (NOISE[2], float("nan"))], "row 1, 2", "label them"),
    "a misspelt split": ((NOISE, LABELS, ["train", "tset", "train", ""]), "'tset' for row 1, '' for row 3", "rename"),
    "splits for some": ([(NOISE[0], "a", "train"), (NOISE[1], "b")], "none for some", "leave the splits out"),
    "a tuple of four": ((1, 2, 3, 4), "4 things", "a list"),
    "rows of four": ([(NOISE[0], "a", "train", 1)], "4 things", "one of these"),
    "a float image": ([(NOISE[0] / 255.0, "a")], "float64 from 0 to", r"\* 255"),
    "no image": ([(object(), "a")], "builtins.object", "one of these"),
    "nothing": ([], "none", "look into"),
    "a number": (7, "builtins.int", "CLASS/images"),
    "labels that are a text": ((NOISE, "abab"), "str", "a label for each image"),
    "labels without order": ((NOISE, {"a", "b", "c", "d"}), "set", "a label for each image"),
    "a label of no shape": ((NOISE, np.array("a")), "ndarray", "a label for each image"),
    "a ragged label": ((NOISE, ["a", "b", "c", ["d", ["e"]]]), "for one image", "argmax"),
    "a name that is no text": ([("/caf\udce9.png", "a")], "udce9", "rename it"),
    "a generator": ((one for one in LABELS), "builtins.generator", "CLASS/images"),
    "columns": ({"image": [1], "label": [2]}, "image, label", "DataFrame"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(name):
    given, received, fix = WRONG[name]
    with pytest.raises(DataError, match=f"(?s)received: .*{received}.*to mend: .*{fix}"):
        keep(given, AS_USUAL)


FRAMES = {
    "no images": ({"a": ["x"], "label": ["b"]}, AS_USUAL, "a, label", "path_column='NAME'"),
    "misspelt": ({"path": ["x"], "species": ["b"]}, Reading(label_column="speces"), "nearest: species", "label_column"),
    "an empty cell": ({"path": ["x.png", None], "label": ["b", "c"]}, AS_USUAL, "None|nan", "drop the rows"),
    "no rows": ({"path": [], "label": []}, AS_USUAL, "0 rows", "lost"),
    "no label": ({"path": ["x.png", "y.png"], "label": ["b", None]}, AS_USUAL, "row 1", "label them"),
}


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("name", FRAMES)
def test_frames_that_are_refused(name, library):
    columns, reading, received, fix = FRAMES[name]
    with pytest.raises(DataError, match=f"(?s)received: .*({received}).*to mend: .*{fix}"):
        keep(pytest.importorskip(library).DataFrame(columns), reading)


def test_bytes_that_are_no_image_are_kept_as_they_are():
    paths = [row["path"] for row in rows_of(keep([(b"", "a"), (b"1", "b"), (b"no image at all", "c")], AS_USUAL))]
    assert [Path(path).name for path in paths] == ["row-0", "row-1", "row-2"] and not Path(paths[0]).read_bytes()


def test_a_path_that_is_not_there_is_told_before_a_framework_loads(tmp_path):
    with pytest.raises(DataError, match=r"names 1 files that do not exist, of 2"):
        multitl.finetune([(__file__, "a"), (str(tmp_path / "gone.png"), "b")], output=tmp_path / "run")


def test_data_sets_of_pytorch_that_are_refused():
    torch = pytest.importorskip("torch")

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    class Random(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return np.random.default_rng().integers(0, 256, (6, 5, 3), np.uint8), 0

    class NoLength(torch.utils.data.Dataset):
        def __getitem__(self, index):
            return NOISE[index], 0

    scaled = torch.utils.data.TensorDataset(torch.rand(4, 3, 6, 5), torch.zeros(4))
    for given, words in [
        (Endless(), "map-style"),
        (torch.utils.data.DataLoader(Random()), r"loader\.dataset"),
        (Random(), "random transforms"),
        (NoLength(), "has no length"),
        (scaled, "leave ToTensor out"),
    ]:
        with pytest.raises(DataError, match=words):
            keep(given, AS_USUAL)


def test_channels_first_are_pytorchs_own():
    torch = pytest.importorskip("torch")
    table = keep(torch.utils.data.TensorDataset(torch.from_numpy(NOISE).permute(0, 3, 1, 2), torch.arange(4)), AS_USUAL)
    assert table == keep([(image, label) for label, image in enumerate(NOISE)], AS_USUAL).with_name(table.name)


def test_shuffled_tf_data_is_one_table_and_an_endless_one_is_refused():
    data = pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices((NOISE, LABELS))
    first, again = (keep(data.shuffle(4, seed=seed), AS_USUAL) for seed in (1, 2))
    assert first == again == keep(data.batch(3), AS_USUAL) and [row["label"] for row in rows_of(first)] == LABELS
    with pytest.raises(DataError, match=r"repeat\(\)"):
        keep(data.repeat(), AS_USUAL)
    with pytest.raises(DataError, match="float32 from 0 to"):
        keep(data.map(lambda image, label: (image / 255, label)), AS_USUAL)
    gc.collect()


def test_class_names_of_keras():
    data = pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices((NOISE, [0, 0, 1, 1])).batch(2)
    data.class_names = ["cat", "dog"]
    assert [row["label"] for row in rows_of(keep(data, AS_USUAL))] == LABELS


def test_several_labels_of_an_image_become_a_cell() -> None:
    assert label_set_text("cat|dog ") == "cat|dog"
    assert label_set_text(["dog", "cat"], separator="+") == "dog+cat" and label_set_text([]) == ""
    assert label_set_text(np.array([1, 0, 1]), ["cat", "dog", "owl"]) == "cat|owl"
    assert label_set_text([False, True]) == "1"
    for wrong in ([0, 2], np.ones((2, 2))):
        with pytest.raises(DataError, match=r"neither names nor a row of 0 and 1"):
            label_set_text(wrong)
    with pytest.raises(DataError, match="not as long as there are labels"):
        label_set_text([1, 0], ["cat", "dog", "owl"])
    with pytest.raises(DataError, match="holds what stands between labels"):
        label_set_text(["a|b", "c"])


SEVERAL = Reading(labels="several")
NAMED = Reading(labels="several", label_column="dog, cat")


def label_sets_of(given: object, reading: Reading) -> list[object]:
    return [record.label for record in list_table(keep(given, reading), reading).records]


def test_names_of_labels_may_hold_a_comma():
    sets = [["tench, fish"], ["dog"], [], ["dog", "tench, fish"]]
    told = [("tench, fish",), ("dog",), (), ("dog", "tench, fish")]
    assert label_sets_of((NOISE, sets), SEVERAL) == told
    frame = pytest.importorskip("pyarrow").table({"image": [one.tobytes() for one in NOISE], "labels": sets})
    assert label_sets_of(frame, SEVERAL) == told


def test_columns_of_labels_are_named_for_frames_arrays_and_names():
    told = [("cat",), ("dog",), (), ("cat", "dog")]
    columns = {"image": [one.tobytes() for one in NOISE], "cat": [1, 0, 0, 1], "dog": [0, 1, 0, 1], "age": [1, 0, 0, 0]}
    assert label_sets_of(pytest.importorskip("pyarrow").table(columns), NAMED) == told
    assert label_sets_of((NOISE, np.array([[0, 1], [1, 0], [0, 0], [1, 1]])), NAMED) == told
    assert label_sets_of((NOISE, [["cat"], "dog", [], "cat|dog"]), NAMED) == told
    with pytest.raises(DataError, match="'owl' is none of those"):
        keep((NOISE, [["owl"]] * 4), NAMED)


def test_a_data_set_whose_file_is_gone_is_not_a_full_disk():
    torch = pytest.importorskip("torch")

    class Gone(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index == 3:
                raise FileNotFoundError(2, "No such file or directory", "photo.jpg")
            return NOISE[index], 0

    with pytest.raises(DataError, match=r"photo\.jpg"):
        keep(Gone(), AS_USUAL)


@pytest.mark.parametrize("cell", [["cat", "dog"], ("dog", "cat"), {"cat", "dog"}, np.array(["cat", "dog"])])
def test_several_labels_in_a_cell_of_a_frame(cell):
    """pandas reads arrays from a column of lists in Parquet."""
    pandas = pytest.importorskip("pandas")
    cells = pandas.Series([cell, "dog", None, type(cell)(["dog"]) if not isinstance(cell, np.ndarray) else cell[:1]])
    frame = pandas.DataFrame({"image": list(NOISE), "labels": cells, "thumbnail": [b"\x89PNG"] * 4})
    table = keep(frame, Reading(labels="several"))
    assert list_table(table, Reading(labels="several")).class_names == ("cat", "dog")
    assert "thumbnail" not in rows_of(table)[0]


@pytest.mark.parametrize("label", [1, None])
def test_one_label_is_not_several(label):
    with pytest.raises(DataError, match="one label where several"):
        keep((NOISE, ["cat", ("dog",), label, ("cat", "dog")]), Reading(labels="several"))


def test_every_path_is_answered_as_often_as_it_is_given(tmp_path):
    folder = make_images(tmp_path, {"pictures": 2})
    paths = [str(folder / "pictures" / f"{number}.png") for number in (1, 0, 1)]
    assert list_images(paths, once=False) == paths and list_images(paths) == paths[:2]


def test_lists_of_labels_of_hugging_face():
    datasets = pytest.importorskip("datasets")
    names = datasets.Sequence(datasets.ClassLabel(names=["dog", "cat"]))
    boxes = datasets.Sequence(datasets.Value("float32"))
    features = datasets.Features({"image": datasets.Image(), "labels": names, "boxes": boxes})
    columns = {"image": list(map(Image.fromarray, NOISE[:3])), "labels": [[0], [0, 1], []], "boxes": [[1.0], [], []]}
    found = rows_of(keep(datasets.Dataset.from_dict(columns, features=features), Reading(labels="several")))
    assert [set(row) - {"path", "split"} for row in found] == [{"labels"}] * 3
    assert sorted(row["labels"] for row in found) == ["", "dog", "dog|cat"]
