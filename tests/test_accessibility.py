"""Every page that people look at, judged by axe-core in a real browser: nothing serious, at any width, light or dark.

Slow, since axe-core comes from the npm registry: `pytest -m slow tests/test_accessibility.py`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest
from headless_browser import BROWSER
from PIL import Image
from sample_runs import make_photos_of_clothes, make_run

pytest.importorskip("starlette", reason="the extra serve is not installed")

from driven_browser import Tab, tab
from served_runs import serving

import multitl
from multitl.judging.reporting import write_report
from multitl.serving.answerers import answerer_of

if keras.config.backend() != "jax":
    pytest.skip("no framework is asked here", allow_module_level=True)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt install chromium)"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="no npm is installed, which axe-core comes by"),
]
AXE = "axe-core@4.14.1"
LOOKS = [(width, scheme) for width in (390, 820, 1440) for scheme in ("light", "dark")]
GRAVE = ("serious", "critical")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program that judges a page, as text."""
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(["npm", "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"the npm registry gave no {AXE}: {done.stderr[-300:]}")
    shutil.unpack_archive(next(folder.glob("*.tgz")), folder)
    return (folder / "package" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Tab]:
    with tab(tmp_path / "profile") as page:
        yield page


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two, with pictures."""
    folder = tmp_path_factory.mktemp("looked-at")
    photos = make_photos_of_clothes(folder / "photos")
    return [make_run(folder / "first", photos), make_run(folder / "second", photos, seed=8, noise=0.25)]


def grave(page: Tab, axe: str) -> list[str]:
    """What is serious or worse in the page as it is, in each look: the rule and the first element it is broken by."""
    page.evaluate(axe)
    found = []
    for width, scheme in LOOKS:
        page.show(width, 900, scheme)
        said = page.evaluate("axe.run().then(found => JSON.stringify(found.violations))")
        for rule in json.loads(said):
            if rule["impact"] in GRAVE:
                found.append(f"{width} {scheme}: {rule['id']}: {rule['nodes'][0]['html'][:200]}")
    return found


def test_the_report(page: Tab, axe: str, runs: list[Path]):
    page.open(write_report(runs[0]).as_uri())
    assert grave(page, axe) == []


def test_the_comparison(page: Tab, axe: str, runs: list[Path], tmp_path: Path):
    multitl.compare(runs, output=tmp_path / "out")
    page.open((tmp_path / "out" / "compare.html").as_uri())
    assert grave(page, axe) == []


def test_the_page_of_serve(page: Tab, axe: str, finished: Path, photos: Path):
    """Before an image, and with an answer."""
    with serving(answerer_of(finished, "keras", None)) as served:
        page.open(served.address)
        assert grave(page, axe) == []
        page.choose("#image", photos / "cat" / "00.png")
        page.evaluate("new Promise(go => setInterval(() => document.querySelector('.answer') && go(), 20))")
        assert grave(page, axe) == []


def test_the_documentation(page: Tab, axe: str, tmp_path: Path):
    """Its front page, one with code, and the longest table."""
    pytest.importorskip("furo")
    command = [sys.executable, str(ROOT / "docs" / "build_site.py"), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for name in ("index", "tutorial", "reference/every-option"):
        page.open((tmp_path / "site" / "docs" / f"{name}.html").as_uri())
        assert grave(page, axe) == [], name


def test_these_tests_would_notice_a_picture_without_words_and_pale_text(page: Tab, axe: str, tmp_path: Path):
    bad = tmp_path / "bad.html"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    words = '<main><h1>Bad</h1><img src="a.png"><p style="color:#ccc;background:#fff">pale</main>'
    bad.write_text(f'<!doctype html><html lang="en"><title>bad</title>{words}')
    page.open(bad.as_uri())
    said = " ".join(grave(page, axe))
    assert "image-alt" in said and "color-contrast" in said
