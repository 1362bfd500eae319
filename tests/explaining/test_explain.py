"""`multitl explain` and `Classifier.explain`: pictures and numbers, labels where they are known, refusals."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import elsewhere_slow
from PIL import Image
from quick_runs import message_of
from scipy.special import softmax

import multitl
from multitl.adapters import load_function
from multitl.classifiers import Classifier
from multitl.cli.main import main
from multitl.data.pixels import read_files
from multitl.errors import PortError
from multitl.explaining.overlays import side_by_side
from multitl.judging import explanations
from multitl.judging.asked import check_folder_for_explanations
from multitl.judging.predictions import read_predictions
from multitl.judging.reporting import write_report
from multitl.porting.formats import FORMATS, missing_packages
from multitl.runs.heatmaps import read_heatmaps

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "what-it-looks-at.md"


@pytest.fixture(scope="module")
def loaded(linear: Path) -> Classifier:
    """Its network is loaded and compiled once."""
    return multitl.load(linear)


def test_a_name_of_several_lines_is_a_caption():
    picture = np.zeros((224, 224, 3), "uint8")
    assert side_by_side([("one\n\ntwo", picture), ("猫", picture)]).size == (454, 246)


@elsewhere_slow
def test_a_folder_of_photos_is_explained(linear: Path, loaded: Classifier, photos: Path, tmp_path: Path, capsys):
    images, out = [str(photos / "cat" / "00.png"), str(photos / "dog")], tmp_path / "maps"
    (tmp_path / "broken.png").write_bytes(b"no image")
    command = ["explain", str(linear), *images, str(tmp_path / "broken.png"), "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "exact: each map sums to logit - bias, within" in printed and "unreadable" in printed

    rows = json.loads((out / "explanations.json").read_text())["images"]
    assert len(rows) == 14 and rows[0]["true"] == ["cat"] and "error" in rows[-1]
    predictions = loaded.predict(images)
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
    loaded.explain(images[0], output=out, overwrite=True)
    assert len(list(out.iterdir())) == 2, "earlier pictures are gone"


def test_labels_come_from_a_table_or_from_who_asks(loaded: Classifier, photos: Path, tmp_path: Path):
    shutil.copy(photos / "cat" / "00.png", tmp_path / "a.png")
    (tmp_path / "photos.csv").write_text("path,label\na.png,dog\n")
    (by_table,) = loaded.explain(tmp_path / "photos.csv")
    (by_name,) = loaded.explain(tmp_path / "a.png", true="dog")
    (unknown,) = loaded.explain(tmp_path / "a.png", classes=["cat", "dog"])
    assert by_table["true"] == by_name["true"] == ["dog"] and "true" not in unknown
    np.testing.assert_array_equal(by_table["maps"][0]["map"], by_name["maps"][0]["map"])
    assert {one["class"]: "asked" in one["shown_as"] for one in unknown["maps"]} == {"cat": True, "dog": True}
    (array,) = loaded.explain(np.zeros((1, 8, 8, 3), "uint8"))
    assert array["path"] == "row-0" and array["maps"][0]["map"].shape == (4, 4)


def test_the_report_shows_where_mistakes_were_seen(linear: Path, loaded: Classifier, tmp_path: Path):
    heatmaps, shown = read_heatmaps(linear, ""), read_predictions(linear / "predictions.csv").of("test")
    report = (linear / "report.html").read_bytes()
    assert heatmaps.images and report.count(b'class="maps"') == len(heatmaps.images)
    rows = loaded.explain([shown.paths[one.place] for one in heatmaps.images])
    for image, row in zip(heatmaps.images, rows, strict=True):
        assert [one.name for one in image.maps] == list(dict.fromkeys([row["predicted"], *row["true"]]))
        for seen, one in zip(image.maps, row["maps"], strict=True):
            assert seen.error < 1e-5
            np.testing.assert_allclose(seen.values, one["map"], rtol=1e-3, atol=1e-4 * np.abs(one["map"]).max())

    shutil.copytree(linear, tmp_path / "run")
    assert write_report(tmp_path / "run").read_bytes() == report, "a function of the files alone"
    (tmp_path / "run" / "heatmaps.json").write_text('{"images": [{"place": 0, "maps": [{"name": "a", "error": 0}]}]}')
    with pytest.raises(multitl.RunError, match=r"heatmaps\.json"):
        write_report(tmp_path / "run")
    (tmp_path / "run" / "heatmaps.json").unlink()  # as in a run of an older version
    assert b'class="maps"' not in write_report(tmp_path / "run").read_bytes()


@pytest.mark.slow
def test_a_hidden_layer_is_explained_by_gradients(finished: Path, photos: Path, tmp_path: Path, capsys):
    assert main(["explain", str(finished), str(photos / "cat"), "--out", str(tmp_path / "maps")]) == 0
    assert "gradient x activation\n" in capsys.readouterr().out


def test_refusals_say_how_to_go_on(linear: Path, photos: Path, tmp_path: Path, monkeypatch, capsys):
    image = str(photos / "cat" / "00.png")
    told = message_of(main(["explain", str(linear), image, "--classes", "cats"]), *capsys.readouterr())
    assert "nearest: cat" in told
    (tmp_path / "mine.txt").touch()
    told = message_of(main(["explain", str(linear), image, "--out", str(tmp_path)]), *capsys.readouterr())
    assert "left alone" in told and (tmp_path / "mine.txt").exists()
    (tmp_path / "maps").mkdir()
    for name in ("explanations.json", "0001-a.png", ".DS_Store"):  # as Finder leaves one where it has looked
        (tmp_path / "maps" / name).touch()
    check_folder_for_explanations(tmp_path / "maps", overwrite=True)
    (tmp_path / "cut.png").write_bytes(Path(image).read_bytes()[:60])
    command = ["explain", str(linear), str(tmp_path / "cut.png"), "--out", str(tmp_path / "maps"), "--overwrite"]
    assert "None of the images" in message_of(main(command), *capsys.readouterr())
    assert len(list((tmp_path / "maps").iterdir())) == 3, "earlier explanations stay"
    assert not list(tmp_path.glob("**/.multitl-*"))
    monkeypatch.chdir(tmp_path / "maps")  # it stays what it is: a mount point cannot be made anew
    before = Path().stat().st_ino
    assert main(["explain", str(linear), image, "--out", ".", "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] and (tmp_path / "maps").stat().st_ino == before
    assert {path.name for path in Path().iterdir()} == {"explanations.json", "0001-00.png", ".DS_Store"}
    (tmp_path / "file").touch()
    code = main(["explain", str(linear), image, "--out", str(tmp_path / "file" / "maps")])
    assert "Cannot write" in message_of(code, *capsys.readouterr())


def test_what_came_into_the_folder_meanwhile_stays(loaded: Classifier, photos: Path, tmp_path: Path, monkeypatch):
    write = explanations.write_json

    def write_beside(path: Path, value: Any) -> None:
        write(path, value)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").touch()

    monkeypatch.setattr(explanations, "write_json", write_beside)
    with pytest.raises(multitl.RunError, match="left alone"):
        loaded.explain(photos / "cat" / "00.png", output=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_of_a_table_what_cannot_be_read_is_named(loaded: Classifier, photos: Path, tmp_path: Path):
    (tmp_path / "cut.png").write_bytes((photos / "cat" / "00.png").read_bytes()[:60])
    (tmp_path / "table.csv").write_text(f"path,label\n{photos / 'cat' / '01.png'},cat\n{tmp_path / 'cut.png'},dog\n")
    good, bad = loaded.explain(tmp_path / "table.csv")
    assert good["true"] == ["cat"] and bad["path"].endswith("cut.png") and bad["error"]


def test_the_how_to_does_what_it_says(linear: Path, photos: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("photos").symlink_to(photos)
    Path("runs/photos").symlink_to(linear)
    text = HOW_TO.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 25
    (command,) = re.findall(r"^\$ multitl (.+)$", text, re.MULTILINE)
    assert main([*shlex.split(command), "--json"]) == 0
    (*_, last) = json.loads(capsys.readouterr().out)["images"]
    assert {role for one in last["maps"] for role in one["shown_as"]} == {"predicted", "true", "asked"}
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})


@pytest.mark.every_backend
@pytest.mark.parametrize("name", ["onnx", *(["litert"] if keras.config.backend() == "tensorflow" else [])])
def test_an_artefact_gives_the_same_maps(
    name: str, linear: Path, loaded: Classifier, photos: Path, tmp_path: Path
):  # fmt: skip
    """Each format where it is written, ONNX everywhere."""
    pytest.importorskip(FORMATS[name].packages[-1])
    from multitl.porting.export_worker import ExportJob, export

    rows = loaded.explain(photos / "cat", classes=["cat", "dog"])
    export(ExportJob(name, str(linear), "pixels", also=["contributions"]), tmp_path)
    card = loaded.card
    pixels = np.stack(list(read_files([row["path"] for row in rows], card.preprocess)))
    runtime = load_function(FORMATS[name].runtime)
    maps, probabilities = (runtime(tmp_path, output)(pixels) for output in ("contributions", "probabilities"))
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
@pytest.mark.parametrize("name", [name for name, one in FORMATS.items() if one.has_further])
def test_a_port_proves_its_maps(name: str, linear: Path, tmp_path: Path):
    if missing_packages(FORMATS[name]):
        pytest.skip(f"{name} cannot be written here")
    ported = multitl.port(linear, name, tmp_path / name, explain=True)
    assert ported.card["proof"]["contributions"]["sum_error"] < 1e-5
    assert ported.card["gives"] == {"probabilities": [None, 2], "contributions": [None, 4, 4, 2]}
    if name == "litert":  # of noise the distances differ by rounding alone, and that is what they are measured in
        with pytest.raises(PortError, match="strangeness"):
            multitl.port(linear, name, tmp_path / "both", explain=True, unknown=True)
        assert not (tmp_path / "both").exists()
        return
    both = multitl.port(linear, name, tmp_path / "both", explain=True, unknown=True).card
    assert list(both["gives"]) == ["probabilities", "contributions", "strangeness"]
    assert both["proof"]["strangeness"]["max_rel"] < 1e-4 and both["strangeness"]["usual"]


@pytest.mark.slow
def test_what_cannot_give_maps_is_refused(linear: Path, finished: Path, tmp_path: Path, capsys):
    pytest.importorskip("onnxruntime")
    command = ["port", str(finished), "--to", "onnx", "--explain", "--out", str(tmp_path / "hidden")]
    assert "leave --explain out" in message_of(main(command), *capsys.readouterr())
    command = ["port", str(linear), "--to", "keras", "--explain", "--out", str(tmp_path / "keras")]
    assert "--to onnx" in message_of(main(command), *capsys.readouterr())
