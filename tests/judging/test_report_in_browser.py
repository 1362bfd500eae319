"""The report in a real headless Chromium: nothing fails to load, nothing overflows, everything is drawn and legible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from headless_browser import BROWSER, browse, measure
from PIL import Image
from sample_runs import CLOTHES, HOSTILE, hostile_run, make_label_run, make_run

from multitl.judging.reporting import write_report

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt install chromium)")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pictures, mistakes, a warning, two phases."""
    folder, random = tmp_path_factory.mktemp("looks"), np.random.default_rng(0)
    for split in ("validation", "test"):
        for name in CLOTHES:
            (folder / "photos" / split / name).mkdir(parents=True)
            for i in range(80):
                pixels = random.integers(0, 255, (30, 40, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"photos/{split}/{name}/{i:04}.png")
    return write_report(make_run(folder / "run", folder / "photos", warnings=["2 images are in train and in test."]))


@pytest.mark.parametrize("width", [360, 390, 700, 1280])
def test_it_fits_any_width(report: Path, tmp_path: Path, width: int) -> None:
    found = measure(report, width, tmp_path)
    assert found["console"] == []
    assert found["overflow"] <= 0
    assert found["outside"] == []
    assert len(found["pictures"]) >= 12 and all(found["pictures"])
    assert len(found["sections"]) == 8
    assert min(found["sections"]) > 60
    assert len(found["curves"]) == 5
    assert min(found["curves"]) > 100


@pytest.mark.parametrize(("scheme", "is_dark"), [("1", False), ("0", True)])
def test_text_has_contrast_in_light_and_dark(report: Path, tmp_path: Path, scheme: str, is_dark: bool) -> None:
    found = measure(report, 1280, tmp_path, f"--blink-settings=preferredColorScheme={scheme}")
    assert (sum(found["paper"]) < 150) == is_dark
    assert found["leastContrast"]["ratio"] >= 4.5, found["leastContrast"]


@pytest.mark.parametrize(("names", "width"), [(CLOTHES, 360), (CLOTHES, 1280), (HOSTILE, 390)])
def test_the_page_of_several_labels_fits_too(tmp_path: Path, names: tuple[str, ...], width: int) -> None:
    report = write_report(make_label_run(tmp_path / "run", tmp_path / "photos", names))
    found = measure(report, width, tmp_path)
    assert found["console"] == [] and found["overflow"] <= 0 and found["outside"] == []
    assert len(found["sections"]) == 5 and min(found["sections"]) > 60
    assert found["leastContrast"]["ratio"] >= 4.5, found["leastContrast"]
    assert found["title"] == "around"


def test_hostile_names_run_nothing_and_break_nothing(tmp_path: Path) -> None:
    found = measure(write_report(hostile_run(tmp_path / "run")), 390, tmp_path)
    assert found["title"] == "around"
    assert found["console"] == []
    assert found["overflow"] <= 0
    assert found["outside"] == []


def test_fifty_classes_fit(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tmp_path, [f"a kind of thing {i}" for i in range(50)], per_class=6)
    for width in (390, 1280):
        found = measure(write_report(run), width, tmp_path)
        assert found["overflow"] <= 0
        assert found["outside"] == []


def test_a_screenshot_is_not_blank(report: Path, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    arguments = (f"--screenshot={picture}", "--window-size=1280,3000", f"file://{report}")
    _, console = browse(*arguments, profile=tmp_path / "profile")
    assert console == []
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(np.int32) @ [1 << 16, 1 << 8, 1]
    assert pixels.shape == (3000, 1280)
    assert len(np.unique(pixels)) > 1000
    for band in np.split(pixels, 6):  # something is drawn in every part of the page
        assert 0.01 < (band != 0xFFFFFF).mean() < 0.8


def test_these_tests_would_notice_a_script_an_error_and_a_wide_element(report: Path, tmp_path: Path) -> None:
    text = report.read_text(encoding="utf-8")
    bad = tmp_path / "bad.html"
    bad.write_text(text.replace("</main>", '<script>alert(1)</script><p style="width:2000px">wide</p></main>'))
    found = measure(bad, 390, tmp_path)
    assert any("Content Security Policy" in line for line in found["console"])
    assert found["overflow"] > 0
    assert found["outside"]
