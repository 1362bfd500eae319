"""The report: what it says, and that it is safe and self-contained. How it looks: test_report_in_browser.py."""

from __future__ import annotations

import html.parser
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_runs import CLOTHES, HOSTILE, hostile_run, make_run

from multitl.errors import RunError
from multitl.judging.reporting import show_date, show_duration, show_interval, show_percent, write_report
from multitl.system.writing import write_json


class Page(html.parser.HTMLParser):
    """A page's tags with their attributes, its visible text, and its unclosed tags."""

    VOID = frozenset({"meta", "link", "img", "br", "path", "rect"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures where `make_run` says that test and validation images are."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split in ("validation", "test"):
        for name in CLOTHES:
            (root / split / name).mkdir(parents=True)
            for i in range(80):
                Image.fromarray(random.integers(0, 255, (12, 16, 3), np.uint8)).save(
                    root / f"{split}/{name}/{i:04}.png"
                )
    return root


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Path:
    folder = tmp_path / "run"
    return make_run(folder, photos)


def test_the_page_says_what_the_files_say(run: Path, photos: Path) -> None:
    report = write_report(run)
    assert report == run / "report.html"
    page, metrics = Page(report), json.loads((run / "metrics.json").read_text())["test"]
    assert page.open == []
    for name in ("accuracy", "f1_macro", "ece"):
        assert show_percent(metrics[name]) in page.words
        assert show_interval(metrics[f"{name}_ci"]) in page.words
    right = round(metrics["accuracy"] * metrics["count"])
    assert f"{right} of 80 test images got the right name" in page.text
    assert (
        f"efficientnet_lite0 → {json.loads((run / 'card.json').read_text())['data']['path'].split('/')[-1]}"
        in page.text
    )
    assert "JAX on CPU" in page.text
    assert "23 November 2026, 20:44 UTC" in page.text
    assert "--recipe recipe.toml --learning-rate 0.001 --steps 8 --budget none --backend jax --out again" in page.text


def test_every_figure_is_there(run: Path) -> None:
    page = Page(write_report(run))
    names = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {name for name in names if not name.startswith("picture-")} == {
        "training", "confusion", "classes", "map", "calibration", "pictures", "data", "making"
    }  # fmt: skip
    labels = [attributes["aria-label"] for attributes in page.all("svg", role="img")]
    for words in (
        "Loss of training",
        "Accuracy of training",
        "Reliability diagram",
        "Accuracy on the surest",
        "macro F1",
    ):
        assert any(words in label for label in labels), words
    mistakes = [image for image in page.all("img") if "called" in image["alt"]]
    typical = [image for image in page.all("img") if "called" not in image["alt"]]
    assert 12 <= len(mistakes) <= 18 and len(typical) == 2 * len(CLOTHES)
    for image in page.all("img"):
        assert image["src"].startswith("data:image/jpeg;base64,")
        assert re.fullmatch(r"test/(\w+)/\d+\.png(: \1, called \w+)?", image["alt"])
    assert [Path(image["alt"]).parts[1] for image in typical] == sorted(2 * CLOTHES)
    assert len(page.all("circle", class_="kept")) == 3  # the key, and one mark in each chart


def test_the_confusion_matrix_is_the_one_in_the_metrics(run: Path) -> None:
    text = write_report(run).read_text()
    table = re.search(r'<table class="confusion.*?</table>', text, re.DOTALL)
    assert table
    rows = re.findall(r'<tr><th scope="row".*?</tr>', table[0], re.DOTALL)
    shown = [[int(cell or 0) for cell in re.findall(r"<td[^>]*>(?:<a[^>]*>)?(\d*)(?:</a>)?</td>", row)] for row in rows]
    assert shown == json.loads((run / "metrics.json").read_text())["test"]["confusion_matrix"]


def test_the_page_loads_and_runs_nothing(run: Path) -> None:
    page, text = Page(write_report(run)), (run / "report.html").read_text()
    assert not page.all("script")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    loads = [
        attributes[name] for _, attributes in page.tags for name in ("src", "href", "srcset") if name in attributes
    ]
    assert {link.partition(":")[0] if ":" in link else link[0] for link in loads} == {"data", "#"}
    assert "url(" not in text
    assert "@import" not in text
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in policy[0]["content"]


def test_names_from_users_stay_text(tmp_path: Path) -> None:
    page = Page(write_report(hostile_run(tmp_path / "run")))
    assert not page.all("script")
    assert not page.all("i") or all("class" in tag or "style" in tag for tag in page.all("i"))
    assert not page.all("u")
    assert not page.all("img")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}{% raw %}" in page.text
    assert HOSTILE[0] in page.text


def test_a_file_name_that_is_not_utf_8_becomes_a_question_mark(tmp_path: Path) -> None:
    images = {name: [f"test/{name}/\udcff{i}.png" for i in range(20)] for name in CLOTHES}
    text = write_report(make_run(tmp_path / "run", tmp_path, images=images)).read_text(encoding="utf-8")
    assert re.search(r"\?\d+\.png", text)


def test_validation_stands_in_for_a_missing_test_split(tmp_path: Path, photos: Path) -> None:
    page = Page(write_report(make_run(tmp_path / "run", photos, with_test=False)))
    assert "No test images. Every figure on this page comes from the validation images" in page.text
    assert "on 80 validation images" in page.text
    assert "test images got" not in page.text


@pytest.mark.parametrize("with_test", [True, False])
def test_sets_are_judged_on_images_that_did_not_make_them(tmp_path: Path, photos: Path, with_test: bool) -> None:
    run = make_run(tmp_path / "run", photos, with_test=with_test)
    card = json.loads((run / "card.json").read_text())
    write_json(run / "card.json", card | {"plausible": {"coverage": 0.9, "least": 0.1}})
    assert ("Sets of plausible classes hold the true one" in Page(write_report(run)).text) == with_test


def test_without_mistakes_the_closest_calls_are_shown(tmp_path: Path, photos: Path) -> None:
    page = Page(write_report(make_run(tmp_path / "run", photos, CLOTHES[:2], skill=6, noise=0.05)))
    assert "40 of 40 test images got the right name, all of them. Even so, up to 7.2% of new images" in page.text
    assert "Closest calls" in page.text
    assert "No test image was named wrongly" in page.text
    assert "Most often confused" not in page.text
    assert len(page.all("img")) == 12 + 2 * 2
    assert not page.all("li", id="picture-12") and "#picture-" not in (tmp_path / "run" / "report.html").read_text()


def test_a_picture_that_is_gone_leaves_a_placeholder(tmp_path: Path) -> None:
    page = Page(write_report(make_run(tmp_path / "run", tmp_path / "nowhere")))
    assert not page.all("img")
    assert len(page.all("div", class_="gone")) == 2 * len(CLOTHES) + len(
        [tag for name, tag in page.tags if tag.get("id", "").startswith("picture-")]
    )


def test_cells_of_the_matrix_lead_to_their_pictures(run: Path) -> None:
    page = Page(write_report(run))
    targets = {tag["id"] for name, tag in page.tags if name == "li" and "id" in tag}
    links = [tag["href"] for tag in page.all("a") if tag["href"].startswith("#picture-")]
    assert links and {link[1:] for link in links} <= targets and len(set(links)) == len(links)
    commonest = re.search(r'<ol class="pairs">.*?</ol>', (run / "report.html").read_text(), re.DOTALL)
    assert commonest and commonest[0].count("<li>") <= len(links)


@pytest.mark.parametrize("count", [50, 130])
def test_many_classes(tmp_path: Path, count: int) -> None:
    names = [f"class {i}" for i in range(count)]
    report = write_report(make_run(tmp_path / "run", tmp_path, names, per_class=4, skill=2.0))
    rows = re.findall(r'<tr><th scope="row" title="[^"]*, \d+ images"', report.read_text())
    assert len(rows) == 50
    assert ("the 50 classes with the most mistakes; 80 others" in Page(report).text) == (count == 130)
    assert report.stat().st_size < 1_500_000


@pytest.mark.parametrize("phases", [[], [("head", 1)], [("finetune", 3)], [("head", 300), ("finetune", 20)]])
def test_any_number_of_epochs_and_phases(tmp_path: Path, phases: list[tuple[str, int]]) -> None:
    page = Page(write_report(make_run(tmp_path / "run", tmp_path, phases=phases)))
    assert page.open == []
    assert ("No epoch was trained." in page.text) == (not phases)
    assert ("fine-tuning" in page.text) == (len(phases) == 2)  # the bands' names


def test_the_race_is_shown(tmp_path: Path) -> None:
    page = Page(write_report(make_run(tmp_path / "run", tmp_path)))
    assert "Then last:2 was trained for 8 steps" in page.text and "divided by 1.75" in page.text
    assert "last:2 kept 0.001 8 0.1900 95.0% +0.060 ± 0.020 better" in page.text
    assert "last:2 0.001 16 0.1900 91.0% -0.030 ± 0.020 worse" in page.text


def test_a_race_that_nobody_won_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tmp_path, phases=[("head", 3), ("finetune", 2)])
    card = json.loads((run / "card.json").read_text())
    card["trials"] = {"kept": 0, "finished": True, "tried": [
        {"unfreeze": "all", "learning_rate": 1e-3, "steps": 160, "outcome": "diverged", "seconds": 1.0}]}  # fmt: skip
    (run / "card.json").write_text(json.dumps(card))
    page = Page(write_report(run))
    assert "None beat the head on the frozen backbone by more than noise" in page.text
    assert "all 0.001 160 – – – diverged" in page.text
    assert "fine-tuning" not in page.text  # the chart is of what was kept


def test_the_same_files_give_the_same_page(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


@pytest.mark.parametrize("name", ["card.json", "metrics.json", "history.csv", "predictions.csv"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other", "pipe", "endless"])
def test_a_missing_or_damaged_file_is_named(run: Path, name: str, damage: str) -> None:
    path = run / name
    content = path.read_text()
    path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    elif damage == "endless":
        path.symlink_to("/dev/zero")
    elif damage != "missing":
        other = "{}" if name.endswith("json") else "a,b\n1,2\n"
        path.write_text({"empty": "", "cut": content[: len(content) // 2 + 7], "other": other}[damage])
    with pytest.raises(RunError, match=r"Cannot read|do not belong together"):
        write_report(run)


def test_predictions_cut_off_between_two_lines_are_missed(run: Path) -> None:
    path = run / "predictions.csv"
    header, *rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join([header, *(row for row in rows if not row.startswith("test"))]))
    with pytest.raises(RunError, match=r"0 predictions for \d+ test images"):
        write_report(run)


def test_an_unwritable_folder_is_a_run_error(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(RunError, match="No space left"):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0%"),
        (1, "100%"),
        (0.9996, "99.9%"),
        (0.0002, "0.1%"),
        (0.5, "50.0%"),
        (0.72449, "72.4%"),
        (0.9625, "96.3%"),
    ],
)
def test_percent(share: float, text: str) -> None:
    assert show_percent(share) == text


def test_durations_and_dates() -> None:
    assert [show_duration(s) for s in (0.04, 9.96, 59.6, 312, 7500)] == [
        "0.0 s",
        "10 s",
        "1 min 0 s",
        "5 min 12 s",
        "2 h 5 min",
    ]
    assert show_date("2026-01-05T07:03:00+00:00") == "5 January 2026, 07:03 UTC"
    assert show_date("yesterday") == "yesterday"
