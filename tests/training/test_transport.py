"""Against a linear programme, which is optimal transport without blur."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from multitl.training.transport import carry_labels, find_counterparts, find_plan

RANDOM = np.random.default_rng(11)


def test_a_plan_empties_every_heap_and_fills_every_hole() -> None:
    plan = find_plan(RANDOM.uniform(0, 2, (30, 20)), blur=0.05)
    np.testing.assert_allclose(plan.sum(axis=0), 1 / 20, rtol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 30, rtol=1e-2)
    assert plan.min() >= 0


def test_with_little_blur_it_is_the_best_assignment() -> None:
    costs = RANDOM.uniform(0, 2, (12, 12))
    rows, columns = linear_sum_assignment(costs)
    plan = find_plan(costs, blur=0.01)
    assert (plan.argmax(axis=1)[rows] == columns).all()


def test_the_furthest_costs_leave_numbers() -> None:
    assert np.isfinite(find_plan(np.full((3, 4), 2.0), blur=0.02)).all()


def test_labels_come_along_where_the_other_domain_lies_elsewhere() -> None:
    """The nearest training image is one of the first class for most of them."""
    centres = 4 * np.eye(3, 10)
    labels = np.arange(90) % 3
    source = (centres[labels] + RANDOM.normal(0, 0.5, (90, 10))).astype("float32")
    hidden = np.repeat(np.arange(3), 20)
    target = (centres[hidden] + 6 * np.eye(10)[0] + RANDOM.normal(0, 0.5, (60, 10))).astype("float32")
    carried = carry_labels(source, np.eye(3)[labels], target)
    np.testing.assert_allclose(carried.sum(axis=1), 1, rtol=1e-9)
    assert (carried.argmax(axis=1) == hidden).all()
    nearest = labels[np.linalg.norm(source[:, None] - target, axis=2).argmin(axis=0)]
    assert (nearest == hidden).mean() < 0.7


def test_counterparts_are_the_same_things_again_and_no_others_of_their_class() -> None:
    random = np.random.default_rng(5)
    things = np.repeat(6 * np.eye(4, 20), 50, axis=0) + random.normal(0, 1, (200, 20))
    again = 2 * things + random.normal(0, 0.3, (200, 20)) + 9
    others = np.repeat(6 * np.eye(4, 20), 50, axis=0) + random.normal(0, 1, (200, 20))
    share, is_clear = find_counterparts(things, again, 0)
    assert share > 0.95 and is_clear
    share, is_clear = find_counterparts(things, others, 0)
    assert 0.35 < share < 0.6 and not is_clear
    share, is_clear = find_counterparts(things[::4], others, 0)  # of more there is sooner one that is near
    assert share == pytest.approx(200 / 249, abs=0.17) and not is_clear
    assert find_counterparts(things[:4], again[:8], 0)[1] is False  # of so few nothing is clear
