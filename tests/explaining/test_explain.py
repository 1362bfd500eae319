"""`multitl explain` and `Classifier.explain`: pictures and numbers, labels where they are known, refusals."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from quick_runs import BACKBONE, message_of
from scipy.special import softmax

import multitl
from multitl.cli.main import main
from multitl.data.pixels import read_files

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "what-it-looks-at.md"


@pytest.fixture(scope="module")
def linear(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a solved head."""
    out = tmp_path_factory.mktemp("runs") / "linear"
    multitl.finetune(photos, backbone=BACKBONE, weights="none", image_size=32, unfreeze="none", output=out)
    return out


@pytest.mark.every_backend
def test_a_folder_of_photos_is_explained(linear: Path, photos: Path, tmp_path: Path, capsys):
    images, out = [str(photos / "cat" / "00.png"), str(photos / "dog")], tmp_path / "maps"
    (tmp_path / "broken.png").write_bytes(b"no image")
    command = ["explain", str(linear), *images, str(tmp_path / "broken.png"), "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "exact: each map sums to logit - bias, within" in printed and "unreadable" in printed

    rows = json.loads((out / "explanations.json").read_text())["images"]
    assert len(rows) == 14 and rows[0]["true"] == ["cat"] and "error" in rows[-1]
    predictions = multitl.predict(linear, images)
    for row, prediction in zip(rows[:-1], predictions, strict=True):
        assert (row["path"], row["predicted"]) == (prediction["path"], prediction["predicted"])
        by_class = {one["class"]: one for one in row["maps"]}
        assert set(by_class) == {row["predicted"], *row["true"]}
        for name, one in by_class.items():
            assert one["probability"] == pytest.approx(prediction["probabilities"][name], abs=1e-6)
            assert one["kind"] == "exact" and one["error"] < 1e-5
            assert np.sum(one["map"]) == pytest.approx(one["logit"] - one["bias"], abs=1e-5)
        with Image.open(out / row["picture"]) as picture:
            assert picture.width > len(by_class) * 224
    assert message_of(main(command), *capsys.readouterr()).count("--overwrite")
    assert main([*command[:3], "--out", str(out), "--overwrite", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["images"]) == len(list(out.glob("*.png"))) == 1


def test_labels_come_from_a_table_or_from_who_asks(linear: Path, photos: Path, tmp_path: Path):
    shutil.copy(photos / "cat" / "00.png", tmp_path / "a.png")
    (tmp_path / "photos.csv").write_text("path,label\na.png,dog\n")
    run = multitl.load(linear)
    (by_table,) = run.explain(tmp_path / "photos.csv")
    (by_name,) = run.explain(tmp_path / "a.png", true="dog")
    (unknown,) = run.explain(tmp_path / "a.png", classes=["cat", "dog"])
    assert by_table["true"] == by_name["true"] == ["dog"] and "true" not in unknown
    np.testing.assert_array_equal(by_table["maps"][0]["map"], by_name["maps"][0]["map"])
    assert {one["class"]: "asked" in one["shown_as"] for one in unknown["maps"]} == {"cat": True, "dog": True}
    (array,) = run.explain(np.zeros((1, 8, 8, 3), "uint8"))
    assert array["path"] == "row-0" and array["maps"][0]["map"].shape == (4, 4)


def test_a_hidden_layer_is_explained_by_gradients(finished: Path, photos: Path, tmp_path: Path, capsys):
    assert main(["explain", str(finished), str(photos / "cat"), "--out", str(tmp_path / "maps")]) == 0
    assert "gradient x activation\n" in capsys.readouterr().out


def test_refusals_say_how_to_go_on(linear: Path, photos: Path, tmp_path: Path, capsys):
    image = str(photos / "cat" / "00.png")
    told = message_of(main(["explain", str(linear), image, "--classes", "cats"]), *capsys.readouterr())
    assert "nearest: cat" in told
    (tmp_path / "mine.txt").touch()
    told = message_of(main(["explain", str(linear), image, "--out", str(tmp_path)]), *capsys.readouterr())
    assert "left alone" in told and (tmp_path / "mine.txt").exists()


def test_the_how_to_does_what_it_says(linear: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("photos").symlink_to(photos)
    Path("runs/photos").symlink_to(linear)
    text = HOW_TO.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 25
    for command in re.findall(r"^\$ multitl (.+)$", text, re.MULTILINE):
        assert main(shlex.split(command)) == 0
    shown = json.loads(Path("runs/one/explanations.json").read_text())["images"][0]["maps"]
    assert {role for one in shown for role in one["shown_as"]} == {"predicted", "true", "asked"}
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})


@pytest.mark.every_backend
def test_onnx_gives_the_same_maps(linear: Path, photos: Path, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    from multitl.onnx_graphs.running import run_onnx
    from multitl.porting.export_worker import ExportJob, export

    rows = multitl.explain(linear, photos / "cat", classes=["cat", "dog"])
    export(ExportJob("onnx", str(linear), "pixels", explain=True), tmp_path)
    card = multitl.load(linear).card
    pixels = np.stack(list(read_files([row["path"] for row in rows], card.preprocess)))
    graph = str(tmp_path / "model.onnx")
    maps, probabilities = (run_onnx(graph, output=name)(pixels) for name in ("contributions", "probabilities"))
    for row, given, answer in zip(rows, maps, probabilities, strict=True):
        of_class = {one["class"]: one for one in row["maps"]}
        biases = [of_class[name]["bias"] for name in card.class_names]
        np.testing.assert_allclose(softmax(given.sum(axis=(0, 1)) + biases), answer, rtol=1e-5, atol=1e-6)
        for place, name in enumerate(card.class_names):
            wanted = of_class[name]["logit"] - of_class[name]["bias"]
            largest = max(abs(one["logit"] - one["bias"]) for one in of_class.values())
            assert given[..., place].sum(dtype="float64") == pytest.approx(wanted, abs=1e-5 * largest)
            np.testing.assert_allclose(given[..., place], of_class[name]["map"], atol=1e-4 * largest)


@pytest.mark.slow
def test_a_port_proves_its_maps(linear: Path, finished: Path, tmp_path: Path, capsys):
    pytest.importorskip("onnxruntime")
    ported = multitl.port(linear, "onnx", tmp_path / "onnx", explain=True)
    assert ported.card["proof"]["contributions"]["sum_error"] < 1e-5
    assert ported.card["gives"] == {"probabilities": [None, 2], "contributions": [None, 4, 4, 2]}
    command = ["port", str(finished), "--to", "onnx", "--explain", "--out", str(tmp_path / "hidden")]
    assert "leave --explain out" in message_of(main(command), *capsys.readouterr())
    command = ["port", str(linear), "--to", "keras", "--explain", "--out", str(tmp_path / "keras")]
    assert "--to onnx" in message_of(main(command), *capsys.readouterr())
