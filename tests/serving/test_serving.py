"""`multitl serve`: right answers whoever else asks, refusals that say why, a page that works in a real browser."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import jsonschema
import keras
import numpy as np
import pytest
from conftest import elsewhere_slow
from headless_browser import BROWSER
from PIL import Image
from quick_runs import make_photos, message_of

pytest.importorskip("starlette", reason="the extra serve is not installed")

from driven_browser import tab
from served_runs import BOUNDARY, Reply, Served, form, serving

import multitl
from multitl.cli.main import build_parser, main
from multitl.contracts import Preprocess
from multitl.data.geometry import MAX_PIXELS
from multitl.onnx_graphs.writing import onnx_model, save_onnx
from multitl.serving import app as serving_app
from multitl.serving.answerers import answerer_of
from multitl.serving.answers import AT_ONCE, Answerer
from multitl.serving.openapi import describe
from multitl.serving.refusals import MOST_BYTES
from multitl.serving.server import names_of
from multitl.serving.worker import Worker
from multitl.standalone.programs import write_program
from multitl.system.writing import write_json

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "serve.md"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
SMALL = Preprocess(8, 8, resize="squash")
only_jax = pytest.mark.skipif(keras.config.backend() != "jax", reason="no framework is asked here")


@pytest.fixture(scope="module")
def answerer(finished: Path) -> Answerer:
    return answerer_of(finished, "keras", None)


@pytest.fixture(scope="module")
def served(answerer: Answerer) -> Iterator[Served]:
    with serving(answerer) as found:
        yield found


def png(size: tuple[int, int] = (12, 10)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 40, 90)).save(file, "PNG")
    return file.getvalue()


def same(said: dict, expected: dict) -> bool:
    """As `predict` says it; a share may differ by rounding, since batches are of another size."""
    shares = expected["probabilities"]
    return said["predicted"] == expected["predicted"] and said["probabilities"] == pytest.approx(shares, abs=1e-6)


@elsewhere_slow
def test_many_at_once_get_what_predict_says(served: Served, finished: Path, photos: Path):
    """Each of its own image, with those of others and of bad files around it."""
    expected = {row.pop("path"): row for row in multitl.predict(finished, photos)}
    paths = sorted(expected) * 3

    def ask(number: int) -> bool:
        data = Path(paths[number]).read_bytes()
        if number % 5 == 0:
            assert served.predict(data[: len(data) // 2]).status == 422
        if number % 2:
            reply = served.ask("POST", "/predict", form(('name="image"; filename="a.png"', data)), FORM)
        else:
            reply = served.predict(data)
        return reply.status == 200 and same(reply.json, expected[paths[number]])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(len(paths))))


def bomb() -> bytes:
    """A small PNG that says it is one pixel larger than the reader's limit."""
    start, header, rest = (data := png())[:12], data[12:29], data[33:]
    header = header[:4] + (MAX_PIXELS // 2 + 1).to_bytes(4) + (2).to_bytes(4) + header[12:]
    return start + header + zlib.crc32(header).to_bytes(4) + rest


REFUSED = {
    "nothing": (b"", {}, 422, "empty"),
    "text": (b"hello" * 99, {}, 422, "not an image"),
    "cut off": (png((99, 99))[:-40], {}, 422, "truncated"),
    "bomb": (bomb(), {}, 422, "too large"),
    "no image": (b"{}", {"content-type": "application/json"}, 415, "no way to send an image"),
    "no boundary": (form(), {"content-type": "multipart/form-data"}, 400, "no boundary"),
    "no file": (form(('name="image"', png())), FORM, 400, "0 files in 1 fields"),
    "two files": (form(*[('name="a"; filename="b"', png())] * 2), FORM, 400, "2 files"),
    "many fields": (form(*[('name="a"', b"")] * 9), FORM, 400, "more than 8 fields"),
    "half a form": (form(('name="image"; filename="a"', png()), end=""), FORM, 400, "cut off"),
    "no form": (png(), FORM, 400, "form cannot be read"),
    "too many bytes": (b"", {"content-length": str(MOST_BYTES + 1)}, 413, "too large"),
    "another host": (png(), {"host": "example.org"}, 403, "Host"),
    "another site": (png(), {"origin": "http://example.org"}, 403, "Origin"),
    "no site": (png(), {"origin": "null"}, 403, "Origin"),
}


@only_jax
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(served: Served, answerer: Answerer, name: str):
    body, headers, status, words = REFUSED[name]
    reply = served.ask("POST", "/predict", body, {"content-type": "application/octet-stream"} | headers)
    assert reply.status == status and words in json.dumps(reply.json)
    assert str(status) in describe(answerer)["paths"]["/predict"]["post"]["responses"]
    check(reply, answerer, "Refusal")
    assert served.predict(png()).status == 200


@only_jax
@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/predict", 405), ("GET", "/../etc/passwd", 404)])
def test_what_is_not_there(served: Served, answerer: Answerer, method: str, path: str, status: int):
    reply = served.ask(method, path)
    assert reply.status == status
    check(reply, answerer, "Refusal")


def check(reply: Reply, answerer: Answerer, schema: str) -> None:
    """It is what openapi.json says, and carries the headers of safety."""
    jsonschema.validate(reply.json, describe(answerer)["components"]["schemas"][schema])
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff" and "server" not in reply.headers


@only_jax
@pytest.mark.parametrize(
    ("host", "address", "asked", "status"),
    [
        ("127.0.0.2", "127.0.0.2", "127.0.0.2", 200), ("Machine", "127.0.1.1", "machine", 200),
        ("127.0.0.2", "127.0.0.2", "example.org", 403), ("0.0.0.0", "0.0.0.0", "example.org", 200),
        ("::1", "::1", "[::1]", 200), ("fe80::1%lo", "fe80::1%lo", "example.org", 200),
    ],
)  # fmt: skip
def test_it_answers_to_the_names_of_where_it_listens(
    answerer: Answerer, host: str, address: str, asked: str, status: int
):
    with serving(answerer, names_of(host, address)) as served:
        for shown in (asked, f"{asked}:{served.port}"):
            assert served.ask("GET", "/health", headers={"host": shown}).status == status


@only_jax
def test_it_describes_itself(served: Served, answerer: Answerer):
    assert served.ask("GET", "/openapi.json").json == describe(answerer)
    check(served.ask("GET", "/health"), answerer, "Health")
    reply = served.predict(png(), origin=served.address)
    check(reply, answerer, "Answer")
    assert re.fullmatch(r"read;dur=[\d.]+, model;dur=[\d.]+", reply.headers["server-timing"])


@only_jax
def test_who_is_refused_while_sending_may_end_and_reads_why(served: Served, monkeypatch: pytest.MonkeyPatch):
    """A chunked body is measured as it comes."""
    monkeypatch.setattr("multitl.serving.forms.MOST_BYTES", 1000)
    headers, chunk = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"a" * 600
    with socket.create_connection(("127.0.0.1", served.port), 60) as client:
        for _ in range(2):
            client.sendall(headers + 2 * (b"258\r\n" + chunk + b"\r\n"))
            reply = http.client.HTTPResponse(client)
            reply.begin()
            assert reply.status == 413 and b"too large" in reply.read()
            client.sendall(500 * (b"258\r\n" + chunk + b"\r\n") + b"0\r\n\r\n")


@only_jax
def test_who_comes_too_many_is_sent_away_and_the_others_are_answered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving_app, "MOST_WAITING", 2)
    may_go = threading.Event()
    slow = Answerer("slow", "", {"": ("number", ("value",))}, SMALL, lambda: lambda images: [
        {"value": float(may_go.wait(60) or image.any())} for image in images
    ])  # fmt: skip
    may_go.set()  # the example
    with serving(slow) as served, ThreadPoolExecutor(2) as pool:
        may_go.clear()
        waiting = [pool.submit(served.predict, png()) for _ in range(2)]
        while served.ask("GET", "/health").json["under_way"] < 2:
            pass
        reply = served.predict(png())
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        may_go.set()
        assert [one.result().json for one in waiting] == [{"value": 1.0}] * 2


@only_jax
def test_a_batch_that_fails_fails_alone():
    sizes = []

    def answer(images):
        sizes.append(len(images))
        if any(image.max() == 6 for image in images):
            raise ValueError("six")
        return [{"value": float(image.max())} for image in images]

    worker = Worker(Answerer("", "", {}, SMALL, lambda: answer))
    futures = [worker.submit(np.full((1, 1, 3), number, np.uint8)) for number in range(10)]
    worker.start(np.zeros((1, 1, 3), np.uint8))
    failed = [number for number, future in enumerate(futures) if future.exception()]
    assert 6 in failed and failed == list(range(4, 8))
    assert [futures[number].result() for number in (0, 9)] == [{"value": 0.0}, {"value": 9.0}]
    assert max(sizes) == AT_ONCE
    worker.close()
    assert not worker.is_alive


def make_artefact(folder: Path, model: keras.Model, kind: str, names: tuple[str, ...], how: Preprocess) -> Path:
    """What `multitl port --to onnx` writes, as far as it is read; the slow test below has the real one."""
    folder.mkdir()
    thresholds = [0.4] * len(names) if kind == "several" else []
    save_onnx(onnx_model(model, ["probabilities"], {}), folder / "model.onnx")
    write_program(folder, "open_onnx", how, "pixels", names, thresholds)
    backbone = {"name": "small", "preprocess": json.loads((folder / "preprocess.json").read_text())}
    gives = {"value" if kind == "number" else "probabilities": [None, len(names)]}
    card = {"port": {"format": "onnx"}, "class_names": names, "backbone": backbone, "gives": gives}
    write_json(folder / "card.json", card)
    return folder


def small_model(kind: str) -> tuple[keras.Model, tuple[str, ...]]:
    names = ("value",) if kind == "number" else ("a", "b", "c")
    last = {"one": "softmax", "several": "sigmoid", "number": None}[kind]
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(len(names), last)(pooled)), names


@only_jax
@pytest.mark.parametrize("kind", ["one", "several", "number"])
def test_an_artefact_answers_for_its_run(kind: str, tmp_path: Path):
    model, names = small_model(kind)
    answerer = answerer_of(make_artefact(tmp_path / "run-onnx", model, kind, names, SMALL), "onnx", None)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    with serving(answerer) as served:
        reply = served.predict(file.getvalue())
    check(reply, answerer, "Answer")
    (row,) = np.asarray(model.predict_on_batch(pixels[None]))
    if kind == "number":
        assert reply.json["value"] == pytest.approx(float(row[0]), abs=1e-5)
    else:
        assert reply.json["probabilities"] == pytest.approx(dict(zip(names, row.tolist(), strict=True)), abs=1e-5)
        given = [name for name, share in zip(names, row, strict=True) if share >= 0.4]
        assert reply.json["predicted"] == (
            names[row.argmax()] if kind == "one" else sorted(given, key=lambda name: -row[names.index(name)])
        )


@only_jax
@pytest.mark.parametrize(
    "name, values", [("thresholds", [0.5] * 2), ("costs", [[0, 1], [1, 0]]), ("costs", [[0] * 2] * 3)]
)
def test_files_of_other_classes_are_refused(tmp_path: Path, name: str, values: list):
    folder = make_artefact(tmp_path / "run-onnx", *small_model("one")[:1], "one", ("a", "b", "c"), SMALL)
    how = json.loads((folder / "preprocess.json").read_text())
    (folder / "preprocess.json").write_text(json.dumps(how | {name: values}))
    with pytest.raises(multitl.ServeError, match="do not belong together"):
        answerer_of(folder, "onnx", None)


@only_jax
def test_an_artefact_that_does_not_answer_is_refused(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ("a", "b", "c")
    folder = make_artefact(tmp_path / "run-onnx", *small_model("one")[:1], "one", names, SMALL)
    other = make_artefact(tmp_path / "other", *small_model("one")[:1], "one", names, replace(SMALL, height=9))
    with pytest.raises(multitl.ServeError, match=r"does not answer(.|\n)*--overwrite"):
        answerer_of(other, "onnx", None).open()
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:200])
    with pytest.raises(multitl.ServeError, match="does not answer"):
        answerer_of(folder, "onnx", None).open()
    monkeypatch.setattr("multitl.serving.artefacts.is_present", lambda package: False)
    with pytest.raises(multitl.ServeError, match=r"multitl\[onnx\]"):
        answerer_of(folder, "onnx", None)


@only_jax
def test_an_artefact_says_what_is_plausible(tmp_path: Path):
    model, names = small_model("one")
    folder = make_artefact(tmp_path / "run-onnx", model, "one", names, SMALL)
    card = json.loads((folder / "card.json").read_text())
    write_json(folder / "card.json", card | {"plausible": {"coverage": 0.9, "least": 0.0}})
    (said,) = answerer_of(folder, "onnx", None).open()([np.zeros((8, 8, 3), np.uint8)])
    assert said["plausible"] == sorted(names, key=lambda name: -said["probabilities"][name])


@only_jax
def test_an_artefact_needs_no_framework(tmp_path: Path):
    folder = make_artefact(tmp_path / "run-onnx", *small_model("one")[:1], "one", ("a", "b", "c"), SMALL)
    code = f"""
import sys
import numpy as np
from multitl.serving import app
from multitl.serving.answerers import answerer_of
answerer_of({str(folder.parent / "run")!r}, "onnx", None).open()([np.zeros((8, 8, 3), np.uint8)])
print([name for name in ("keras", "jax", "tensorflow", "torch", "onnx") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


@only_jax
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "There is no run folder"),
        (["{run}", "--runtime", "onxn"], "There is no runtime 'onxn'"),
        (["{run}", "--runtime", "onnx"], "multitl port {run} --to onnx"),
        (["{artefact}"], "--runtime onnx"),
        (["{other}"], "name the run"),
        (["{run}", "--runtime", "onnx", "--backend", "jax"], "no --backend beside"),
        (["{run}", "--host", "192.0.2.1"], "Cannot listen on 192.0.2.1"),
    ],
    ids=["missing", "runtime", "no artefact", "artefact", "another artefact", "backend", "address"],
)
def test_what_cannot_be_served_is_refused(finished: Path, tmp_path: Path, capsys, arguments: list[str], words: str):
    for name in ("artefact", "other"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "card.json", {"port": {"format": "onnx"}})
    (tmp_path / "artefact" / "model.onnx").touch()
    names = {"run": str(finished), "artefact": str(tmp_path / "artefact"), "other": str(tmp_path / "other")}
    code = main(["serve", *(one.format(**names) for one in arguments), "--port", "0"])
    assert words.format(**names) in message_of(code, *capsys.readouterr())


@only_jax
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr("multitl.serving.server.PACKAGES", ("starlette", "nosuchpackage"))
    assert "pip install 'multitl[serve]'" in message_of(main(["serve", "run"]), *capsys.readouterr())


@only_jax
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt install chromium)")
def test_the_page_works_in_a_browser(answerer: Answerer, photos: Path, tmp_path: Path):
    """An image and a file that is none, chosen; looked at in three widths, light and dark; and a hostile name."""
    (tmp_path / "no.png").write_text("no image")
    hostile = replace(answerer, name="<script>document.title='owned'</script>" + "a" * 80)
    with serving(hostile) as served, tab(tmp_path / "profile") as page:
        page.open(served.address)
        page.choose("#image", photos / "cat" / "00.png", tmp_path / "no.png")
        answers = "document.querySelectorAll('.answer').length"
        page.evaluate(f"new Promise(go => setInterval(() => {answers} == 2 && go(), 20))")
        bad, good = (page.evaluate(f"document.querySelectorAll('.answer')[{place}].innerText") for place in (0, 1))
        said = served.predict((photos / "cat" / "00.png").read_bytes()).json
        assert f"{said['predicted']}\n" in good and f"{100 * said['confidence']:.1f}%" in good and " ms" in good
        assert "cannot be read" in bad and "To mend" in bad
        assert "no.png" in page.evaluate("document.getElementById('news').textContent")
        assert page.evaluate("document.title").startswith("<script>")
        assert len(page.faults) == 1 and "422" in page.faults[0]  # the browser's own note of the refusal
        for width, scheme in ((390, "dark"), (820, "light"), (1440, "dark")):
            page.show(width, 900, scheme)
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert paper == ("rgb(16, 19, 22)" if scheme == "dark" else "rgb(255, 255, 255)")
        page.screenshot(tmp_path / "page.png")
        page.evaluate("document.getElementById('image').focus()")
        assert page.evaluate("getComputedStyle(document.querySelector('.drop')).outlineStyle") == "solid"
    with Image.open(tmp_path / "page.png") as image:
        assert image.width == 1440 and len(image.convert("RGB").getcolors(1 << 24) or ()) > 50


@only_jax
def test_the_how_to_does_what_it_says(served: Served, tmp_path: Path, monkeypatch, capsys):
    text = HOW_TO.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 25
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks] == ["console", "python"]
    for line in blocks[0][1].splitlines():
        program, *arguments = shlex.split(line.removeprefix("$ "))
        if program == "multitl":
            build_parser().parse_args(arguments)
        else:
            assert program == "curl" and "http://127.0.0.1:8000/predict" in arguments
    make_photos(tmp_path, ["new"], 1)
    (tmp_path / "new" / "00.png").rename(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[1][1].replace("http://127.0.0.1:8000", served.address), HOW_TO.name, "exec"), {})
    assert re.match(r"(cat|dog) 0\.\d+", capsys.readouterr().out)


@only_jax
@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["keras", "onnx"])
def test_the_command_serves_until_it_is_told_to_stop(finished: Path, photos: Path, tmp_path: Path, runtime: str):
    run = tmp_path / "run"
    run.symlink_to(finished)
    if runtime == "onnx":
        assert main(["port", str(run), "--to", "onnx"]) == 0
    none = "" if runtime == "keras" else "multitl.adapters.is_installed = lambda name: False"  # no framework is there
    code = f"import sys, multitl.adapters\n{none}\nfrom multitl.cli.main import main\nsys.exit(main())"
    command = [sys.executable, "-c", code, "serve", str(run), "--port", "0", "--runtime", runtime]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            line = next(line for line in process.stderr if "http://" in line)
            served = Served(int(re.findall(r":(\d+) ", line)[0]))
            for row in multitl.predict(finished, photos / "cat"):
                said = served.predict(Path(row["path"]).read_bytes()).json
                assert same(said, row) and said["plausible"] == row["plausible"]
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
