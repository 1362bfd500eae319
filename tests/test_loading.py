"""`multitl.load`: a run as an object, and how it and a `Result` show themselves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest

import multitl
from multitl.errors import RunError
from multitl.runs.folders import finished_result


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """One to damage."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


class Tags(HTMLParser):
    """Names of the tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names, self.text = set[str](), ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.every_backend
def test_its_methods_are_the_functions_and_its_model_is_loaded_once(finished: Path, photos: Path):
    run = multitl.load(finished)
    assert run.classes == ("cat", "dog") and run.folder == finished
    assert run.card.backbone.name == "file:small.keras"
    assert run.predict(photos / "cat") == multitl.predict(finished, photos / "cat")
    assert run.evaluate(photos) == multitl.evaluate(finished, photos)
    assert isinstance(run.model, keras.Model) and run.model is run.model
    pixels = np.zeros((2, 32, 32, 3), "uint8")
    np.testing.assert_allclose(np.asarray(run.model.predict_on_batch(pixels)).sum(axis=1), 1, rtol=1e-5)
    assert run.report() == finished / "report.html"
    assert run.metrics == json.loads((finished / "metrics.json").read_text())


def test_it_is_ported(finished: Path, tmp_path: Path):
    ported = multitl.load(finished).port("onnx", tmp_path / "onnx")
    assert (ported.output / "model.onnx").is_file() and ported.card["class_names"] == ["cat", "dog"]


def test_it_is_shown_in_a_line(finished: Path):
    accuracy = json.loads((finished / "metrics.json").read_text())["test"]["accuracy"]
    line = repr(multitl.load(finished))
    assert line.startswith(f"<multitl run {finished}: accuracy {accuracy:.3f}, macro F1 ") and "\n" not in line
    assert line.endswith(" test images, 2 classes, file:small.keras>")
    shown = repr(finished_result(finished))
    assert shown.startswith(f"<multitl result {finished}: accuracy {accuracy:.3f}, macro F1 ")
    assert shown.endswith(" test images, 2 classes>") and len(shown) < 100 + len(str(finished))


def test_it_is_shown_as_html_without_scripts_and_with_names_escaped(copied: Path):
    evil = "<script>alert(1)</script>"
    for name in ("card.json", "metrics.json"):
        path = copied / name
        path.write_text(path.read_text().replace('"cat"', json.dumps(evil)))
    page = multitl.load(copied)._repr_html_()
    tags = Tags(page)
    assert {"table", "strong"} <= tags.names and tags.names.isdisjoint({"script", "style", "link", "img", "iframe"})
    assert evil in tags.text and evil not in page
    matrix = json.loads((copied / "metrics.json").read_text())["test"]["confusion_matrix"]
    cells = re.findall(r"<td>(?:<strong>)?(\d*)(?:</strong>)?</td>", page.partition("<tbody>")[2])
    assert [int(cell or 0) for cell in cells] == [count for row in matrix for count in row]


def test_a_translated_network_is_one_too(tmp_path: Path):
    multitl.translate("keras/MobileNet:alpha=0.25", tmp_path / "net", weights="none", image_size=32, head="cut")
    network = multitl.load(tmp_path / "net")
    assert repr(network) == f"<multitl run {tmp_path / 'net'}: no classifier, keras/MobileNet:alpha=0.25>"
    assert network.metrics is None and "<table" not in network._repr_html_()
    with pytest.raises(RunError, match="has no report"):
        network.report()


@pytest.mark.parametrize(("lost", "problem"), [("card.json", "Cannot read"), ("metrics.json", "Cannot read")])
def test_an_unfinished_or_damaged_run_is_refused(copied: Path, lost: str, problem: str):
    (copied / lost).unlink()
    with pytest.raises(RunError, match=problem):
        multitl.load(copied)
    (copied / lost).write_text("{")
    with pytest.raises(RunError, match=problem):
        multitl.load(copied)


def test_a_damaged_model_is_refused_where_it_is_needed(copied: Path):
    (copied / "model.keras").write_bytes(b"PK")
    run = multitl.load(copied)
    with pytest.raises(RunError, match="cannot be used"):
        _ = run.model


def test_a_wrong_path_names_the_right_one(copied: Path):
    with pytest.raises(RunError, match="There is no run folder") as caught:
        multitl.load(copied.with_name("rum"))
    assert str(copied) in caught.value.nearest


def test_no_framework_is_loaded_before_the_model(finished: Path):
    code = f"""
import sys, multitl
run = multitl.load({str(finished)!r})
repr(run), run._repr_html_(), run.classes, run.report()
print([name for name in ("keras", "jax", "tensorflow", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "[]\n"
