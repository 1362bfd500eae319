"""Several heads on one backbone: figures, answers, missing cells, a cut that all share, what goes on and is refused."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from labelled_photos import save_small_backbone
from numbered_photos import make_numbered

import multitl
import multitl.judging.evaluation
import multitl.judging.several_heads
from multitl.cli.main import main
from multitl.data.columns import parse_head_weights, parse_targets
from multitl.errors import DataError, RecipeError, RunError
from multitl.models.inference import compile_forward
from multitl.recipes import Recipe
from multitl.training.several_heads import HeadsResult

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "several-heads.md"
HEADS = "half=class, width=number, seen=labels"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class, a number and labels of each photo; of every eighth the number is missing, of every tenth the class."""
    root = make_numbered(tmp_path_factory.mktemp("photos"), count=80)
    with (root / "photos.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = [("path", "half", "width", "seen")]
    for number, row in enumerate(rows):
        width = float(row["width"])
        seen = "|".join(name for name, is_seen in (("much", width > 125), ("little", width < 145)) if is_seen)
        half = "" if number % 10 == 3 else "wide" if width > 132 else "narrow"
        table.append((row["path"], half, "" if number % 8 == 1 else row["width"], seen))
    with (root / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    return root


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = save_small_backbone(tmp_path_factory.mktemp("backbones") / "small.keras")
    return Recipe(backbone=f"file:{path}", image_size=32, unfreeze="none")


@pytest.fixture(scope="module")
def result(photos: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> HeadsResult:
    return multitl.finetune_heads(
        photos / "photos.csv", HEADS, output=tmp_path_factory.mktemp("runs") / "run", recipe=recipe
    )


@pytest.mark.every_backend
def test_every_head_is_solved_on_the_images_that_have_its_target(photos: Path, result: HeadsResult) -> None:
    counts = {
        name: sum(json.loads((one.output / "card.json").read_text())["data"]["images"].values())
        for name, one in result.results.items()
    }
    assert counts == {"half": 72, "width": 70, "seen": 80}
    test = {name: one["test"] for name, one in result.metrics.items()}
    assert test["half"]["accuracy"] > 0.7 and test["width"]["r2"] > 0.7 and test["seen"]["map"] > 0.7
    features = [json.loads((one.output / "card.json").read_text())["features"] for one in result.results.values()]
    assert features == [{"computed": 80, "reused": 0}] * 3
    assert [path.name for path in result.output.rglob("*.keras")] == ["model.keras"] and result.alone == {}
    model = keras.models.load_model(result.model_path, compile=False)
    assert {name: tuple(one.shape) for name, one in model.output.items()} == {
        "half": (None, 2), "width": (None, 1), "seen": (None, 2)
    }  # fmt: skip


@pytest.mark.every_backend
def test_one_pass_says_what_the_heads_say_alone(
    photos: Path, result: HeadsResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last digit that float32 keeps, on every image; and each image is passed once for all heads."""
    seen: list[int] = []

    def counting(model: keras.Model) -> Callable[[np.ndarray], Any]:
        forward = compile_forward(model)
        return lambda inputs: [seen.append(len(inputs)), forward(inputs)][1]

    monkeypatch.setattr(multitl.judging.several_heads, "compile_forward", counting)
    monkeypatch.setattr(multitl.judging.evaluation, "compile_forward", counting)
    paths = sorted(photos.glob("*.png"))
    together = multitl.predict(result.output, paths)
    figures = multitl.evaluate(result.output, photos / "photos.csv")
    assert sum(seen) == 2 * 96  # 80 in batches of 32
    with (photos / "photos.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, one in result.results.items():
        for row, alone in zip(together, multitl.predict(one.output, paths), strict=True):
            assert row["path"] == alone.pop("path") and row[name].keys() == alone.keys()
            assert row[name].get("predicted") == alone.pop("predicted", None)
            numbers, own = (list(flat(values)) for values in (row[name], alone))
            np.testing.assert_allclose(numbers, own, rtol=1e-5, atol=1e-6)
        known = [(str(photos / row["path"]), row[name]) for row in rows if row[name] or name == "seen"]
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *known])
        own = multitl.evaluate(one.output, tmp_path / f"{name}.csv")
        assert own["count"] == len(known) == figures[name]["count"]
        np.testing.assert_allclose(list(flat(figures[name])), list(flat(own)), rtol=1e-4, atol=1e-5)


def flat(values: Any) -> Iterator[float]:
    """Every number in a nest of dicts and lists."""
    if isinstance(values, dict | list | tuple):
        for value in values.values() if isinstance(values, dict) else values:
            yield from flat(value)
    elif isinstance(values, int | float):
        yield float(values)


def test_an_image_is_of_the_same_part_for_every_head(result: HeadsResult) -> None:
    parts: dict[str, set[str]] = {}
    for name in result.results:
        with (result.output / "heads" / f"{name}.csv").open() as file:
            for row in csv.DictReader(file):
                parts.setdefault(row["path"], set()).add(row["split"])
    assert len(parts) == 80 and all(len(found) == 1 for found in parts.values())
    assert {split for found in parts.values() for split in found} == {"train", "validation", "test"}


def test_what_is_finished_is_left_and_what_is_lost_made_again(
    photos: Path, recipe: Recipe, result: HeadsResult, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: (one.output / "predictions.csv").read_bytes() for name, one in result.results.items()}
    assert (
        multitl.finetune_heads(photos / "photos.csv", HEADS, output=result.output, recipe=recipe, resume=True).metrics
        == result.metrics
    )
    assert "is complete already" in capsys.readouterr().err
    (result.results["width"].output / "metrics.json").unlink()
    again = multitl.finetune_heads(photos / "photos.csv", HEADS, output=result.output, recipe=recipe, resume=True)
    assert again.metrics == result.metrics
    assert before == {name: (one.output / "predictions.csv").read_bytes() for name, one in again.results.items()}
    with pytest.raises(RunError, match="exists already"):
        multitl.finetune_heads(photos / "photos.csv", HEADS, output=result.output, recipe=recipe)


def test_tables_and_terminal(
    photos: Path, result: HeadsResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    some = [str(photos / "000.png"), str(broken)]
    row, _ = multitl.predict(result.output, some)
    assert main(["predict", str(result.output), *some, "--csv", str(tmp_path / "said.csv")]) == 0
    with (tmp_path / "said.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first["half"] == row["half"]["predicted"] and float(first["width"]) == pytest.approx(row["width"]["value"])
    assert second["error"] and not second["half"]
    assert main(["predict", str(result.output), *some]) == 0
    assert row["half"]["predicted"] in capsys.readouterr().out
    assert main(["evaluate", str(result.output), str(photos / "photos.csv")]) == 0
    shown = capsys.readouterr().out
    assert all(title in shown for title in ("half:", "width:", "mean absolute error", "mean average precision"))
    assert (result.output / "report.html").read_text().count("heads/") == 3


@pytest.mark.parametrize("text", ["half", "half=class", "half=class, half=number", "half=regression, width=number",
                                  "../half=class, width=number", "error=class, width=number"])  # fmt: skip
def test_heads_that_are_not_understood(text: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_targets(text)
    assert error.value.fix


def test_data_without_a_file_and_a_column_of_labels_are_refused_in_words(result: HeadsResult, photos: Path) -> None:
    with pytest.raises(DataError, match="Several heads are read from a file"):
        multitl.evaluate(result.output, {"path": ["a.png"], "half": ["wide"]})
    with pytest.raises(DataError, match="Each head has a column of its name"):
        multitl.evaluate(result.output, photos / "photos.csv", label_column="half")


@pytest.mark.parametrize("text", ["width=0", "width=x", "hight=2", "width"])
def test_weights_of_heads_that_are_not_understood(text: str) -> None:
    targets = parse_targets(HEADS)
    with pytest.raises(RecipeError) as error:
        parse_head_weights(text, targets)
    assert "learned" in error.value.fix
    assert parse_head_weights("width=0.5", targets) == [1, 0.5, 1]


def test_what_is_not_built_is_refused_by_name(
    photos: Path, recipe: Recipe, result: HeadsResult, tmp_path: Path
) -> None:
    def heads(data: Path = photos / "photos.csv", heads: str = HEADS, weights: str = "", **options: Any) -> object:
        own = replace(recipe, **options)
        return multitl.finetune_heads(data, heads, head_weights=weights, output=tmp_path / "run", recipe=own)

    for option in ({"shots": 3}, {"from_run": str(result.output)}, {"unlabelled": str(photos)}):
        with pytest.raises(RecipeError, match="is of a run with one head"):
            heads(**option)
    with pytest.raises(RecipeError, match="named once"):
        heads(labels="number")
    with pytest.raises(RecipeError, match="none outweighs another"):
        heads(weights="learned")
    with pytest.raises(RecipeError, match="share one backbone"):
        heads(backbone="keras/MobileNet,keras/MobileNetV2")
    with pytest.raises(RecipeError, match="Only classes have weights"):
        heads(heads="width=number, seen=labels", class_weights="balanced")
    with pytest.raises(DataError, match="no column 'hight'"):
        heads(heads="half=class, hight=number")
    with pytest.raises(DataError, match="is no table"):
        heads(photos)
    with pytest.raises(RunError, match="each of which is a run of its own") as error:
        multitl.port(result.output, "onnx", tmp_path / "onnx")
    assert str(result.output / "heads" / "half") in str(error.value)
    assert not (tmp_path / "run").exists()


def test_weights_are_of_the_heads_with_classes(
    photos: Path, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = replace(recipe, class_weights="narrow=1,wide=20", head="linear", l2=0.01)
    heads = multitl.finetune_heads(photos / "photos.csv", "half=class, width=number", output=tmp_path, recipe=own)
    assert "class weights are those of half; width has no classes" in capsys.readouterr().err
    cards = {name: json.loads((one.output / "card.json").read_text()) for name, one in heads.results.items()}
    weights = {name: card["recipe"]["class_weights"] for name, card in cards.items()}
    assert weights == {"half": "narrow=1,wide=20", "width": "none"}
    said = [row["half"]["predicted"] for row in multitl.predict(tmp_path, photos)]
    assert said.count("wide") > 45  # of 40, about: what is rare weighs more


@pytest.mark.slow
def test_one_head_leaves_for_another_format(result: HeadsResult, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    ported = multitl.port(result.results["width"].output, "onnx", tmp_path / "onnx")
    assert ported.card["gives"] == {"value": [None, 1]} and (tmp_path / "onnx" / "model.onnx").is_file()


def test_a_head_is_a_run_like_others(result: HeadsResult) -> None:
    half = multitl.load(result.results["half"].output)
    assert half.classes == ("narrow", "wide") and half.model.output_shape == (None, 2)
    assert half.metrics == result.metrics["half"] and half.report().is_file()
    assert multitl.load_pretrained(str(half.folder)).backbone.output_shape == (None, 4, 4, 24)


def test_the_how_to(photos: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands as they stand, on our photos."""
    assert len(HOW_TO.read_text().splitlines()) <= 25
    (block,) = re.findall(r"```bash\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("photos.csv").write_bytes((photos / "photos.csv").read_bytes())
    Path("new-photos").symlink_to(photos)
    quick = ["--images", str(photos), "--backbone", recipe.backbone, "--image-size", "32"]
    for line in block.replace("\\\n", "").splitlines():
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)][1:]
        more = {"finetune": quick, "evaluate": quick[:2]}.get(words[0], [])
        assert main([*words, *more]) == 0
    with Path("said.csv").open() as file:
        assert np.isfinite([float(row["width"]) for row in csv.DictReader(file)]).all()
