"""`multitl compare`: which images runs share, what is refused, and what is said of it in each of its forms."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import keras
import pytest
from headless_browser import BROWSER, browse, measure
from PIL import Image
from quick_runs import message_of
from sample_runs import CLOTHES, HOSTILE, hostile_run, make_label_run, make_number_run, make_photos_of_clothes, make_run

import multitl
from multitl.cli.main import main
from multitl.errors import RunError
from multitl.judging.comparison import compare_runs

if keras.config.backend() != "jax":
    pytest.skip("no framework is asked here", allow_module_level=True)

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "compare-runs.md"
SECOND = {"seed": 8, "noise": 0.25, "phases": [("head", 1)]}
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (Debian: apt install chromium)")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """With pictures. Not to be changed: damage a copy."""
    folder = tmp_path_factory.mktemp("compared")
    photos = make_photos_of_clothes(folder / "photos")
    return make_run(folder / "first", photos), make_run(folder / "second", photos, **SECOND)


@pytest.fixture(scope="module")
def page(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "out"
    multitl.compare(runs, output=out)
    return out / "compare.html"


def edit(path: Path, change: Callable[[list[dict[str, str]]], object]) -> None:
    """Change the rows of predictions.csv."""
    with (path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with (path / "predictions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_what_is_returned_is_compare_json(page: Path, runs: tuple[Path, Path]):
    found = json.loads((page.parent / "compare.json").read_text())
    assert [run["letter"] + run["name"] for run in found["runs"]] == ["Afirst", "Bsecond"]
    metrics = json.loads((runs[0] / "metrics.json").read_text())["test"]
    accuracy = found["runs"][0]["figures"]["accuracy"]
    assert (accuracy["value"], accuracy["interval"]) == (metrics["accuracy"], metrics["accuracy_ci"])
    (pair,) = found["pairs"]
    assert pair["images"] == found["images"] == 80
    assert sum(pair[name] for name in ("both", "neither", "only_first", "only_second")) == 80
    assert found["options"] == {} and found["split"] == "test"


def test_classes_in_another_order_are_the_same_classes(tmp_path: Path):
    def predictions(names: tuple[str, ...], folder: Path) -> Path:
        run = make_run(folder, tmp_path, CLOTHES)
        card = json.loads((run / "card.json").read_text())
        card["data"]["class_names"] = list(names)
        (run / "card.json").write_text(json.dumps(card))
        metrics = json.loads((run / "metrics.json").read_text())
        for figures in metrics.values():
            figures["per_class"].sort(key=lambda row: names.index(row["class"]))
        (run / "metrics.json").write_text(json.dumps(metrics))
        header, *rest = (run / "predictions.csv").read_text().splitlines()
        order = [*range(5), *(5 + CLOTHES.index(name) for name in names)]
        lines = [",".join(line.split(",")[place] for place in order) for line in [header, *rest]]
        (run / "predictions.csv").write_text("\n".join(lines) + "\n")
        return run

    found = compare_runs([predictions(CLOTHES, tmp_path / "a"), predictions(CLOTHES[::-1], tmp_path / "b")])
    assert found.entries[1].predictions.class_names == CLOTHES
    assert all(one.difference == 0 for one in found.pairs[0].duel.differences.values())


def test_images_are_matched_by_path_and_label(tmp_path: Path):
    first = make_run(tmp_path / "a", tmp_path)
    second = make_run(tmp_path / "b", tmp_path)

    def change(rows: list[dict[str, str]]) -> None:
        of_test = [row for row in rows if row["split"] == "test"]
        of_test[0]["path"] = str(tmp_path / "other.png")
        of_test[1]["label"] = CLOTHES[3]

    edit(second, change)
    found = multitl.compare([first, second], output=tmp_path / "out")
    assert (found["pairs"][0]["images"], found["pairs"][0]["relabelled"], found["images"]) == (78, 1, 78)
    text = (tmp_path / "out" / "compare.html").read_text()
    assert "not judged on the same images" in text and "1 images have one label in A and another in B" in text


def move(run: Path) -> Path:
    edit(run, lambda rows: [row.update(path=row["path"] + "x") for row in rows])
    return run


@pytest.mark.parametrize(
    ("other", "problem", "received"),
    [
        (lambda first, folder: first, "One run has nothing to be compared with", "a, "),
        (lambda first, folder: make_run(folder, first, [*CLOTHES[:3], "boat"]), "different classes", "boat"),
        (lambda first, folder: make_label_run(folder, first), "different questions", "several"),
        (lambda first, folder: move(make_run(folder, first.parent)), "not judged on the same", "of which 0"),
        (lambda first, folder: folder, "There is no run folder", "b"),
    ],
    ids=["itself", "classes", "goals", "images", "missing"],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, other: Callable, problem: str, received: str):
    first = make_run(tmp_path / "a", tmp_path)
    with pytest.raises(RunError) as caught:
        multitl.compare([first, other(first, tmp_path / "b")], output=tmp_path / "out")
    assert problem in caught.value.problem and received in caught.value.received
    assert not (tmp_path / "out").exists()


def test_the_command_prints_both_tables_and_keeps_what_is_there(runs, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *map(str, runs)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"A first +80 +0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", out)
    assert re.search(r"B - A +80 +-?0\.\d{3} \[", out) and "page  runs/compare-first-second/compare.html" in out
    again = main(["compare", *map(str, runs)])
    assert "add --overwrite" in message_of(again, *capsys.readouterr())
    assert main(["compare", *map(str, runs), "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 80
    assert "and is no comparison" in message_of(
        main(["compare", *map(str, runs), "--out", str(runs[0])]), *capsys.readouterr()
    )


@pytest.mark.parametrize("make", [make_label_run, make_number_run])
def test_labels_and_numbers_have_their_own_figures(make: Callable, tmp_path: Path):
    first, second = make(tmp_path / "a", tmp_path), make(tmp_path / "b", tmp_path, noise=0.4)
    found = multitl.compare([first, second], output=tmp_path / "out")
    name = "mae" if make is make_number_run else "map"
    assert next(iter(found["pairs"][0]["differences"])) == name
    text = (tmp_path / "out" / "compare.html").read_text()
    assert ("sign test" in text) == (make is make_number_run) and "is better than" in text


def test_the_page_does_what_it_says(runs, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name, run in zip(("head", "deeper"), runs, strict=True):
        (tmp_path / "runs" / name).symlink_to(run)
    text = HOW_TO.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 25
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks] == ["console", "python"]
    for line in blocks[0][1].splitlines():
        assert main(shlex.split(line.removeprefix("$ multitl "))) == 0
    exec(compile(blocks[1][1], HOW_TO.name, "exec"), {})
    assert "accuracy" in capsys.readouterr().out


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(390, "0"), pytest.param(820, "1", marks=pytest.mark.slow), (1440, "1")])
def test_it_fits_any_width_in_light_and_dark(page: Path, tmp_path: Path, width: int, scheme: str):
    found = measure(page, width, tmp_path, f"--blink-settings=preferredColorScheme={scheme}")
    assert found["console"] == [] and found["overflow"] <= 0 and found["outside"] == []
    assert len(found["sections"]) == 5 and min(found["sections"]) > 60
    assert len(found["curves"]) == 8 and found["pictures"] and all(found["pictures"])  # two charts, and their keys
    assert found["leastContrast"]["ratio"] >= 4.5, found["leastContrast"]


@needs_browser
@pytest.mark.slow
def test_hostile_names_run_nothing_and_break_nothing(tmp_path: Path):
    first, second = hostile_run(tmp_path / "a"), hostile_run(tmp_path / "b'\"<i>")
    edit(second, lambda rows: [row.update({f"p:{HOSTILE[0]}": "0.9"}) for row in rows])
    multitl.compare([first, second], output=tmp_path / "out")
    found = measure(tmp_path / "out" / "compare.html", 390, tmp_path)
    assert found["title"] == "around" and found["console"] == []
    assert found["overflow"] <= 0 and found["outside"] == []


@needs_browser
@pytest.mark.slow
def test_a_screenshot_is_not_blank(page: Path, tmp_path: Path):
    picture = tmp_path / "page.png"
    _, console = browse(f"--screenshot={picture}", "--window-size=1440,2000", f"file://{page}", profile=tmp_path / "p")
    assert console == []
    with Image.open(picture) as image:
        assert image.size == (1440, 2000) and len(image.convert("RGB").getcolors(1 << 24) or ()) > 200
