"""Several heads that are trained together: the loss by hand, missing targets, what decides, kills, and a whole run."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from labelled_photos import save_small_backbone
from numbered_photos import make_numbered

import multitl
from multitl.contracts import Dataset, Example, Split
from multitl.models.goals import GOALS
from multitl.models.joint import LogVariances, stack
from multitl.models.numbers import Numbers
from multitl.models.together import Together
from multitl.recipes import Recipe
from multitl.runs.head_runs import read_heads
from multitl.training import several_heads
from multitl.training.checkpoints import TrainingState
from multitl.training.features import RunFeatures
from multitl.training.joint_lessons import JointExamination, Part, joint_targets, sum_scores, together
from multitl.training.phases import compile_step
from multitl.training.several_heads import HeadsResult

HEADS = "half=class, width=number"
GOAL = Together((GOALS["one"], GOALS["several"], Numbers()), (3, 2, 1))
STARTS = [0.5, -1.0, 0.25]
PARTS: tuple[Split, ...] = ("train", "validation")


def targets_by_hand() -> np.ndarray:
    """Of eight images: classes, labels, numbers, then weights, of which some are 0."""
    random = np.random.default_rng(0)
    aims = [np.eye(3)[random.integers(0, 3, 8)], random.integers(0, 2, (8, 2)), random.normal(0, 2, (8, 1))]
    weights = random.uniform(0.5, 2, (8, 3)) * (random.uniform(size=(8, 3)) > 0.3)
    return np.concatenate([*aims, weights], axis=1).astype("float32")


def network(starts: list[float] | None) -> keras.Model:
    """Three heads, each a dense layer on five features."""
    keras.utils.set_random_seed(0)
    heads = []
    for size in GOAL.sizes:
        inputs = keras.Input((5,))
        heads.append(keras.Model(inputs, keras.layers.Dense(size, name="logits")(inputs), name="head"))
    return stack(heads, starts)


@pytest.mark.every_backend
@pytest.mark.parametrize("starts", [None, STARTS], ids=["equal", "learned"])
def test_the_step_minimises_the_sum_of_losses(starts: list[float] | None) -> None:
    model, targets = network(starts), targets_by_hand()
    x = np.random.default_rng(1).normal(size=(8, 5)).astype("float32")
    logits = np.asarray(model.predict_on_batch(x), "float64")
    spreads = logits[:, 6:] if starts else np.zeros((8, 3))
    if starts:
        np.testing.assert_allclose(spreads, np.tile(starts, (8, 1)), rtol=1e-6)
    classes, labels, numbers = GOAL.parts(logits)
    aims, weights = GOAL.parts(targets), targets[:, 6:]
    error = np.abs(numbers - aims[2])[:, 0]
    losses = np.stack(
        [
            np.log(np.exp(classes).sum(axis=1)) - (classes * aims[0]).sum(axis=1),
            (np.log1p(np.exp(labels)) - labels * aims[1]).sum(axis=1),
            np.where(error <= 1, error**2, 2 * error - 1),
        ],
        axis=1,
    )
    shares = [1, 1, 0.5] if starts else [1, 1, 1]
    expected = (weights * (shares * losses / np.exp(spreads) + spreads / 2)).sum(axis=1).mean()
    has = weights > 0
    left = np.square(error[has[:, 2]]).mean() / aims[2][has[:, 2]].var()
    right = [
        (classes.argmax(axis=1) == aims[0].argmax(axis=1))[has[:, 0]].mean(),
        ((labels > 0) == (aims[1] > 0.5))[has[:, 1]].mean(),
        np.clip(1 - left, 0, 1),
    ]
    loss = GOAL.loss(0.0, 0.0, is_learned=bool(starts))
    with compile_step(model, Recipe(optimizer="sgd"), loss=loss) as step:
        told = step((x,), targets, np.ones(8, "float32"), learning_rate=0.0)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(told), [expected, np.mean(right)], rtol=2e-5)


@pytest.mark.every_backend
def test_a_missing_target_teaches_nothing_and_variances_are_learned() -> None:
    """No image has the second head's target; the others' log variances go to the logarithm of twice their loss."""
    model, targets = network([0.0, 0.0, 0.0]), targets_by_hand()
    targets[:, 6:] = [1, 0, 1]
    x = np.random.default_rng(1).normal(size=(8, 5)).astype("float32")
    before = [np.array(weight) for weight in model.weights]
    with compile_step(model, Recipe(optimizer="sgd"), loss=GOAL.loss(0.0, 0.0, is_learned=True)) as step:
        for _ in range(300):
            step((x,), targets, np.ones(8, "float32"), learning_rate=3e-3)
    stayed = [weight.shape for old, weight in zip(before, model.weights, strict=True) if np.array_equal(old, weight)]
    assert stayed == [(5, 2), (2,)]
    learned = 10 * np.asarray(next(one for one in model.layers if isinstance(one, LogVariances)).values)
    assert learned[1] == 0
    logits = np.asarray(model.predict_on_batch(x), "float64")
    losses, _ = GOALS["one"].losses_and_accuracy(logits[:, :3], targets[:, :3])
    assert learned[0] == pytest.approx(np.log(2 * losses.mean()), abs=0.1)


def parts_of() -> list[Part]:
    """A class of six images and a number of four of eight, of which the last four are for validation."""
    classes = [Example(str(i), i % 2, "train" if i < 4 else "validation", f"{i}") for i in (0, 1, 2, 3, 4, 7)]
    numbers = [Example(str(i), float(i), "train" if i < 4 else "validation", f"{i}") for i in (1, 3, 4, 6)]
    found = []
    for labels, examples, names in (("one", classes, ("a", "b")), ("number", numbers, ("value",))):
        recipe, dataset = Recipe(labels=labels), Dataset("", names, tuple(examples))
        rows = {
            split: np.array([int(one.path) % 4 for one in dataset.split(split)]) for split in ("train", "validation")
        }
        inputs = keras.Input((2,))
        head = keras.Model(inputs, keras.layers.Dense(len(names), name="logits")(inputs), name="head")
        features = RunFeatures([], {}, 0, 0)
        found.append(Part(labels, dataset, recipe, recipe, head, None, features, rows, TrainingState()))
    return found


def test_missing_targets_weigh_nothing_and_others_make_up_for_them() -> None:
    targets = joint_targets(parts_of(), [1.0, 3.0], 4)
    np.testing.assert_allclose(targets[:, :2], np.eye(2)[[0, 1, 0, 1]])
    np.testing.assert_allclose(targets[:, 2], [0, -1, 0, 1])  # 1 and 3, standardised
    np.testing.assert_allclose(targets[:, 3:], [[1, 0], [1, 6], [1, 0], [1, 6]])


def test_what_decides_is_the_sum_of_standardised_gains() -> None:
    """Of always answering the mean each head scores 1: 1/2 is the Brier score of two classes then, and 1 - R2 is 1."""
    parts = parts_of()
    means = [np.tile(np.square([0.5, -0.5]).sum(), 2), np.ones(2)]
    assert sum_scores(parts, means, 4).mean() == pytest.approx(2)
    logits = np.zeros((4, 3))
    logits[:, :2] = np.log([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5], [0.2, 0.8]])
    logits[:, 2] = [2.0, 0.0, 4.0, 0.0]
    examination = JointExamination(lambda: logits, parts, together(parts), 4)
    loss, accuracy = examination()
    assert len(examination) == 4
    squares = np.square([2 - 2, 4 - 4])  # of images 4 and 6, which are 2 and 4 deviations from the mean of 1 and 3
    assert loss == pytest.approx(-np.log([0.9, 0.8]).mean() + squares.mean(), rel=1e-6) and accuracy == pytest.approx(1)
    answers = examination.calibrate()
    np.testing.assert_allclose(answers.scores, [2 * 0.02 / 0.5, 0, 0, 2 * 0.08 / 0.5], rtol=1e-6, atol=1e-9)
    assert answers.heads["one"]["temperature"] == 1 and set(answers.heads) == {"one", "number"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class and a number of each photo; of every eighth the number is missing."""
    root = make_numbered(tmp_path_factory.mktemp("photos"), count=64)
    with (root / "photos.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = [("path", "half", "width")]
    for number, row in enumerate(rows):
        half = "wide" if float(row["width"]) > 132 else "narrow"
        table.append((row["path"], half, "" if number % 8 == 1 else row["width"]))
    with (root / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    return root


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = save_small_backbone(tmp_path_factory.mktemp("backbones") / "small.keras")
    return Recipe(
        backbone=f"file:{path}", image_size=32, unfreeze="all", budget="none", steps=24, learning_rate=3e-3,
        batch_size=16, head="linear", l2=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(photos: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> HeadsResult:
    return multitl.finetune_heads(
        photos / "photos.csv", HEADS, head_weights="learned", recipe=recipe,
        output=tmp_path_factory.mktemp("runs") / "run",
    )  # fmt: skip


@pytest.mark.every_backend
def test_heads_are_trained_together_and_beat_the_heads_alone(photos: Path, result: HeadsResult) -> None:
    heads = read_heads(result.output)
    assert heads.trials and heads.trials.kept == 1 and heads.trials.finished and heads.weights == "learned"
    (tried,) = heads.trials.tried
    assert tried.outcome == "better" and tried.gain and tried.gain > 0 and set(tried.heads) == {"half", "width"}
    assert result.metrics["width"]["validation"]["mae"] < result.alone["width"]["validation"]["mae"]
    for name, one in result.results.items():
        card = json.loads((one.output / "card.json").read_text())
        assert card["trials"]["tried"][0]["val_loss"] == tried.heads[name]["val_loss"]
        assert card["trained_parameters"] > 4000 and not card["solved_head"]["refitted"]
        report = one.report_path.read_text()
        assert "24 steps" in report
    page = result.report_path.read_text()
    assert "on the backbone as it was" in page and "learned" in page and page.count("heads/") == 2
    figures = multitl.evaluate(result.output, _tables(result))
    for name, one in result.metrics.items():
        assert figures[name]["count"] == one["test"]["count"]
        key = "mae" if name == "width" else "log_loss"
        assert figures[name][key] == pytest.approx(one["test"][key], rel=1e-3, abs=1e-5)


def _tables(result: HeadsResult) -> Path:
    """The parts that the heads have, as one table."""
    rows: dict[str, dict[str, str]] = {}
    for name in result.results:
        with (result.output / "heads" / f"{name}.csv").open() as file:
            for row in csv.DictReader(file):
                rows.setdefault(row["path"], {"split": row["split"]})[name] = row["label"]
    table = result.output.parent / "parts.csv"
    with table.open("w", newline="") as file:
        cells = [[path, row.get("half", ""), row.get("width", ""), row["split"]] for path, row in rows.items()]
        csv.writer(file).writerows([("path", "half", "width", "split"), *cells])
    return table


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    photos: Path, recipe: Recipe, result: HeadsResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after some legs, it holds the solved heads; gone on with, it gives the same bits."""
    save, counts = several_heads.save_joint_state, []

    def stop(folder: Path, state: TrainingState) -> None:
        save(folder, state)
        counts.append(state.step)
        if len(counts) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(several_heads, "save_joint_state", stop)
    ask = {"head_weights": "learned", "recipe": recipe, "output": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        multitl.finetune_heads(photos / "photos.csv", HEADS, **ask)
    monkeypatch.undo()
    heads = read_heads(tmp_path / "run")
    assert 0 < counts[-1] < 24 and heads.trials and not heads.trials.finished and heads.trials.kept == 0
    assert len(multitl.predict(tmp_path / "run", photos / "000.png")) == 1
    with pytest.raises(multitl.RunError, match="other weights of its heads"):
        multitl.finetune_heads(photos / "photos.csv", HEADS, **{**ask, "head_weights": ""}, resume=True)
    again = multitl.finetune_heads(photos / "photos.csv", HEADS, **ask, resume=True)
    assert again.alone == result.alone
    for name, one in again.results.items():
        told = (one.output / "predictions.csv").read_bytes()
        assert told == (result.results[name].output / "predictions.csv").read_bytes()
    (tmp_path / "run" / "model.keras").write_bytes(b"")
    assert multitl.finetune_heads(photos / "photos.csv", HEADS, **ask, resume=True).metrics == again.metrics
    assert (tmp_path / "run" / "model.keras").stat().st_size > 1000


def test_what_is_not_better_for_all_is_not_kept(photos: Path, recipe: Recipe, tmp_path: Path) -> None:
    still = replace(recipe, learning_rate=1e-12, steps=8)
    heads = multitl.finetune_heads(photos / "photos.csv", HEADS, recipe=still, output=tmp_path / "run")
    trials = read_heads(heads.output).trials
    assert trials and trials.kept == 0 and trials.tried[0].gain == pytest.approx(0, abs=1e-4)
    assert "were kept" in heads.report_path.read_text()
