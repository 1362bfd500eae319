"""Runs that go on from others: the same images again, more of them, new classes, classes that are gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from small_backbones import save_backbone

import multitl
from multitl.cli.main import main
from multitl.contracts import Result
from multitl.errors import MultitlError, RecipeError, RunError
from multitl.judging.predictions import read_predictions
from multitl.models.heads import build_head
from multitl.recipes import Recipe
from multitl.runs.cards import Start as AboutStart
from multitl.runs.images import content_of, read_images
from multitl.system.hashes import file_sha256
from multitl.training.starts import open_start

COLOURS = {
    "blue": (40, 40, 220), "cyan": (40, 200, 220), "green": (40, 200, 40), "red": (220, 40, 40),
    "white": (200, 200, 200), "yellow": (220, 200, 40), "violet": (160, 40, 220),
}  # fmt: skip
FIVE, SEVEN = tuple(COLOURS)[:5], tuple(sorted(COLOURS))
FROZEN = {"unfreeze": "none", "preprocess": "unit"}
DEEP = {
    "unfreeze": "all",
    "steps": 24,
    "learning_rate": 1.5e-2,
    "batch_size": 8,
    "budget": "none",
    "preprocess": "unit",
}


def make_photos(root: Path, names: Sequence[str], numbers: range) -> Path:
    """name/NN.png, each the noise of its class and number, whatever else is made."""
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            random = np.random.default_rng([number, *COLOURS[name]])
            noise = random.normal(COLOURS[name], 60, (36, 36, 3))
            Image.fromarray(noise.clip(0, 255).astype("uint8")).save(root / name / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """five/ and seven/ with 15 images a class, those of five/ in both; the backbone's file."""
    root = tmp_path_factory.mktemp("start")
    make_photos(root / "five", FIVE, range(15))
    make_photos(root / "seven", SEVEN, range(15))
    save_backbone(root / "small.keras")
    return root


@pytest.fixture(scope="module")
def frozen(place: Path) -> Result:
    return multitl.finetune(place / "five", backbone=f"file:{place / 'small.keras'}", output=place / "frozen", **FROZEN)


@pytest.fixture(scope="module")
def tuned(place: Path) -> Result:
    """A run whose backbone was trained: with nothing before it, the trial is kept."""
    backbone = f"file:{place / 'small.keras'}"
    made = multitl.finetune(place / "five", backbone=backbone, output=place / "tuned", head_epochs=0, **DEEP)
    trials = multitl.load(made.output).card.trials
    assert trials and trials.kept
    return made


def start_of(result: Result) -> AboutStart:
    start = multitl.load(result.output).card.start
    assert start
    return start


def go_on(data: Path, run: Result, output: Path, **options) -> Result:
    return multitl.finetune(
        data, from_run=str(run.output), output=output, **({"unfreeze": "none", "head_epochs": 60} | options)
    )


@pytest.mark.every_backend
@pytest.mark.parametrize("kind", ["frozen", "tuned"])
def test_the_same_images_again_give_the_same_predictions(
    kind: str, place: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    run = request.getfixturevalue(kind)
    again = go_on(place / "five", run, tmp_path / "again")
    start = start_of(again)
    assert start.head == {"frozen": "solved anew", "tuned": "as it was"}[kind]
    assert (start.kept, start.new, start.dropped) == (FIVE, (), ())
    before, after = (read_predictions(one.output / "predictions.csv") for one in (run, again))
    assert before.paths == after.paths
    np.testing.assert_allclose(after.probabilities, before.probabilities, atol=1e-5)
    old = start.old_test
    assert old and old.before == old.after == run.metrics["test"]["accuracy"]
    assert (old.images, old.gone, old.dropped, old.trained) == (run.metrics["test"]["count"], 0, 0, 0)


@pytest.mark.every_backend
def test_five_classes_then_seven_are_as_good_as_all_at_once(tuned: Result, place: Path, tmp_path: Path):
    more = go_on(place / "seven", tuned, tmp_path / "more")
    recipe = {"backbone": f"file:{place / 'small.keras'}"} | DEEP
    at_once = multitl.finetune(place / "seven", output=tmp_path / "at-once", **recipe)
    start, old = start_of(more), start_of(more).old_test
    assert (start.kept, start.new, start.dropped) == (FIVE, ("violet", "yellow"), ())
    assert start.images == start.known and start.head == "solved anew" and old
    assert old.after >= old.before - 0.01
    for names in (FIVE, start.new):
        assert accuracy_of(more, names) >= accuracy_of(at_once, names) - 0.01
    page = (more.output / "report.html").read_text()
    assert "Goes on from" in page and f"{old.before:.3f} before, {old.after:.3f} now" in page


def accuracy_of(result: Result, names: Sequence[str]) -> float:
    """On the test images of some classes."""
    told = read_predictions(result.output / "predictions.csv").of("test")
    chosen = np.isin(told.labels, [told.class_names.index(name) for name in names])
    return float((told.probabilities.argmax(axis=1) == told.labels)[chosen].mean())


def test_old_images_stay_in_the_part_that_they_were_in(frozen: Result, place: Path, tmp_path: Path):
    """Cut anew, other images of a class that has grown would be its test."""
    make_photos(tmp_path / "grown", SEVEN, range(30))
    grown = go_on(tmp_path / "grown", frozen, tmp_path / "more")
    before, after = ({one.content: one for one in read_images(run.output) or ()} for run in (frozen, grown))
    assert before.keys() < after.keys()
    assert {content: after[content].split for content in before} == {c: one.split for c, one in before.items()}
    splits = [one.split for content, one in after.items() if content not in before and one.label == "blue"]
    assert {part: splits.count(part) for part in ("train", "validation", "test")} == {
        "train": 10, "validation": 2, "test": 3,
    }  # fmt: skip
    assert not [text for text in grown.warnings if "flatter" in text]


@pytest.mark.every_backend
def test_new_images_alone_are_added_to_what_is_known(tuned: Result, place: Path, tmp_path: Path):
    """Three new images a class and none of the old ones: the head is drawn towards the one that saw 12."""
    make_photos(tmp_path / "new", [*FIVE, "yellow"], range(20, 24))
    more = go_on(tmp_path / "new", tuned, tmp_path / "more", validation_fraction=0.3, test_fraction=0.3)
    start, old = start_of(more), start_of(more).old_test
    assert start.head == "drawn towards it" and start.known == 0 and old
    assert old.after >= old.before - 0.05 and old.images == tuned.metrics["test"]["count"]
    assert any("0 of the 60 images" in text for text in more.warnings)


def test_validation_images_that_the_old_head_was_fitted_to_are_told(frozen: Result, place: Path, tmp_path: Path):
    """Solved anew it does not know them."""
    assert not [text for text in go_on(place / "five", frozen, tmp_path / "anew").warnings if "flatter" in text]
    kept = go_on(place / "five", frozen, tmp_path / "kept", dropout=0.1, head_epochs=1)
    (told,) = [text for text in kept.warnings if "flatter" in text]
    count = kept.metrics["validation"]["count"]
    assert f"{count} of the {count} validation images in the end trained the head of {frozen.output}" in told


def test_a_class_without_images_is_left_out_and_named(tuned: Result, place: Path, tmp_path: Path):
    shutil.copytree(place / "five", tmp_path / "four")
    shutil.rmtree(tmp_path / "four" / "cyan")
    four = go_on(tmp_path / "four", tuned, tmp_path / "run")
    start, old = start_of(four), start_of(four).old_test
    assert start.dropped == ("cyan",) and four.class_names == tuple(name for name in FIVE if name != "cyan")
    assert old and old.dropped == 3 and old.images == tuned.metrics["test"]["count"] - 3
    assert start.head in ("as it was", "solved anew") and old.after >= old.before  # among four it is easier
    assert any("No image shows cyan" in text for text in four.warnings)


def test_images_that_are_gone_or_trained_on_are_not_judged_on(frozen: Result, place: Path, tmp_path: Path):
    """Found by content where they were moved; told from those that are not, and from those of another part now."""
    moved = shutil.copytree(frozen.output, tmp_path / "frozen")
    told = read_predictions(moved / "predictions.csv")
    tests = [Path(path) for path in told.of("test").paths]
    text = (moved / "predictions.csv").read_text().replace(str(place / "five"), str(tmp_path / "nowhere"))
    (moved / "predictions.csv").write_text(text)
    for part in ("train", "validation", "test"):
        shutil.copytree(place / "five", tmp_path / "data" / part)
    for path in (place / "five").rglob("*.png"):
        part = "test" if path in tests[2:] else "train" if path in tests[1:2] or path.stem > "05" else "validation"
        for other in {"train", "validation", "test"} - ({part} if path != tests[0] else set()):
            (tmp_path / "data" / other / path.parent.name / path.name).unlink()
    again = multitl.finetune(tmp_path / "data", from_run=str(moved), output=tmp_path / "run", unfreeze="none")
    old = start_of(again).old_test
    assert old and (old.gone, old.trained, old.images) == (1, 1, len(tests) - 2)


def test_a_head_that_is_trained_begins_where_the_old_one_ended(place: Path, tmp_path: Path):
    options = FROZEN | {"hidden": 8, "head_epochs": 2, "backbone": f"file:{place / 'small.keras'}"}
    first = multitl.finetune(place / "five", output=tmp_path / "first", **options)
    start = open_start(Recipe(from_run=str(first.output)))
    assert start
    features = np.random.default_rng(0).uniform(0, 2, (20, 16)).astype("float32")
    head = build_head(features, 7, Recipe(hidden=8), start.fixed)
    start.fill(head, SEVEN)
    new, old = (keras.ops.convert_to_numpy(one(features)) for one in (head, start.head))
    np.testing.assert_allclose(new[:, [SEVEN.index(name) for name in FIVE]], old, rtol=1e-5, atol=1e-5)
    assert not new[:, [SEVEN.index(name) for name in ("violet", "yellow")]].any()
    second = go_on(place / "seven", first, tmp_path / "second")
    assert start_of(second).head == "trained on"
    assert multitl.load(second.output).card.recipe.hidden == 8  # the run's options


def test_options_are_the_runs_unless_others_are_given(frozen: Result, place: Path, tmp_path: Path):
    again = go_on(place / "five", frozen, tmp_path / "again", l2=0.05)
    recipe = Recipe.read(again.output / "recipe.toml")
    earlier = Recipe.read(frozen.output / "recipe.toml")
    assert recipe.differences(earlier) == {"l2": (0.05, 0.0), "from_run": (str(frozen.output), "")}


def test_a_run_of_an_older_version_is_gone_on_from(frozen: Result, place: Path, tmp_path: Path):
    older = shutil.copytree(frozen.output, tmp_path / "older")
    (older / "images.csv").unlink()
    again = multitl.finetune(place / "five", from_run=str(older), output=tmp_path / "again", unfreeze="none")
    start = start_of(again)
    assert start.head == "solved anew" and start.images is None
    assert start.old_test and start.old_test.images == frozen.metrics["test"]["count"]


def test_it_is_resumed_unless_the_first_run_has_changed(tuned: Result, place: Path, tmp_path: Path):
    first = shutil.copytree(tuned.output, tmp_path / "first")
    arguments = {"from_run": str(first), "output": tmp_path / "second", "unfreeze": "none", "head_epochs": 60}
    whole = multitl.finetune(place / "seven", **arguments)
    answers = (whole.output / "predictions.csv").read_bytes()
    (whole.output / "card.json").unlink()  # as if it had been killed
    multitl.finetune(place / "seven", **arguments, resume=True)
    assert (whole.output / "predictions.csv").read_bytes() == answers
    (whole.output / "card.json").unlink()
    known = json.loads((whole.output / "run.json").read_text())
    assert known["from_sha256"] == file_sha256(first / "model.keras")
    (whole.output / "run.json").write_text(json.dumps(known | {"from_sha256": "0" * 64}))
    with pytest.raises(RunError, match="The run that it goes on from changed"):
        multitl.finetune(place / "seven", **arguments, resume=True)


@pytest.mark.parametrize(
    ("options", "kind", "problem"),
    [
        ({"backbone": "keras/MobileNet"}, RecipeError, "has its backbone"),
        ({"pooling": "max"}, RecipeError, "has its pooling"),
        ({"image_size": 64}, RecipeError, "has its image_size"),
        ({"output": "SELF", "overwrite": True}, RunError, "cannot take the place"),
        ({"from_run": "runs/nowhere"}, RunError, "There is no run folder"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(
    options: dict, kind: type[MultitlError], problem: str, frozen: Result, place: Path, tmp_path: Path
):
    given = {"from_run": str(frozen.output), "output": tmp_path / "run"} | options
    if given["output"] == "SELF":
        given["output"] = frozen.output
    with pytest.raises(kind, match=problem) as caught:
        multitl.finetune(place / "five", **given)
    assert caught.value.expected and caught.value.received and caught.value.fix
    assert not (tmp_path / "run").exists() and (frozen.output / "card.json").exists()


def test_a_run_of_several_labels_is_not_gone_on_from(frozen: Result, place: Path, tmp_path: Path):
    """Also where the labels are called as the classes are."""
    several = shutil.copytree(frozen.output, tmp_path / "several")
    card = json.loads((several / "card.json").read_text())
    card["recipe"]["labels"], card["thresholds"] = "several", [0.5] * len(FIVE)
    (several / "card.json").write_text(json.dumps(card))
    with pytest.raises(RunError, match="the same kind of thing") as caught:
        multitl.finetune(place / "five", from_run=str(several), output=tmp_path / "run")
    assert f"--backbone {several}" in caught.value.fix


def test_what_is_left_is_measured_after_adapting(tuned: Result, place: Path, tmp_path: Path):
    """The old test images are those of now, so both figures are of one classifier. A head that was trained gives way
    where the way to adapt that is asked for fits one anew."""
    (tmp_path / "dark").mkdir()
    for number, path in enumerate(sorted((place / "five" / "blue").glob("*.png"))):
        pixels = 255 - np.asarray(Image.open(path)) // 3
        Image.fromarray(pixels.astype("uint8")).save(tmp_path / "dark" / f"{number}.png")
    again = go_on(place / "five", tuned, tmp_path / "again", adapt="coral", unlabelled=str(tmp_path / "dark"))
    start, adaptation = start_of(again), multitl.load(again.output).card.adaptation
    assert adaptation and adaptation.chosen == "coral" and start.head == "solved anew"
    assert start.old_test and start.old_test.after == again.metrics["test"]["accuracy"]
    assert adaptation.tried[0]["figures"]["test"]["accuracy"] != start.old_test.after


def test_a_damaged_list_of_images_is_refused(frozen: Result, place: Path, tmp_path: Path):
    damaged = shutil.copytree(frozen.output, tmp_path / "frozen")
    for text in (
        "",
        "sha256,split\n",
        "sha256,split,label\nzz,train,red\n",
        "sha256,split,label\n" + "0" * 16 + ",no,a\n",
    ):
        (damaged / "images.csv").write_text(text)
        with pytest.raises(RunError, match="Cannot read"):
            read_images(damaged)


def test_every_image_is_in_the_list(frozen: Result, place: Path):
    known = read_images(frozen.output) or ()
    assert {(one.content, one.label) for one in known} == {
        (content_of(file_sha256(path)), path.parent.name) for path in (place / "five").rglob("*.png")
    }


def test_the_command_line_has_it_too(
    frozen: Result, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["finetune", str(place / "seven"), "--from", str(frozen.output)]) == 0
    out = capsys.readouterr().out
    old = start_of_folder(Path("runs/seven-from-frozen")).old_test
    assert old and f"test images of {frozen.output}: accuracy {old}" in out.replace("\n", " ")


def start_of_folder(folder: Path) -> AboutStart:
    start = multitl.load(folder).card.start
    assert start
    return start
