"""Whatever data come in, the model is the one of the folder of the same images, to the bit."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import elsewhere_slow
from PIL import Image
from quick_runs import BACKBONE, make_photos

import multitl

OPTIONS = {"backbone": BACKBONE, "weights": "none", "image_size": 32, "unfreeze": "none"}


def files_of(folder: Path) -> list[tuple[str, str]]:
    """(path, label) in the order of a folder."""
    return [(str(path), path.parent.name) for path in sorted(folder.rglob("*.png"))]


def pixels_of(folder: Path) -> tuple[np.ndarray, list[str]]:
    pairs = files_of(folder)
    return np.stack([np.asarray(Image.open(path)) for path, _ in pairs]), [label for _, label in pairs]


def columns_of(folder: Path) -> dict[str, list]:
    pairs = files_of(folder)
    return {"image": [Path(path).read_bytes() for path, _ in pairs], "label": [label for _, label in pairs]}


def list_of_paths(folder: Path, scratch: Path):
    return files_of(folder)


def list_of_images(folder: Path, scratch: Path):
    return [(Image.open(path), label) for path, label in files_of(folder)]


def arrays(folder: Path, scratch: Path):
    images, labels = pixels_of(folder)
    return images, np.array(labels)


def images_and_labels(folder: Path, scratch: Path):
    images, labels = pixels_of(folder)
    return [Image.fromarray(image) for image in images], labels


def torch_tensors(folder: Path, scratch: Path):
    torch = pytest.importorskip("torch")
    images, labels = pixels_of(folder)
    return torch.from_numpy(images).permute(0, 3, 1, 2), labels


def jax_arrays(folder: Path, scratch: Path):
    jax = pytest.importorskip("jax")
    images, labels = pixels_of(folder)
    return jax.numpy.asarray(images), labels


def pandas_bytes(folder: Path, scratch: Path):
    return pytest.importorskip("pandas").DataFrame(columns_of(folder))


def pandas_paths(folder: Path, scratch: Path):
    pairs = files_of(folder)
    frame = pytest.importorskip("pandas").DataFrame(pairs, columns=["file", "kind"])
    return frame.rename(columns={"kind": "class"})


def polars_bytes(folder: Path, scratch: Path):
    return pytest.importorskip("polars").DataFrame(columns_of(folder))


def arrow_structs(folder: Path, scratch: Path):
    arrow, columns = pytest.importorskip("pyarrow"), columns_of(folder)
    images = [{"bytes": data, "path": f"{row}.png"} for row, data in enumerate(columns["image"])]
    return arrow.table({"image": images, "label": columns["label"]})


def parquet_bytes(folder: Path, scratch: Path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns_of(folder)), scratch / "photos.parquet", row_group_size=5)
    return scratch / "photos.parquet"


def parquet_of_hugging_face(folder: Path, scratch: Path):
    """In two files, with numbers for labels whose names are in its metadata."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table, classes = arrow_structs(folder, scratch), ["dog", "cat"]
    features = {"label": {"names": classes, "_type": "ClassLabel"}}
    numbers = arrow.array([classes.index(name) for name in table["label"].to_pylist()])
    table = table.set_column(1, "label", numbers).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    (scratch / "shards").mkdir()
    for shard, part in enumerate([table.slice(0, 13), table.slice(13)]):
        parquet.write_table(part, scratch / "shards" / f"photos-{shard:05}-of-00002.parquet", row_group_size=4)
    return scratch / "shards"


def webdataset_shards(folder: Path, scratch: Path):
    (scratch / "shards").mkdir()
    pairs = files_of(folder)
    for shard, part in enumerate([pairs[:10], pairs[10:]]):
        with tarfile.open(scratch / "shards" / f"photos-{shard:06}.tar", "w") as archive:
            for row, (path, label) in enumerate(part):
                add(archive, f"{row:04}.cls", label.encode())
                add(archive, f"{row:04}.png", Path(path).read_bytes())
    return scratch / "shards"


def tar_of_the_folder(folder: Path, scratch: Path):
    with tarfile.open(scratch / "photos.tar", "w") as archive:
        archive.add(folder, arcname="photos")
    return scratch / "photos.tar"


def hugging_face(folder: Path, scratch: Path):
    datasets = pytest.importorskip("datasets")
    columns = columns_of(folder)
    columns["image"] = [{"bytes": data, "path": None} for data in columns["image"]]
    columns["label"] = [["dog", "cat"].index(label) for label in columns["label"]]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])})
    return datasets.Dataset.from_dict(columns, features=features)


def torch_dataset(folder: Path, scratch: Path):
    data = pytest.importorskip("torch.utils.data")

    class Photos(data.Dataset):
        classes = ("dog", "cat")

        def __init__(self) -> None:
            self.images, labels = pixels_of(folder)
            self.labels = [self.classes.index(label) for label in labels]

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: int):
            return Image.fromarray(self.images[index]), self.labels[index]

    return data.Subset(Photos(), range(len(files_of(folder))))


def torch_dataset_of_dicts(folder: Path, scratch: Path):
    data = pytest.importorskip("torch.utils.data")
    images, labels = torch_tensors(folder, scratch)

    class Photos(data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int):
            return {"image": images[index], "label": labels[index]}

    return Photos()


def shuffled_tf_data(folder: Path, scratch: Path):
    tensorflow = pytest.importorskip("tensorflow")
    return tensorflow.data.Dataset.from_tensor_slices(pixels_of(folder)).shuffle(24).batch(5)


def tf_data_of_files(folder: Path, scratch: Path):
    tensorflow, columns = pytest.importorskip("tensorflow"), columns_of(folder)
    return tensorflow.data.Dataset.from_tensor_slices((columns["image"], columns["label"]))


def py_dataset(folder: Path, scratch: Path):
    class Photos(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self.images, self.labels = pixels_of(folder)

        def __len__(self) -> int:
            return -(-len(self.images) // 7)

        def __getitem__(self, index: int):
            rows = slice(7 * index, 7 * index + 7)
            return self.images[rows], np.array(self.labels[rows])

    return Photos()


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(data)
    archive.addfile(about, io.BytesIO(data))


SOURCES = [
    list_of_paths, list_of_images, arrays, images_and_labels, torch_tensors, jax_arrays, pandas_bytes, pandas_paths,
    polars_bytes, arrow_structs, parquet_bytes, parquet_of_hugging_face, webdataset_shards, tar_of_the_folder,
    hugging_face, torch_dataset, torch_dataset_of_dicts, shuffled_tf_data, tf_data_of_files, py_dataset,
]  # fmt: skip

ONE_OF_A_KIND = [list_of_paths, arrays, pandas_bytes, webdataset_shards, torch_dataset_of_dicts]


def train(data, output: Path) -> multitl.Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "meta_path", sys.meta_path[:])
        return multitl.finetune(data, output=output, **OPTIONS)


def answers(run: Path) -> list[list[str]]:
    """predictions.csv without the names of files."""
    rows = list(csv.reader((run / "predictions.csv").read_text().splitlines()))
    return [[cell for column, cell in enumerate(row) if column != rows[0].index("path")] for row in rows]


def weights(run: Path) -> list[np.ndarray]:
    return keras.models.load_model(run / "model.keras", compile=False).get_weights()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes of 12; by name they are in the order of their contents, as data without an order are put."""
    folder = make_photos(tmp_path_factory.mktemp("data") / "photos", ["cat", "dog"], 12)
    for path in folder.rglob("*.png"):
        path.rename(path.with_name(f"{hashlib.sha256(path.read_bytes()).hexdigest()}.png"))
    return folder


@pytest.fixture(scope="module")
def of_folder(photos, tmp_path_factory):
    run = tmp_path_factory.mktemp("of_folder") / "run"
    train(photos, run)
    return run, weights(run), answers(run), multitl.evaluate(run, photos), multitl.predict(run, photos)


@elsewhere_slow
@pytest.mark.parametrize(
    "source",
    [pytest.param(one, id=one.__name__, marks=() if one in ONE_OF_A_KIND else pytest.mark.slow) for one in SOURCES],
)
def test_the_same_model_to_the_bit(source, photos, of_folder, tmp_path):
    run, expected, told, judged, predicted = of_folder
    data = source(photos, tmp_path)
    train(data, tmp_path / "run")
    assert answers(tmp_path / "run") == told
    found = weights(tmp_path / "run")
    assert len(found) == len(expected)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert multitl.evaluate(run, data) == judged
    rows = multitl.predict(run, data)
    assert sorted(row["confidence"] for row in rows) == sorted(row["confidence"] for row in predicted)
