"""A mistake that needs no framework to be found is found before one is loaded, and before an image is decoded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from errors_quick import CASES, furnish

import multitl
from multitl.errors import BackboneError, DataError, MultitlError, PortError, RecipeError, RunError, WeightsError

TYPED = """
import contextlib, io, json, shlex, sys
from multitl.cli.main import main
from multitl.data import images
def refuse(*arguments):
    raise AssertionError("an image was decoded")
images.check_image = images.open_rgb = images.decode_pixels = refuse
found = {}
for typed in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            code = main(shlex.split(typed))
        except SystemExit as ended:
            code = ended.code
    loaded = sorted({"keras", "jax", "tensorflow", "torch"} & set(sys.modules))
    found[typed] = code, said.getvalue(), loaded
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[str]]]:
    """What was typed -> exit code, message, frameworks that were loaded by then."""
    folder = tmp_path_factory.mktemp("mistakes")
    furnish(folder)
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run([sys.executable, "-c", TYPED, json.dumps(list(CASES))], cwd=folder, env=environment,
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("typed", CASES)
def test_a_mistake_is_told_before_a_framework_loads(answers: dict[str, tuple[int, str, list[str]]], typed: str):
    code, said, loaded = answers[typed]
    assert (code, loaded) == (2, [])
    assert CASES[typed] in said


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: multitl.load_pretrained("keras/ResNet51"), BackboneError),
        (lambda: multitl.load_pretrained("keras/ResNet50", weights="nowhere.h5"), WeightsError),
        (lambda: multitl.load_pretrained("keras/ResNet50", head="kept"), BackboneError),
        (lambda: multitl.finetune("phots"), DataError),
        (lambda: multitl.finetune("photos", class_weights="cat=2,dgo=1"), RecipeError),
        (lambda: multitl.finetune("photos", costs="nowhere.csv"), RecipeError),
        (lambda: multitl.predict("run", "photos", costs=",cat,cow\ncat,0,1\ncow,1,0\n"), RecipeError),
        (lambda: multitl.choose("photos", ["keras/ResNet51"]), BackboneError),
        (lambda: multitl.predict("rum", "photos"), RunError),
        (lambda: multitl.predict("run", "phots"), DataError),
        (lambda: multitl.evaluate("rum", "photos"), RunError),
        (lambda: multitl.evaluate("run", "photos", split="tset"), DataError),
        (lambda: multitl.translate("keras/ResNet51", "out"), BackboneError),
        (lambda: multitl.port("run", "onx"), PortError),
        (lambda: multitl.port("torchvision/resnet18", "litert-int8"), MultitlError),
    ],
)
def test_so_it_is_in_python(call, error: type[MultitlError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)

    def load_backend(requested=None):
        raise AssertionError("a framework is loaded")

    monkeypatch.setattr(multitl, "load_backend", load_backend)
    with pytest.raises(error):
        call()
