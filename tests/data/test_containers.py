"""Images in tar archives and Parquet tables: addresses, labels, splits, and what cannot be read."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
from pathlib import Path

import pytest
from image_folders import make_images, scan_simply

from multitl.data import parquet_images, tars
from multitl.data.containers import holds, split_address
from multitl.data.images import UnreadableImage, read_file
from multitl.data.scanning import list_images
from multitl.data.tables import Reading
from multitl.errors import DataError


def pack(path, files: dict[str, bytes]):
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return path


@pytest.fixture
def pictures(tmp_path) -> list[bytes]:
    folder = make_images(tmp_path / "loose", {"x": 24})
    return [path.read_bytes() for path in sorted(folder.rglob("*.png"))]


def test_webdataset_shards_with_splits_in_their_names(tmp_path, pictures):
    (tmp_path / "shards").mkdir()
    for start, name in [(0, "birds-train-000000"), (8, "birds-train-000001"), (16, "birds-val-000000")]:
        files = {}
        for row in range(start, start + 8):
            files[f"{row:03}.seg.png" if row == 3 else f"{row:03}.png"] = pictures[row]
            label = "ab"[row % 2]
            files[f"{row:03}.json" if row % 3 else f"{row:03}.cls"] = (
                json.dumps({"label": label}) if row % 3 else f"{label}\n"
            ).encode()
        files["._000.png"] = b"of macOS"
        pack(tmp_path / "shards" / f"{name}.tar", files)
    dataset = scan_simply(tmp_path / "shards")
    assert dataset.class_names == ("a", "b") and not dataset.unreadable
    assert {split: len(dataset.split(split)) for split in ("train", "validation", "test")} == {
        "train": 16, "validation": 8, "test": 0,
    }  # fmt: skip
    one = dataset.split("validation")[0]
    assert one.path == f"{tmp_path}/shards/birds-val-000000.tar/016.png" and one.label == 0
    assert read_file(one.path) == pictures[16]


def test_a_packed_folder(tmp_path, pictures):
    files = {f"./birds/{part}/{name}/{n}.png": pictures[8 * k + n] for k, (part, name) in enumerate(
        [("train", "wren"), ("train", "robin"), ("test", "wren")]) for n in range(8)}  # fmt: skip
    dataset = scan_simply(pack(tmp_path / "birds.tar", files))
    assert dataset.class_names == ("robin", "wren")
    assert {example.label for example in dataset.split("test")} == {1}
    assert list_images(tmp_path / "birds.tar") == [f"{tmp_path}/birds.tar/{name[2:]}" for name in files]


def test_a_table_may_name_images_in_an_archive(tmp_path, pictures):
    pack(tmp_path / "all.tar", {f"{n}.png": data for n, data in enumerate(pictures)})
    lines = [f"all.tar/{n}.png,{'ab'[n % 2]}" for n in range(24)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    assert len(scan_simply(tmp_path / "labels.csv").examples) == 24
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines, "all.tar/24.png,a"]))
    with pytest.raises(DataError, match="names 1 files that do not exist, of 25"):
        scan_simply(tmp_path / "labels.csv")


def test_archives_that_are_refused(tmp_path, pictures):
    plain = pack(tmp_path / "plain.tar", {"0.png": pictures[0]})
    with pytest.raises(DataError, match="without a label"):
        scan_simply(plain)
    with pytest.raises(DataError, match=r"1 images without a label"):
        scan_simply(pack(tmp_path / "half.tar", {"0.png": pictures[0], "0.cls": b"1", "1.png": pictures[1]}))
    (tmp_path / "small.tar").write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(DataError, match="not compressed"):
        scan_simply(tmp_path / "small.tar")
    with pytest.raises(DataError, match="not compressed"):
        list_images(tmp_path / "small.tar")


def test_an_archive_that_was_cut_off_or_written_anew(tmp_path, pictures):
    path = pack(tmp_path / "a.tar", {"a/0.png": pictures[0], "b/1.png": pictures[1]})
    where = tars.index(str(path))["b/1.png"]
    path.write_bytes(path.read_bytes()[: where.offset + 10])
    with pytest.raises(UnreadableImage, match=r"ends before|no plain tar"):
        read_file(f"{path}/b/1.png")
    pack(path, {"b/1.png": pictures[2]})
    assert read_file(f"{path}/b/1.png") == pictures[2]
    with pytest.raises(UnreadableImage, match="there is no image"):
        read_file(f"{path}/a/0.png")


@pytest.mark.parametrize(
    "form", ["./a//{}.png", "/a/{}.png", "../a/{}.png", "a\\{}.png", "x/../a/./{}.png", "a/é, {}.png"]
)
def test_odd_names_in_an_archive(form, tmp_path, pictures):
    """Whatever is made of a path on the way, an address leads to its image."""
    files = {form.replace("a", folder).format(n): pictures[n] for n in range(24) for folder in "ab"[n % 2]}
    dataset = scan_simply(pack(tmp_path / "odd.tar", files))
    assert dataset.class_names == ("a", "b") and len(dataset.examples) == 24 and not dataset.unreadable
    for path in list_images(tmp_path / "odd.tar"):
        assert read_file(os.path.abspath(path)) == read_file(Path(path)) in pictures  # noqa: PTH100


@pytest.mark.parametrize(
    ("parts", "classes"),
    [
        ([["all/a/0", "all/a/1", "all/b/2"], ["all/b/3", "all/b/4"]], ("a", "b")),  # a part of one class
        ([["all/a/0", "all/a/1"], ["all/b/2", "all/b/3"]], ("a", "b")),
        ([["all/train/a/0", "all/train/b/1"], ["all/train/b/2"]], ("a", "b")),
        ([["one/a/0", "one/b/1"], ["two/a/2"]], ("a", "b")),  # each with its own
        ([["a/0", "b/1"], ["b/deep/2"]], ("a", "b")),
        ([["a/0", "a/1"], ["b/2"]], ("a", "b")),
        ([["all/a/0", "all/a/1"]], ("a",)),
    ],
)
def test_a_folder_around_everything_is_no_class(parts, classes, tmp_path, pictures):
    paths = [
        pack(tmp_path / f"{number}.tar", {f"{name}.png": pictures[int(name[-1])] for name in names})
        for number, names in enumerate(parts)
    ]
    records = [record for found in tars.list_tars(paths).values() for record in found]
    assert tuple(sorted({record.label for record in records})) == classes
    assert {record.split for record in records} == {"train" if "train" in parts[0][0] else None}


def test_a_folder_may_be_called_like_an_archive(tmp_path, pictures):
    (tmp_path / "a.tar").mkdir()
    (tmp_path / "a.tar" / "0.png").write_bytes(pictures[0])
    assert split_address(f"{tmp_path}/a.tar/0.png") is None and read_file(tmp_path / "a.tar" / "0.png") == pictures[0]
    pack(tmp_path / "a.tar" / "b.tar", {"c.tar/0.png": pictures[1]})
    assert read_file(tmp_path / "a.tar" / "b.tar" / "c.tar" / "0.png") == pictures[1]


def table_of(path, columns: dict, **options):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path, **options)
    return path


def test_rows_of_parquet_at_random(tmp_path, pictures):
    path = table_of(tmp_path / "a.parquet", {"image": pictures, "label": ["a", "b"] * 12}, row_group_size=5)
    members = parquet_images.list_members(str(path), "image")
    assert members[7] == "image/row-07" and list_images(path)[7] == f"{path}/image/row-07"
    for row in (23, 0, 7, 4, 5, 22, 1):
        assert read_file(f"{path}/{members[row]}") == pictures[row]
    assert holds(f"{path}/image/row-23") and not holds(f"{path}/image/row-24") and not holds(f"{path}/picture/row-1")
    for gone in ("image/row-24", "image/24", "row-1", "picture/row-1"):
        with pytest.raises(UnreadableImage):
            read_file(f"{path}/{gone}")


@pytest.mark.parametrize("nested", [False, True])
def test_a_row_group_is_not_read_whole_if_it_is_large(nested, tmp_path, monkeypatch):
    """What pyarrow holds at once, of a file whose writer put all rows into one group."""
    arrow = pytest.importorskip("pyarrow")
    photos = [random.Random(row).randbytes(2**18) for row in range(64)]
    cells = [{"bytes": photo, "path": f"{row}.png"} for row, photo in enumerate(photos)] if nested else photos
    path = table_of(tmp_path / "a.parquet", {"image": cells}, compression="none", write_batch_size=2)
    members = parquet_images.list_members(str(path), "image")
    monkeypatch.setattr(parquet_images, "MOST_ROWS", 2**20)
    held = {}
    for most in (2**28, 2**20):
        monkeypatch.setattr(parquet_images, "MOST_GROUP", most)
        parquet_images._group.cache_clear()
        before, held[most] = arrow.total_allocated_bytes(), 0
        for row in (0, 1, 2, 30, 63, 62, 5):
            assert parquet_images.read_member(str(path), members[row]) == photos[row]
            held[most] = max(held[most], arrow.total_allocated_bytes() - before)
    assert held[2**28] > 2**23 and held[2**20] < 2**22


def test_parquet_with_a_null_and_a_column_that_is_asked_for(tmp_path, pictures):
    images = [{"bytes": data, "path": f"robin {n}.png"} for n, data in enumerate(pictures)]
    images[3] = {"bytes": None, "path": "gone.png"}
    columns = {"thumb": [b"x"] * 24, "photo": images, "kind": ["a", "b"] * 12, "path": ["far"] * 24}
    path = table_of(tmp_path / "a.parquet", columns)
    dataset = scan_simply(path, reading=Reading(path_column="photo", label_column="kind"))
    assert [file.path for file in dataset.unreadable] == [f"{path}/photo/row-03-gone.png"]
    assert len(dataset.examples) == 23
