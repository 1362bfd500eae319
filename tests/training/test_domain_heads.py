"""Heads for another domain, on features whose labels are known here and hidden from what is tested."""

from __future__ import annotations

import numpy as np
import pytest

from multitl.recipes import Recipe
from multitl.training import domain_heads
from multitl.training.domain_heads import CORAL, NONE, TRANSPORT, and_back, fit_to_both, there_and_back
from multitl.training.head_choice import SolvedHead, choose_head, solve_again
from multitl.training.solved_head import Task

CHANNELS, CLASSES = 12, 3
CENTRES = 3 * np.eye(CLASSES, CHANNELS)
MOVE = 8 * np.eye(CHANNELS)[0]  # towards the first class, for every image of the other domain


def draw(count: int, seed: int, move: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    random, labels = np.random.default_rng(seed), np.arange(count) % CLASSES
    return (CENTRES[labels] + random.normal(0, 0.7, (count, CHANNELS)) + move).astype("float32"), labels


def make_task(count: int = 90) -> tuple[Task, SolvedHead]:
    features, labels = draw(count, 1)
    task = Task([features], np.eye(CLASSES, dtype="float32")[labels], np.ones(count, "float32"))
    return task, choose_head(task, Recipe(head="linear"))


def accuracy(kind: str, task: Task, head: SolvedHead, target: np.ndarray, labels: np.ndarray) -> float:
    solution = fit_to_both(kind, head, task, target).solution
    return float(((head.fixed(target) @ solution.kernel + solution.bias).argmax(axis=1) == labels).mean())


def test_without_another_domain_in_it_a_head_is_what_it_was() -> None:
    task, head = make_task()
    found, expected = fit_to_both(NONE, head, task, draw(30, 2, MOVE)[0]).solution, solve_again(head, task)
    np.testing.assert_array_equal(found.kernel, expected.kernel)


@pytest.mark.parametrize("kind", [CORAL, TRANSPORT])
def test_each_way_finds_what_a_plain_head_misses_and_promises_it(kind: str) -> None:
    task, head = make_task()
    target, hidden = draw(60, 2, MOVE)
    assert accuracy(NONE, task, head, target, hidden) < 0.5
    assert accuracy(kind, task, head, target, hidden) > 0.95
    plain, adapted = (there_and_back(one, head, task, target) for one in (NONE, kind))
    assert adapted[0] < 0.5 * plain[0] and adapted[1] > 0.8 > plain[1]


def test_where_nothing_differs_no_way_promises_much_more() -> None:
    task, head = make_task()
    losses = [there_and_back(kind, head, task, draw(60, 2)[0])[0] for kind in (NONE, CORAL, TRANSPORT)]
    assert max(losses) < 0.1


def test_labels_that_say_nothing_come_back_as_nothing() -> None:
    """By names drawn at random nobody learns, and by the true ones everybody."""
    target, labels = draw(60, 2)
    held, truth = draw(30, 3)
    loss, share = and_back(np.eye(CLASSES)[labels], target, held, np.eye(CLASSES)[truth])
    assert share > 0.95 and loss < 0.2
    given = np.random.default_rng(4).permutation(np.eye(CLASSES)[labels])
    assert and_back(given, target, held, np.eye(CLASSES)[truth])[0] > 0.8


def test_a_large_domain_is_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    task, head = make_task()
    target, hidden = draw(60, 2, MOVE)
    monkeypatch.setattr(domain_heads, "MOST_IMAGES", 45)
    monkeypatch.setattr(domain_heads, "MOST_JUDGED", 45)
    assert accuracy(TRANSPORT, task, head, target, hidden) > 0.95
    assert there_and_back(TRANSPORT, head, task, target)[1] > 0.8


def test_views_of_a_training_image_go_together() -> None:
    task, head = make_task()
    twice = Task([task.views[0], task.views[0]], task.labels, task.weights)
    target, hidden = draw(60, 2, MOVE)
    for kind in (CORAL, TRANSPORT):
        assert accuracy(kind, twice, head, target, hidden) > 0.95
