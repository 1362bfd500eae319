"""Runs of data in memory: what people read of them, that they are resumed, and that the how-to does what it says."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from quick_runs import BACKBONE, QUICK, make_photos, message_of

import multitl
from multitl.cli.main import main
from multitl.data.remote import local
from multitl.errors import DataError, RunError
from multitl.runs.cards import read_card

NOISE = np.random.default_rng(0).integers(0, 256, (24, 12, 10, 3), np.uint8)
LABELS = ["cat", "dog"] * 12
OPTIONS = {"backbone": BACKBONE, "weights": "none", "image_size": 32, "unfreeze": "none"}
HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "data-in-memory.md"


@pytest.fixture(scope="module")
def of_arrays(tmp_path_factory) -> Path:
    return multitl.finetune((NOISE, LABELS), output=tmp_path_factory.mktemp("runs") / "run", **OPTIONS).output


def test_a_run_tells_where_its_images_are_and_calls_them_by_row(of_arrays):
    card = read_card(of_arrays)
    assert re.fullmatch(r"arrays-[0-9a-f]{12}\.csv", Path(card.data.path).name) and Path(card.data.path).is_file()
    named = re.findall(r"arrays-[0-9a-f]{12}/row-\d\d\.png", (of_arrays / "report.html").read_text())
    assert named and "data:image/jpeg" in (of_arrays / "report.html").read_text()
    assert re.search(r"/row-\d\d\.png,", (of_arrays / "predictions.csv").read_text())


def test_the_same_data_go_on_and_others_do_not(of_arrays):
    (of_arrays / "report.html").unlink()
    multitl.finetune([*zip(NOISE, LABELS, strict=True)], output=of_arrays, resume=True, **OPTIONS)
    assert (of_arrays / "report.html").is_file()
    with pytest.raises(RunError, match="data"):
        multitl.finetune((NOISE, LABELS[::-1]), output=of_arrays, resume=True, **OPTIONS)


def test_what_is_classified_is_called_by_row_or_by_path(of_arrays, photos):
    rows = multitl.predict(of_arrays, NOISE[:3])
    assert [row["path"] for row in rows] == ["row-0", "row-1", "row-2"]
    path = str(photos / "cat" / "00.png")
    mixed = multitl.predict(of_arrays, [NOISE[2], (path, "cat"), b"no image"])
    assert [row["path"] for row in mixed] == ["row-0", path, "row-2"]
    assert mixed[0]["probabilities"] == rows[2]["probabilities"] and "not an image" in mixed[2]["error"]
    with pytest.raises(DataError, match="have no label"):
        multitl.evaluate(of_arrays, [(NOISE[0], "cat"), (NOISE[1], "")])
    with pytest.raises(DataError, match="bird"):
        multitl.evaluate(of_arrays, (NOISE[:2], ["cat", "bird"]))


def test_a_misspelt_backbone_is_told_before_the_images_are_gone_through():
    def endless():
        raise AssertionError("gone through")
        yield

    class Rows(list):
        def __iter__(self):
            return endless()

    with pytest.raises(multitl.BackboneError):
        multitl.finetune(Rows([1]), backbone="keras/MobileNot")


def test_parquet_and_shards_from_the_command_line(tmp_path, capsys):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    files = sorted(make_photos(tmp_path / "photos", ["cat", "dog"], 12).rglob("*.png"))
    columns = {"image": [path.read_bytes() for path in files], "label": [path.parent.name for path in files]}
    parquet.write_table(arrow.table(columns), tmp_path / "photos.parquet")
    run = str(tmp_path / "run")
    assert main(["finetune", str(tmp_path / "photos.parquet"), "--out", run, *QUICK]) == 0
    assert f"photos.parquet{'/'}image/row-" in (tmp_path / "run" / "predictions.csv").read_text()
    capsys.readouterr()
    assert main(["evaluate", run, str(tmp_path / "photos.parquet"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 24
    assert main(["predict", run, str(tmp_path / "photos.parquet"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 24 and rows[3]["path"] == f"{tmp_path}/photos.parquet/image/row-03"
    assert main(["predict", run, rows[3]["path"], "--json"]) == 0  # as it was called
    assert json.loads(capsys.readouterr().out) == [rows[3]]


def test_urls(tmp_path, of_arrays):
    store = pytest.importorskip("fsspec").filesystem("memory")
    for path in make_photos(tmp_path / "photos", ["cat", "dog"], 2).rglob("*.png"):
        store.pipe(f"/bucket/photos/{path.relative_to(tmp_path / 'photos')}", path.read_bytes())
    fetched = local("memory://bucket/photos")
    assert fetched.name == "photos" and local("memory://bucket/photos") == fetched
    assert (fetched / "cat" / "00.png").read_bytes() == (tmp_path / "photos" / "cat" / "00.png").read_bytes()
    assert multitl.evaluate(of_arrays, "memory://bucket/photos")["count"] == 4
    assert len(multitl.predict(of_arrays, "memory://bucket/photos/dog")) == 2
    store.pipe("/bucket/photos/cat/new.png", b"another")
    assert (local("memory://bucket/photos") / "cat" / "new.png").read_bytes() == b"another"


def test_urls_of_urls_and_of_stores_with_options(tmp_path, monkeypatch):
    """Chained protocols; and what fsspec's own settings say of a store, as of one that wants an endpoint or a key."""
    fsspec, memory = pytest.importorskip("fsspec"), pytest.importorskip("fsspec.implementations.memory")

    class WithEndpoint(memory.MemoryFileSystem):
        protocol, cachable, endpoint = "endpointed", False, ""

        def __init__(self, endpoint="", **options):
            super().__init__(**options)
            self.endpoint = endpoint

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.replace("endpointed://", "memory://"))

        def get_file(self, *names, **options):
            assert self.endpoint == "https://minio.example:9000"
            return super().get_file(*names, **options)

    fsspec.register_implementation("endpointed", WithEndpoint, clobber=True)
    monkeypatch.setitem(fsspec.config.conf, "endpointed", {"endpoint": "https://minio.example:9000"})
    fsspec.filesystem("memory").pipe("/store/birds/a/1.png", b"one")
    assert (local("endpointed://store/birds") / "a" / "1.png").read_bytes() == b"one"
    monkeypatch.setattr(
        WithEndpoint, "find", lambda *_, **__: {"/store/birds/": {"size": 0}, "/store/birds/a/1.png": {}}
    )
    assert (local("endpointed://store/birds") / "a" / "1.png").read_bytes() == b"one"  # S3's folders
    with zipfile.ZipFile(tmp_path / "birds.zip", "w") as archive:
        archive.writestr("birds/a/1.png", b"two")
    assert (local(f"zip://birds::file://{tmp_path}/birds.zip") / "a" / "1.png").read_bytes() == b"two"
    assert local("simplecache::memory://store/birds/a/1.png").read_bytes() == b"one"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://nowhere", "nothing lies there|FileNotFound"),
        ("nostore://bucket", "nostore"),
        ("s3://b/x", "s3fs|b/x"),
    ],
)
def test_urls_that_lead_nowhere(url, words, tmp_path, capsys):
    pytest.importorskip("fsspec")
    code = main(["finetune", url, "--out", str(tmp_path / "run")])
    assert re.search(words, message_of(code, *capsys.readouterr()))


def test_paths_are_no_urls(tmp_path):
    for path in ("photos", "C://photos", "/a://b", tmp_path):
        assert local(path) is path


def test_the_how_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(HOW_TO.read_text().splitlines()) <= 25
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", HOW_TO.read_text(), re.DOTALL):
        exec(block.replace("output=", f'backbone="{BACKBONE}", image_size=32, output='), names)
    assert len(read_card("runs/parts").data.counts["validation"]) == 2
    assert names["result"].metrics["test"]["accuracy"] > 0.7
