"""Figures by hand, and against scikit-learn's own ways to them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from multitl.judging.separation import agreement, grades, mean_of, separation

LABELS = np.array([0, 0, 1, 1, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1], [0.4, 0.35, 0.25], [0.1, 0.2, 0.7]]
)  # fmt: skip


def test_each_class_against_the_rest():
    first, second, third = separation(LABELS, PROBABILITIES)
    # of the pairs (a 0, another): 0.8 beats three, 0.3 beats 0.2 and 0.1
    assert first == pytest.approx({"roc_auc": 5 / 6, "average_precision": (1 + 2 / 3) / 2, "specificity": 2 / 3})
    assert second == pytest.approx({"roc_auc": 5 / 6, "average_precision": (1 + 2 / 3) / 2, "specificity": 2 / 3})
    assert third == pytest.approx({"roc_auc": 1.0, "average_precision": 1.0, "specificity": 1.0})


def test_means_are_those_of_scikit_learn():
    rows = separation(LABELS, PROBABILITIES)
    wanted = metrics.roc_auc_score(LABELS, PROBABILITIES, multi_class="ovr", average="macro")
    assert mean_of(rows, "roc_auc") == pytest.approx(wanted)


@pytest.mark.parametrize("decimals", [2, 9])
def test_areas_are_those_of_scikit_learn(decimals: int):
    """Rounded, most probabilities are those of several images."""
    random = np.random.default_rng(decimals)
    labels = random.integers(0, 6, 300)
    probabilities = random.dirichlet(np.ones(6), 300).round(decimals)
    for index, row in enumerate(separation(labels, probabilities)):
        is_true, values = labels == index, probabilities[:, index]
        others = probabilities[~is_true].argmax(axis=1)
        assert row["roc_auc"] == pytest.approx(metrics.roc_auc_score(is_true, values), rel=1e-12)
        assert row["average_precision"] == pytest.approx(metrics.average_precision_score(is_true, values), rel=1e-12)
        assert row["specificity"] == pytest.approx((others != index).mean(), rel=1e-12)


def test_a_class_without_images_has_no_curve_and_does_not_count():
    rows = separation(np.array([0, 1]), np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1]]))
    assert rows[2] == {"roc_auc": None, "average_precision": None, "specificity": 1.0}
    assert mean_of(rows, "roc_auc") == 1.0


def test_images_of_one_class_alone():
    rows = separation(np.array([0, 0]), np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert rows[0] == {"roc_auc": None, "average_precision": None, "specificity": None}
    assert rows[1]["specificity"] == 0.5
    assert mean_of(rows, "roc_auc") is None
    assert agreement(np.array([0, 0]), np.array([0, 0]), ["a", "b"]) == {"kappa": None}


def test_kappa_by_hand():
    """4 of 6 agree, 2 x (3 x 3) / 36 by chance."""
    found = agreement(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 0]), ["cat", "dog"])
    assert found == pytest.approx({"kappa": (4 / 6 - 0.5) / 0.5})


def test_grades_are_weighed_by_their_distance():
    """In the order of the numbers, which is not that of the names: "10" comes before "2"."""
    labels, predicted, names = np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0]), ["1", "10", "2"]
    found = agreement(labels, predicted, names)["kappa_quadratic"]
    ranks = np.array([0, 2, 1])
    assert found == pytest.approx(metrics.cohen_kappa_score(ranks[labels], ranks[predicted], weights="quadratic"))
    assert found != pytest.approx(metrics.cohen_kappa_score(labels, predicted, weights="quadratic"))


@pytest.mark.parametrize(
    ("names", "ranks"),
    [
        (["0", "1", "2"], [0, 1, 2]),
        (["grade_1", "grade_10", "grade_2"], [0, 2, 1]),
        (["stage 1.5", "stage 2", "stage 1"], [1, 2, 0]),
        (["0", "1"], None),
        (["cat", "dog", "owl"], None),
        (["cat1", "dog2", "owl3"], None),
        (["1", "01", "2"], None),
    ],
)  # fmt: skip
def test_which_classes_are_grades(names: list[str], ranks: list[int] | None):
    found = grades(names)
    assert found is None if ranks is None else list(found) == ranks


@pytest.mark.parametrize("count", [7, 20, 49])
def test_no_precision_is_above_one(count: int):
    """Sums of n shares of 1 / n are."""
    labels = np.repeat([0, 1], [count, 3])
    rows = separation(labels, np.eye(2)[labels] * 0.9 + 0.05 + np.linspace(0, 0.01, len(labels))[:, None])
    assert max(row["average_precision"] for row in rows) == 1.0
