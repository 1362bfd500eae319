"""`multitl serve` says where it looks: as `multitl explain` does, by each runtime, of each head, in a real browser."""

from __future__ import annotations

import base64
import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import keras
import numpy as np
import pytest
from conftest import elsewhere_slow
from headless_browser import BROWSER
from labelled_photos import save_small_backbone
from numbered_photos import make_numbered
from PIL import Image

pytest.importorskip("starlette", reason="the extra serve is not installed")

from driven_browser import Tab, tab
from served_runs import Served, serving
from test_serving import SMALL, png, same

import multitl
from multitl.cli.main import main
from multitl.errors import RunError
from multitl.explaining.explainers import contributions_of
from multitl.onnx_graphs.writing import onnx_model, save_onnx
from multitl.recipes import Recipe
from multitl.serving.answerers import answerer_of
from multitl.serving.answers import Answerer
from multitl.serving.openapi import describe
from multitl.serving.refusals import MOST_BYTES
from multitl.standalone.programs import write_program
from multitl.system.writing import write_json

only_jax = pytest.mark.skipif(keras.config.backend() != "jax", reason="no framework is asked here")
HEADS = ("predicted", "width")  # a class, and a number; a head may be called as what is said of one


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with a class and a number each."""
    root = make_numbered(tmp_path_factory.mktemp("numbered"), count=40)
    with (root / "photos.csv").open() as file:
        rows = [(row["path"], "narrow" if float(row["width"]) < 132 else "wide", row["width"])
                for row in csv.DictReader(file)]  # fmt: skip
    with (root / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", *HEADS), *rows])
    return root


@pytest.fixture(scope="module")
def two_heads(numbered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    backbone = save_small_backbone(folder / "small.keras")
    multitl.finetune_heads(
        numbered / "photos.csv", "predicted=class, width=number", output=folder / "run",
        recipe=Recipe(backbone=f"file:{backbone}", image_size=32, unfreeze="none"),
    )  # fmt: skip
    return folder / "run"


@pytest.fixture(scope="module")
def answerer(linear: Path) -> Answerer:
    return answerer_of(linear, "keras", None)


@pytest.fixture(scope="module")
def served(answerer: Answerer) -> Iterator[Served]:
    with serving(answerer) as found:
        yield found


def explained(run: Path, images: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """What `multitl explain --json` says of each image, by its name: of the classes that were said."""
    capsys.readouterr()
    assert main(["explain", str(run), str(images), "--out", str(out), "--json"]) == 0
    rows = {Path(row["path"]).name: row for row in json.loads(capsys.readouterr().out)["images"]}
    for row in rows.values():
        row["maps"] = [one for one in row["maps"] if "predicted" in one["shown_as"]]
    return rows


def assert_same_maps(maps: list[dict[str, Any]], expected: list[dict[str, Any]], proof: float | None = None) -> None:
    """To the last digits of float32: batches are of another size. proof: the error that an artefact tells."""
    assert [one["class"] for one in maps] == [one["class"] for one in expected]
    for one, own in zip(maps, expected, strict=True):
        largest = np.abs(own["map"]).max()
        np.testing.assert_allclose(one["map"], own["map"], rtol=0, atol=1e-5 * largest)
        assert (one["kind"], "predicted" in one["shown_as"]) == (own["kind"], True)
        if proof is not None:
            assert one["error"] == proof
        elif one["kind"] == "exact":
            assert np.sum(one["map"]) == pytest.approx(one["logit"] - one["bias"], abs=1e-5 * abs(one["logit"]) + 1e-6)
            assert one["error"] < 1e-5
        else:
            assert one["error"] is one["bias"] is None


def check(said: Any, answerer: Answerer) -> None:
    """It is what openapi.json says."""
    description = describe(answerer)
    jsonschema.validate(said, {"$ref": "#/components/schemas/Answer", "components": description["components"]})


@elsewhere_slow
@pytest.mark.parametrize("run", ["linear", "finished"], ids=["exact", "gradients"])
def test_maps_are_those_of_explain(run: str, photos: Path, tmp_path: Path, capsys, request: pytest.FixtureRequest):
    """`finished` has a hidden layer."""
    folder = request.getfixturevalue(run)
    rows = explained(folder, photos / "cat", tmp_path / "maps", capsys)
    answerer = answerer_of(folder, "keras", None)
    with serving(answerer) as served:
        for name in sorted(rows)[:5]:
            data = (photos / "cat" / name).read_bytes()
            plain, reply = served.predict(data).json, served.predict(data, "?explain=true")
            assert reply.status == 200 and "maps" not in plain and same(reply.json, plain)
            assert list(reply.json) == [*plain, "maps"] and "picture" not in reply.json["maps"][0]
            assert_same_maps(reply.json["maps"], rows[name]["maps"])
            check(reply.json, answerer)


@only_jax
def test_a_picture_is_drawn_over_what_the_network_saw(served: Served, answerer: Answerer, photos: Path):
    said = served.predict((photos / "dog" / "03.png").read_bytes(), "?explain=picture").json
    check(said, answerer)
    kind, _, content = said["maps"][0]["picture"].partition(",")
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert (kind, image.size) == ("data:image/jpeg;base64", (224, 224))
        colours = np.asarray(image.convert("RGB"), "float64").reshape(-1, 3)
    spread = colours[:, 0] - colours[:, 2]  # orange or blue, where a map speaks for the class or against it
    values = np.array(said["maps"][0]["map"])
    assert (spread.max() > 40) == (values.max() > 0) and (spread.min() < -40) == (values.min() < 0)


@only_jax
def test_who_asks_for_maps_at_the_same_time_gets_their_own(served: Served, photos: Path):
    from concurrent.futures import ThreadPoolExecutor

    files = [path.read_bytes() for path in sorted(photos.rglob("*.png"))[::3]]
    alone = [served.predict(data, "?explain=true").json for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda place: served.predict(files[place % len(files)], "?explain=true" * (place % 2)),
                                 range(4 * len(files) + 1)))  # fmt: skip
    for place, reply in enumerate(together):
        expected = alone[place % len(files)]
        assert same(reply.json, expected) and ("maps" in reply.json) == (place % 2 == 1)
        if place % 2:
            assert_same_maps(reply.json["maps"], expected["maps"])


@only_jax
def test_what_it_cannot_explain_is_refused(served: Served, answerer: Answerer):
    reply = served.predict(bytes(MOST_BYTES), "?explain=yes")  # all of it is taken, or the connection would break
    assert reply.status == 400 and reply.json["error"]["expected"] == "false, true, picture"
    assert served.predict(b"no image", "?explain=true").status == 422
    assert {"400", "501"} < set(describe(answerer)["paths"]["/predict"]["post"]["responses"])


@only_jax
def test_a_network_without_a_map_goes_on_answering():
    opened = []

    def open_maps():
        opened.append(1)
        raise RunError("No map.", expected="a map", received="none", fix="multitl backbones")

    def say(images):
        return [{"value": 1.0} for _ in images]

    plain = Answerer("plain", "", {"": ("number", ("value",))}, SMALL, lambda: say, open_maps=open_maps)
    with serving(plain) as served:
        for _ in range(2):
            reply = served.predict(png(), "?explain=true")
            assert (reply.status, reply.json["error"]["fix"]) == (501, "multitl backbones")
            assert served.predict(png()).json == {"value": 1.0}
    assert len(opened) == 1


def make_artefact(run: Path, folder: Path, *, explain: bool) -> Path:
    """As `multitl port --to onnx` makes it, as far as it is read; the slow test has the real one."""
    opened, outputs = multitl.load(run), ["probabilities", "contributions"][: 1 + explain]
    folder.mkdir()
    model = opened.model
    if explain:
        model = keras.Model(model.input, [model.output, contributions_of(model)])
    save_onnx(onnx_model(model, outputs, {}), folder / "model.onnx")
    write_program(folder, "open_onnx", opened.card.preprocess, "pixels", opened.card.class_names, [])
    backbone = {"name": "small", "preprocess": json.loads((folder / "preprocess.json").read_text())}
    about = {"port": {"format": "onnx"}, "class_names": opened.card.class_names, "backbone": backbone}
    proof = {"contributions": {"sum_error": 2e-7}} if explain else {}
    write_json(folder / "card.json", about | {"gives": {name: [None, 2] for name in outputs}, "proof": proof})
    return folder


@only_jax
def test_an_artefact_gives_the_maps_that_it_was_made_with(linear: Path, photos: Path, tmp_path: Path, capsys):
    rows = explained(linear, photos / "dog", tmp_path / "maps", capsys)
    answerer = answerer_of(make_artefact(linear, tmp_path / "run-onnx", explain=True), "onnx", None)
    with serving(answerer) as served:
        for name in sorted(rows)[:4]:
            said = served.predict((photos / "dog" / name).read_bytes(), "?explain=picture").json
            assert_same_maps(said["maps"], rows[name]["maps"], proof=2e-7)
            check(said, answerer)


@only_jax
def test_an_artefact_without_maps_names_the_command(linear: Path, tmp_path: Path):
    folder = make_artefact(linear, tmp_path / "run-onnx", explain=False)
    for run in (f"RUN --to onnx --out {folder}", f"{tmp_path / 'run'} --to onnx"):
        with serving(answerer_of(folder, "onnx", None)) as served:
            reply = served.predict(png(), "?explain=true")
            assert reply.status == 501
            assert reply.json["error"]["fix"] == f"multitl port {run} --explain --overwrite"
            page = served.ask("GET", "/").body.decode()
            assert reply.json["error"]["fix"] in page and 'id="looks"' not in page
            assert served.predict(png()).status == 200
        (tmp_path / "run").mkdir(exist_ok=True)


@elsewhere_slow
def test_several_heads_answer_as_each_alone(two_heads: Path, numbered: Path, tmp_path: Path, capsys):
    """As `predict` of all says it; where each looks, as `explain` of its own folder does."""
    paths = sorted(numbered.glob("*.png"))[:3]
    expected = multitl.predict(two_heads, paths)
    maps = {name: explained(two_heads / "heads" / name, numbered, tmp_path / name, capsys) for name in HEADS}
    answerer = answerer_of(two_heads, "keras", None)
    with serving(answerer) as served:
        for path, row in zip(paths, expected, strict=True):
            plain, said = (served.predict(path.read_bytes(), query).json for query in ("", "?explain=picture"))
            check(plain, answerer)
            check(said, answerer)
            assert list(plain) == list(said) == list(HEADS)
            assert same(plain["predicted"], row["predicted"])
            assert plain["width"] == {"value": pytest.approx(row["width"]["value"], rel=1e-5)}
            for name in HEADS:
                assert_same_maps(said[name]["maps"], maps[name][path.name]["maps"])
        description = served.ask("GET", "/openapi.json").json
    assert description == describe(answerer)
    assert set(description["components"]["schemas"]["Answer"]["properties"]) == set(HEADS)


def wait_for(page: Tab, condition: str) -> None:
    page.evaluate(
        f"new Promise(go => {{const timer = setInterval(() => {condition} && go(clearInterval(timer)), 20)}})"
    )


@only_jax
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt install chromium)")
def test_the_page_shows_it(served: Served, photos: Path, tmp_path: Path):
    """First the answer, then the map; none once the switch is off."""
    figures = "document.querySelectorAll('.answer figure')"
    with tab(tmp_path / "profile") as page:
        page.open(served.address)
        page.choose("#image", photos / "cat" / "00.png")
        wait_for(page, f"{figures}.length == 1 && {figures}[0].querySelector('img').complete")
        said = served.predict((photos / "cat" / "00.png").read_bytes(), "?explain=picture").json
        assert page.evaluate(f"{figures}[0].querySelector('img').src") == said["maps"][0]["picture"]
        assert page.evaluate(f"{figures}[0].querySelector('img').naturalWidth") == 224
        text = page.evaluate(f"{figures}[0].innerText")
        assert text.startswith(f"Where it sees {said['predicted']}: orange") and "(exact, sums to within " in text
        page.evaluate("document.getElementById('looks').click()")
        page.choose("#image", photos / "dog" / "00.png")
        wait_for(page, "document.querySelectorAll('.answer').length == 2")
        page.evaluate("new Promise(go => setTimeout(go, 300))")
        assert page.evaluate(f"{figures}.length") == 1 and page.faults == []
        page.show(390, 900, "dark")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@only_jax
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt install chromium)")
def test_the_page_shows_several_heads(two_heads: Path, numbered: Path, tmp_path: Path):
    path = sorted(numbered.glob("*.png"))[0]
    with serving(answerer_of(two_heads, "keras", None)) as served, tab(tmp_path / "profile") as page:
        said = served.predict(path.read_bytes()).json
        page.open(served.address)
        assert "2 heads" in page.evaluate("document.querySelector('.facts').innerText")
        page.choose("#image", path)
        wait_for(page, "document.querySelectorAll('.answer figure').length == 2")
        text = page.evaluate("document.querySelector('.answer').innerText")
        assert f"predicted\n{said['predicted']['predicted']}\n" in text.replace("\n\n", "\n")
        assert f"width\n{said['width']['value']:.6g}" in text.replace("\n\n", "\n")
        assert f"Where it sees predicted: {said['predicted']['predicted']}" in text and "orange raises it" in text
        assert page.faults == []


@only_jax
@pytest.mark.slow
def test_a_ported_artefact_is_served_with_its_maps(linear: Path, photos: Path, tmp_path: Path, capsys):
    run = tmp_path / "run"
    shutil.copytree(linear, run)
    rows = explained(run, photos / "cat", tmp_path / "maps", capsys)
    assert main(["port", str(run), "--to", "onnx"]) == 0
    assert main(["serve", str(tmp_path / "nothing"), "--runtime", "onnx"]) == 2
    lack = answerer_of(run, "onnx", None).open_maps
    assert isinstance(lack, multitl.MultitlError)
    program, *command = lack.fix.split()
    assert program == "multitl" and main(command) == 0, "the command that it names mends it"
    with serving(answerer_of(run, "onnx", None)) as served:
        said = served.predict((photos / "cat" / "00.png").read_bytes(), "?explain=true").json
    proof = json.loads((tmp_path / "run-onnx" / "card.json").read_text())["proof"]["contributions"]["sum_error"]
    assert_same_maps(said["maps"], rows["00.png"]["maps"], proof=proof)
