"""bench.html and RESULTS.md: complete, escaped, and looked at in a real headless Chromium."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from headless_browser import BROWSER, browse, measure
from PIL import Image
from sample_benches import check, job, race, results

from multitl.bench.board import print_standings
from multitl.bench.jobs import Record
from multitl.bench.markdown import to_markdown
from multitl.bench.notes import warnings_of
from multitl.bench.page import draw_bars, to_page
from multitl.bench.standings import rank

RATES = {
    "torch": [9.0, 9.3, 8.8], "native-torch": [10.0, 10.1, 9.9], "jax": [4.0, 4.1, 4.0], "native-jax": [4.2, 4.0, 4.1],
    "textbook": [5.0, 5.2, 4.9],
}  # fmt: skip
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt install chromium)")
HOSTILE = '<script>document.title="owned"</script>‮"\'&'


def records() -> list[Record]:
    whole = dataclasses.replace(job("textbook"), stage="job")
    jobs = [
        Record(
            dataclasses.replace(whole, cell=dataclasses.replace(whole.cell, contender=name)),
            seconds={"job": seconds}, curve=[[seconds / 2, 0.8], [seconds, 0.9]], note=note,
        ) for name, seconds, note in (("torch", 40.0, ""), ("textbook", 400.0, "extrapolated from 2 of 10 epochs"))
    ]  # fmt: skip
    failed = Record(job("native-tf", "check", -1), "crashed", HOSTILE)
    return [failed, check("native-tf-xla", shift=0.5), *race(RATES), *jobs]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "bench.html"
    path.write_text(to_page(results(records()), "multitl bench"), encoding="utf-8")
    return path


def test_the_page_says_who_and_why_not(page: Path):
    text = page.read_text(encoding="utf-8")
    for said in ("9.00 (8.80–9.30)", "crashed", "disagrees", "extrapolated from 2 of 10 epochs", "AMD EPYC &lt;9&gt;"):
        assert said in text
    assert "default-src 'none'" in text
    assert "<script" not in text


def test_the_page_reads_well(page: Path):
    text = page.read_text(encoding="utf-8")
    assert "<code>multitl finetune</code>" in text and "`" not in text.partition("<main>")[2]


def test_figures_of_a_busy_machine_are_doubted_at_the_top(capsys: pytest.CaptureFixture[str]):
    idle, busy = results(records()), results(records())
    busy.head["machine"] |= {"load": 7.1}
    (warning,) = warnings_of(busy.head)
    assert warning.startswith("The machine was busy when this began: a load of 7.1 on 2 cores.")
    assert warning in to_page(busy, "").partition('<section class="arena">')[0]
    assert warning in to_markdown(busy, "").partition("##")[0]
    print_standings(rank(busy.records), [warning])
    assert capsys.readouterr().out.startswith(f"warning: {warning}")
    assert warnings_of(idle.head) == [] and "was busy" not in to_page(idle, "")


def test_nothing_measured_is_not_called_never():
    text = to_markdown(results([check("jax")]), "")
    assert "of which none was measured" in text and "never" not in text


def test_the_bars_are_as_long_as_their_numbers():
    rows = [(name, [(length, "ours")], None, str(length)) for name, length in (("a", 10.0), ("b", 5.0))]
    chart = draw_bars("Images", rows)
    assert chart is not None
    first, second = (bar.parts[0].width for bar in chart.bars)
    assert first == pytest.approx(2 * second, rel=1e-3)
    assert draw_bars("Images", []) is None


def test_the_markdown_has_all_figures_and_names_the_machine():
    text = to_markdown(results(records()), "multitl bench --budget 60")
    assert "`multitl bench --budget 60`" in text
    assert "AMD EPYC" in text
    assert "| native-torch | 10.00 (9.90–10.10) | 1.00 [" in text
    assert "**crashed**" in text
    assert "| textbook | 400.0 |" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| ")}
    assert len(widths) == 2  # two tables, none of them ragged


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_any_width_and_nothing_runs(page: Path, tmp_path: Path, width: int):
    found = measure(page, width, tmp_path)
    assert found["console"] == []
    assert found["title"] == "around"
    assert found["overflow"] <= 0
    assert found["outside"] == []
    assert min(found["curves"]) > 5
    assert found["leastContrast"]["ratio"] >= 4.5, found["leastContrast"]


@needs_browser
def test_a_screenshot_is_not_blank(page: Path, tmp_path: Path):
    picture = tmp_path / "bench.png"
    browse(f"--screenshot={picture}", "--window-size=1280,1400", f"file://{page}", profile=tmp_path / "profile")
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(np.int32) @ [1 << 16, 1 << 8, 1]
    assert len(np.unique(pixels)) > 200
    for band in np.split(pixels, 4):
        assert 0.01 < (band != 0xFFFFFF).mean() < 0.8
