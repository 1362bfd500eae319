"""Which backbone leads, which is given up, and what a run finds in the store afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import multitl
from multitl.adapters import load_backend
from multitl.data.scanning import scan_for_training
from multitl.errors import BackboneError, RunError, WeightsError
from multitl.recipes import Recipe
from multitl.runs.cards import read_card
from multitl.training import ranking
from multitl.training.ranking import Candidate, Standing, Unusable, is_hopeless, rank
from multitl.training.solved_head import Attempt
from tests.labelled_photos import make_labelled, save_small_backbone
from tests.numbered_photos import make_numbered
from tests.quick_runs import BACKBONE

RECIPE = Recipe(backbone=BACKBONE, weights="none", image_size=32, unfreeze="none", head="linear")


def attempt_of(losses: np.ndarray, accuracy: float) -> Attempt:
    return Attempt("linear", partial(np.asarray), 0.1, losses, accuracy, partial(pytest.fail, "not to be solved"))


@pytest.mark.every_backend
def test_a_run_reuses_every_feature_and_a_bad_name_stops_nobody(photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MULTITL_CACHE", str(tmp_path / "cache"))
    dataset = scan_for_training(photos, RECIPE, lambda done, total: None)
    failed, standing = rank(dataset, ["keras/NoSuchNet", BACKBONE], RECIPE, load_backend(None))
    assert isinstance(failed, Unusable) and "NoSuchNet" in failed.reason
    seen = len(dataset.split("train")) + len(dataset.split("validation"))
    assert isinstance(standing, Standing) and (standing.images, standing.of) == (seen, seen)
    assert standing.speed and standing.interval[0] <= standing.score <= standing.interval[1]
    multitl.finetune(photos, output=tmp_path / "run", recipe=RECIPE)
    features = read_card(tmp_path / "run", "").features
    assert (features.computed, features.reused) == (len(dataset.split("test")), seen)
    (again,) = rank(dataset, [BACKBONE], RECIPE, load_backend(None))
    assert isinstance(again, Standing) and again.speed is None and again.score == standing.score


def test_all_failing_is_an_error(photos: Path) -> None:
    dataset = scan_for_training(photos, RECIPE, lambda done, total: None)
    with pytest.raises(BackboneError, match="NoSuchNet"):
        next(rank(dataset, ["keras/NoSuchNet"], RECIPE, load_backend(None)))


def test_that_none_can_be_followed_is_an_error_and_a_full_disk_is_the_disks(photos: Path, monkeypatch) -> None:
    dataset = scan_for_training(photos, RECIPE, lambda done, total: None)
    for fault, told in ((WeightsError, Unusable), (RunError, None)):
        error = fault("Cannot go on.", expected="", received="", fix="")
        monkeypatch.setattr(Candidate, "advance", Mock(side_effect=error))
        ranked = rank(dataset, [BACKBONE], RECIPE, load_backend(None))
        if told:
            assert isinstance(next(ranked), told)
        with pytest.raises(BackboneError if told else RunError, match="Cannot go on"):
            next(ranked)


def test_a_damaged_run_stops_no_other_backbone(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "card.json").write_text("{}")
    dataset = scan_for_training(photos, RECIPE, lambda done, total: None)
    failed, standing = rank(dataset, [f"run:{tmp_path / 'run'}", BACKBONE], RECIPE, load_backend(None))
    assert isinstance(failed, Unusable) and "card.json" in failed.reason and isinstance(standing, Standing)


def test_hopeless_is_worse_by_more_than_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 256)
    leader = attempt_of(np.full(256, 0.5), 0.8)
    assert is_hopeless(attempt_of(0.9 + noise, 0.7), leader)
    assert not is_hopeless(attempt_of(0.6 + noise, 0.7), leader)
    assert not is_hopeless(attempt_of(0.9 + noise, 0.8), leader), "only less sure of itself"


def test_the_hopeless_stop_at_a_look_and_the_cheapest_is_first(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "FIRST_LOOK", 8)
    monkeypatch.setattr(ranking, "is_hopeless", lambda one, leader: True)
    dataset = scan_for_training(photos, RECIPE, lambda done, total: None)
    first, second = rank(dataset, ["keras/MobileNet:alpha=0.5", BACKBONE], RECIPE, load_backend(None))
    assert isinstance(first, Standing) and isinstance(second, Standing)
    assert first.name == BACKBONE and not first.stopped and first.images == first.of
    assert second.images == 8 and BACKBONE in second.stopped


@pytest.mark.every_backend
@pytest.mark.parametrize(("labels", "make"), [("several", make_labelled), ("number", make_numbered)])
def test_other_goals_are_ranked_by_their_own_figure(labels: str, make: Callable[[Path], Path], tmp_path: Path) -> None:
    small = save_small_backbone(tmp_path / "small.keras")
    recipe = {"labels": labels, "label_column": "width" if labels == "number" else "", "image_size": 32}
    names = [f"file:{small}", f"{BACKBONE}@none"]
    choice = multitl.choose(make(tmp_path / "photos") / "photos.csv", names, output=tmp_path / "out", recipe=recipe)
    first, second = choice.standings
    assert {first.name, second.name} == {*names} and first.score >= second.score
    assert first.score > choice.baselines[0].score + 0.05 and first.interval[0] <= first.score <= first.interval[1]
    mistakes = [one.mae for one in (first, choice.baselines[0])]
    assert mistakes[0] < mistakes[1] if labels == "number" else mistakes == [None, None]
    title = {"several": "mean average precision", "number": "R2"}[labels]
    assert title in choice.page.read_text() and choice.figure in {"map", "r2"}


@pytest.mark.every_backend
def test_sizes_of_one_backbone_are_compared_the_smaller_first(photos: Path, tmp_path: Path) -> None:
    names = [f"{BACKBONE}@48px", f"{BACKBONE}@32px"]
    dataset = scan_for_training(photos, RECIPE, lambda done, total: None)
    first, second = rank(dataset, names, RECIPE, load_backend(None))
    assert isinstance(first, Standing) and isinstance(second, Standing)
    assert [first.name, second.name] == names[::-1]
    (alone,) = rank(dataset, [BACKBONE], dataclasses.replace(RECIPE, image_size=48), load_backend(None))
    assert isinstance(alone, Standing) and (alone.score, alone.speed) == (second.score, None), "the same features"
    choice = multitl.choose(photos, [names[0]], output=tmp_path / "choice", recipe={"weights": "none"})
    assert list(choice.command[4:9]) == [BACKBONE, "--weights", "none", "--image-size", "48"]
