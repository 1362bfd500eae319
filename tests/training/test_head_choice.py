"""Which kind of head wins, and by what."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from multitl.models.feature_maps import directed
from multitl.models.goals import GOALS
from multitl.recipes import Recipe
from multitl.training import head_choice
from multitl.training.head_choice import SolvedHead, choose_head, solve_again
from multitl.training.solved_head import FOLDS, Task, assign_folds

COUNT = 240
RANDOM = np.random.default_rng(5)


def task_of(features: np.ndarray, labels: np.ndarray, views: int = 1) -> Task:
    ones = np.ones(len(labels), "float32")
    return Task([features.astype("float32")] * views, np.eye(labels.max() + 1, dtype="float32")[labels], ones)


def make_checkers() -> Task:
    """Opposite quarters of a plane are one class, so no line tells the two apart."""
    points = RANDOM.uniform(-1, 1, (COUNT, 2))
    return task_of(np.concatenate([points, RANDOM.normal(0, 0.05, (COUNT, 4))], axis=1), (points.prod(axis=1) > 0) * 1)


def make_blobs(signal: float) -> Task:
    labels = np.arange(COUNT) % 3
    return task_of(RANDOM.normal(0, 1, (COUNT, 20)) + signal * np.eye(3, 20)[labels], labels)


def answers(head: SolvedHead, features: np.ndarray) -> np.ndarray:
    return (head.fixed(features) @ head.solution.kernel + head.solution.bias).argmax(axis=1)


def test_a_kernel_wins_where_no_line_separates() -> None:
    task = make_checkers()
    head = choose_head(task, Recipe())
    assert head.kind == "kernel" and [one["kind"] for one in head.compared] == ["linear", "mean", "kernel"]
    by_kind = {one["kind"]: one for one in head.compared}
    assert by_kind["linear"]["accuracy"] < 0.65 and by_kind["kernel"]["accuracy"] > 0.85
    assert (answers(head, task.views[0]) == task.labels.argmax(axis=1)).mean() > 0.9
    assert choose_head(task, Recipe(head="linear")).kind == "linear"


def test_of_rare_labels_the_loss_alone_tells() -> None:
    """Each is one in three at most wherever one looks, so that "no" is the answer of any head."""
    random = np.random.default_rng(2)
    points = random.uniform(-1, 1, (2 * COUNT, 2))
    share = np.where(points.prod(axis=1) > 0, 0.35, 0.01)[:, None]
    labels = (random.uniform(size=(len(points), 2)) < share).astype("float32")
    features = np.concatenate([points, random.normal(0, 0.05, (len(points), 4))], axis=1).astype("float32")
    head = choose_head(Task([features], labels, np.ones(len(labels)), goal=GOALS["several"]), Recipe(labels="several"))
    linear, kernel = head.compared
    assert head.kind == "kernel" and kernel["accuracy"] <= linear["accuracy"] and linear["accuracy"] < 1


@pytest.mark.parametrize("signal", [0.0, 1.5, 5.0])
def test_linear_stays_where_another_is_not_clearly_better(signal: float) -> None:
    head = choose_head(make_blobs(signal), Recipe())
    linear = head.compared[0]
    assert head.kind == linear["kind"] == "linear" and linear["difference"] == 0
    for other in head.compared[1:]:
        assert other["difference"] == pytest.approx(other["log_loss"] - linear["log_loss"])
        is_surer = other["difference"] < -2 * other["standard_error"]
        assert not is_surer or other["accuracy"] <= linear["accuracy"]
    assert "linear" in head.verdict() and "kernel" in head.verdict()


def test_the_nearest_class_mean_is_what_it_says() -> None:
    task = make_blobs(3.0)
    head = choose_head(task, Recipe(head="mean"))
    points, labels = directed(task.views[0])(task.views[0]), task.labels.argmax(axis=1)
    means = np.stack([points[labels == label].mean(axis=0) for label in range(3)])
    distances = np.square(points[:, None] - means).sum(axis=2)
    np.testing.assert_array_equal(answers(head, task.views[0]), distances.argmin(axis=1))
    folds, right = assign_folds(labels, FOLDS, 0), []
    for fold in range(FOLDS):
        rest = folds != fold
        means = np.stack([points[rest & (labels == label)].mean(axis=0) for label in range(3)])
        right += list(np.square(points[~rest, None] - means).sum(axis=2).argmin(axis=1) == labels[~rest])
    assert head.compared[0]["accuracy"] == pytest.approx(np.mean(right))
    assert head.penalty == 0 and head.tried == () and str(head) == "the nearest class mean"


def test_of_one_image_a_class_nobody_is_sure() -> None:
    """Whatever is held out is of a class that no other image is of: that it is unlike all others is no merit of the
    class means, which once won by it with distances that counted 256 times, and a log loss of 12 and more.
    """
    random, labels = np.random.default_rng(3), np.arange(10)
    task = task_of(random.normal(0, 1, (10, 30)) + np.eye(10, 30), labels)
    others = random.normal(0, 1, (200, 30)) + np.eye(10, 30)[np.arange(200) % 10]
    assert choose_head(task, Recipe()).kind == "linear"
    head = choose_head(task, Recipe(head="mean"))
    scores = head.fixed(others) @ head.solution.kernel + head.solution.bias
    assert -log_softmax(scores, axis=1)[np.arange(200), np.arange(200) % 10].mean() < np.log(10)


def test_a_given_penalty_leaves_nothing_to_compare() -> None:
    head = choose_head(make_checkers(), Recipe(l2=0.1))
    assert (head.kind, head.penalty, head.compared, head.verdict()) == ("linear", 0.1, (), "")
    kernel = choose_head(make_checkers(), Recipe(head="kernel", l2=0.1))
    assert (kernel.kind, kernel.penalty, kernel.scale) == ("kernel", 0.1, 1.0)


def test_of_many_images_a_kernel_is_tried_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_choice, "MOST_UNASKED", 2 * COUNT - 1)
    task = make_checkers()
    assert [one["kind"] for one in choose_head(task, Recipe()).compared] == ["linear", "mean"]
    assert [one["kind"] for one in choose_head(task, Recipe(head="kernel")).compared] == ["kernel"]


@pytest.mark.parametrize("kind", ["linear", "mean", "kernel"])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_handful_of_images_is_enough(kind: str, count: int) -> None:
    task = task_of(RANDOM.normal(0, 1, (count, 9)), np.arange(count) % 3)
    head = choose_head(task, Recipe(head=kind))
    assert head.kind == kind and np.isfinite(head.solution.kernel).all()


@pytest.mark.parametrize("kind", ["linear", "mean", "kernel"])
def test_again_on_the_same_images_is_the_same_and_views_are_no_new_images(kind: str) -> None:
    labels = np.arange(60) % 3
    features = RANDOM.normal(0, 1, (60, 20)) + 2 * np.eye(3, 20)[labels]
    head, of_views = (choose_head(task_of(features, labels, views), Recipe(head=kind)) for views in (1, 2))
    again = solve_again(head, task_of(features, labels))
    np.testing.assert_allclose(again.kernel, head.solution.kernel, atol=1e-4)
    np.testing.assert_allclose(of_views.solution.kernel, head.solution.kernel, atol=1e-3)
    assert of_views.compared[0]["log_loss"] == pytest.approx(head.compared[0]["log_loss"], rel=1e-2)
