"""Block by block the same minimum is found as over all images at once, by one worker or by several."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from group_processes import together

from multitl.models import several_labels
from multitl.models.feature_maps import scaled
from multitl.models.numbers import Numbers
from multitl.recipes import Recipe
from multitl.training import feature_rows, large_tasks
from multitl.training.head_choice import KnownHead, choose_head, draw_towards, solve_again
from multitl.training.large_tasks import draw, is_large
from multitl.training.softmax_regression import Penalty, SoftmaxRegression
from multitl.training.solved_head import Task
from multitl.training.streamed_regression import StreamedRegression

COUNT, CHANNELS, CLASSES = 900, 12, 3


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_tasks, "IN_MEMORY", 1000)
    monkeypatch.setattr(large_tasks, "SAMPLE_BYTES", 300 * 4 * CHANNELS)
    monkeypatch.setattr(feature_rows, "BLOCK_BYTES", 70 * 4 * CHANNELS)


def task(views: int = 1) -> Task:
    random = np.random.default_rng(0)
    labels = random.integers(CLASSES, size=COUNT)
    features = random.normal(size=(COUNT, CHANNELS)) * np.geomspace(1, 0.01, CHANNELS)
    features[:, 0] += labels
    some = [(features + 0.01 * view).astype("float32") for view in range(views)]
    weights = random.uniform(0.5, 2, COUNT).astype("float32")
    return Task(some, np.eye(CLASSES, dtype="float32")[labels], weights, smoothing=0.1)


PRIOR = np.random.default_rng(1).normal(size=(CHANNELS + 1, CLASSES))
PROBLEMS = {
    "classes": (task(), None),
    "views": (task(2), None),
    "prior": (task(), PRIOR),
    "labels": (replace(task(), goal=several_labels), None),
    "numbers": (replace(task(), labels=task().views[0][:, :1] ** 2, goal=Numbers()), None),
}


@pytest.mark.parametrize(("problem", "prior"), PROBLEMS.values(), ids=list(PROBLEMS))
@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_the_minimum_is_that_of_all_images(problem: Task, prior: np.ndarray | None, penalty: Penalty) -> None:
    fixed = scaled(problem.views[0][:])
    whole = SoftmaxRegression(problem.samples(fixed, prior)).solve(penalty)
    streamed = StreamedRegression(problem, fixed, prior).solve(penalty, tolerance=1e-8)
    scale = np.abs(whole.kernel).max()
    np.testing.assert_allclose(streamed.kernel, whole.kernel, atol=1e-4 * scale)
    np.testing.assert_allclose(streamed.bias, whole.bias, atol=1e-4 * scale)


def test_labels_may_each_have_a_penalty() -> None:
    test_the_minimum_is_that_of_all_images(*PROBLEMS["labels"], (1e-1, 1e-4, 1e-2))


def test_workers_find_the_same_bits() -> None:
    """Three that have a third of the blocks each, and one sum a pass."""
    problem, barrier, given = task(), threading.Barrier(3, timeout=60), {}
    found = {}

    def work(rank: int) -> None:
        def add_up(arrays):
            given[rank] = arrays
            barrier.wait()
            total = [np.sum([given[one][place] for one in range(3)], axis=0) for place in range(len(arrays))]
            barrier.wait()
            return total

        regression = StreamedRegression(problem, scaled(problem.views[0][:]), rank=rank, size=3, add_up=add_up)
        found[rank] = regression.solve(1e-3).kernel

    workers = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    alone = StreamedRegression(problem, scaled(problem.views[0][:])).solve(1e-3).kernel
    np.testing.assert_allclose(found[0], alone, atol=1e-5 * np.abs(alone).max())


def test_a_sample_has_each_class_in_its_share() -> None:
    whole = task()
    some = draw(whole)
    assert len(some.labels) == 300 and is_large(whole)
    np.testing.assert_allclose(some.labels.mean(axis=0), whole.labels.mean(axis=0), atol=0.01)
    np.testing.assert_array_equal(draw(whole).views[0], some.views[0])


@pytest.mark.parametrize(("kind", "l2"), [("linear", 0.0), ("linear", 1e-2), ("mean", 0.0)])
def test_a_head_chosen_on_a_sample_is_fitted_to_all(kind: str, l2: float, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = task()
    head = choose_head(whole, Recipe(head=kind, l2=l2))
    assert head.sample == 300
    if kind == "linear":
        tried = [one["penalty"] for one in head.tried] or [3 * l2]
        assert any(abs(3 * head.penalty / one - 1) < 0.01 for one in tried)
    monkeypatch.setattr(large_tasks, "IN_MEMORY", 2**29)
    np.testing.assert_allclose(head.solution.kernel, solve_again(head, whole).kernel, rtol=1e-4, atol=1e-4)


def test_two_workers_have_the_head_that_one_would() -> None:
    """One chooses, on the sample; both fit it to all."""
    alone = choose_head(task(), Recipe())
    first, second = together(2, lambda peers: choose_head(replace(task(), peers=peers), Recipe()))
    assert first.about() == second.about()
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(getattr(first.solution, name), getattr(second.solution, name))
        np.testing.assert_allclose(getattr(first.solution, name), getattr(alone.solution, name), rtol=1e-4, atol=1e-6)
    assert (first.kind, first.penalty, first.sample) == (alone.kind, alone.penalty, alone.sample)


def test_a_head_is_drawn_towards_a_known_one() -> None:
    whole = task()
    known = KnownHead(scaled(whole.views[0][:]), PRIOR)
    head = draw_towards(known, whole, Recipe(l2=1e4))
    np.testing.assert_allclose(np.vstack([head.solution.kernel, head.solution.bias]), PRIOR, atol=1e-3)
