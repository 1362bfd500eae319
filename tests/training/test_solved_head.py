"""How a head's penalty is chosen, and that the head of a run is the minimum it says it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from multitl.errors import RunError
from multitl.models.goals import GOALS
from multitl.models.heads import build_head
from multitl.recipes import Recipe
from multitl.training import softmax_regression
from multitl.training.features import head_probabilities
from multitl.training.head_choice import SolvedHead, choose_head
from multitl.training.softmax_regression import Samples, SoftmaxRegression
from multitl.training.solved_head import FOLDS, HOPELESS, Task, assign_folds, fill_head, is_solved

COUNT, CLASSES = 90, 3
LABELS = np.arange(COUNT) % CLASSES
ONE_HOT = np.eye(CLASSES, dtype="float32")[LABELS]
ONES = np.ones(COUNT, "float32")


def solve_linear(features: np.ndarray, penalty: float = 0.0, seed: int = 0, views: int = 1) -> SolvedHead:
    """Of the first images."""
    count = len(features)
    task = Task([features] * views, ONE_HOT[:count], ONES[:count], seed=seed)
    return choose_head(task, Recipe(head="linear", l2=penalty))


def draw(signal: float, channels: int = 40) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 1, (COUNT, channels))
    return (noise + signal * np.eye(CLASSES, channels)[LABELS]).astype("float32")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(2, 6), st.integers(0, 3))
def test_folds_are_even_in_size_and_in_each_class(labels: list[int], folds: int, seed: int) -> None:
    assigned = assign_folds(np.array(labels), folds, seed)
    sizes = np.bincount(assigned, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for label in set(labels):
        share = np.bincount(assigned[np.array(labels) == label], minlength=folds)
        assert share.max() - share.min() <= 1


def test_the_chosen_penalty_has_the_least_log_loss_out_of_fold() -> None:
    """Computed once more, by a regression for each fold that never saw the fold's images."""
    features = draw(2.0)
    head = solve_linear(features, seed=3)
    folds, least = assign_folds(LABELS, FOLDS, 3), min(tried["log_loss"] for tried in head.tried)
    scaled = features / np.sqrt(np.mean(np.square(features)))
    for tried in head.tried:
        losses = np.empty(COUNT)
        for fold in range(FOLDS):
            rest, own = folds != fold, folds == fold
            fitted = SoftmaxRegression(Samples(scaled[rest], ONE_HOT[rest], ONES[rest])).solve(tried["penalty"])
            log_p = log_softmax(scaled[own] @ fitted.kernel + fitted.bias, axis=1)
            losses[own] = -log_p[np.arange(own.sum()), LABELS[own]]
        is_sketch = tried["log_loss"] > HOPELESS * least  # where the path ends
        assert losses.mean() > least if is_sketch else tried["log_loss"] == pytest.approx(losses.mean(), rel=5e-3)
    assert head.penalty == min(head.tried, key=lambda one: one["log_loss"])["penalty"]


def test_noise_gets_a_large_penalty_and_a_clear_case_a_small_one() -> None:
    noise, clear = (solve_linear(draw(s)).penalty for s in (0.0, 9.0))
    assert noise >= 1.0 > 0.01 >= clear


def test_each_of_several_labels_has_the_penalty_that_suits_it() -> None:
    """One of a clear label, one of noise: the head is, label by label, what each alone would be with its own."""
    features, random = draw(9.0), np.random.default_rng(0)
    labels = np.stack([ONE_HOT[:, 0], random.random(COUNT) < 0.5, ONE_HOT[:, 1]], axis=1).astype("float32")
    head = choose_head(Task([features], labels, ONES, goal=GOALS["several"]), Recipe(head="linear", labels="several"))
    assert head.penalties and head.penalties[1] >= 1.0 > 0.01 >= max(head.penalties[::2])
    assert head.penalty in [one["penalty"] for one in head.tried]
    assert head.compared[0]["log_loss"] < min(one["log_loss"] for one in head.tried)
    for label, penalty in enumerate(head.penalties):
        alone = SoftmaxRegression(Samples(head.fixed(features), labels[:, [label]], ONES, GOALS["several"]))
        kernel = alone.solve(penalty).kernel[:, 0]
        np.testing.assert_allclose(head.solution.kernel[:, label], kernel, atol=1e-5 * np.abs(kernel).max())
    assert str(head).endswith(f"penalties {min(head.penalties):g} to {max(head.penalties):g}")


def test_views_of_an_image_are_in_one_fold() -> None:
    """Else every image would be recognised by its copy: pure noise would have a log loss far below chance."""
    features = draw(0.0)
    head = solve_linear(features, views=2)
    assert min(one["log_loss"] for one in head.tried) > np.log(CLASSES) - 0.02
    once = solve_linear(features)
    np.testing.assert_allclose(head.solution.kernel, once.solution.kernel, atol=1e-5)


def test_a_given_penalty_is_taken_as_it_is() -> None:
    head = solve_linear(draw(1.0), 0.37)
    assert head.penalty == 0.37 and head.tried == ()


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_a_handful_of_images_is_enough(count: int) -> None:
    head = solve_linear(draw(1.0)[:count])
    assert head.penalty > 0 and head.solution.gradient <= 1e-6


def test_a_minimum_that_is_not_found_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax_regression, "FLATNESS", 1e-30)  # which float64 cannot give
    with pytest.raises(RunError, match=r"could not be solved(.|\n)*--l2 0\.01"):
        solve_linear(draw(1.0))


def test_what_is_solved() -> None:
    assert is_solved(Recipe()) and is_solved(Recipe(label_smoothing=0.1, class_weights="balanced", augment="light"))
    assert not is_solved(Recipe(hidden=8)) and not is_solved(Recipe(dropout=0.1))
    assert not is_solved(Recipe(head_epochs=0, unfreeze="all"))


@pytest.mark.every_backend
def test_the_head_gives_the_solution(tmp_path) -> None:
    """Through the scaling layer: features whose size is far from 1."""
    features = 250 * draw(2.0)
    solved = solve_linear(features, 0.01)
    head = build_head(features, CLASSES, Recipe(), solved.fixed)
    size = 1 / head.get_layer("feature_scale").scale
    fill_head(head, solved.solution)
    logits = features.astype("float64") / size @ solved.solution.kernel + solved.solution.bias
    np.testing.assert_allclose(np.log(head_probabilities(head, features)), log_softmax(logits, axis=1), atol=1e-4)
