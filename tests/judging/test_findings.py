"""What the report concludes from the figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multitl.judging.findings import (
    classes_by_f1,
    confused_pairs,
    confusion,
    coverage,
    error_bound_without_mistakes,
    lowest,
    overconfidence,
    telling_pictures,
    trust_above,
    typical_pictures,
)
from multitl.judging.metrics import judge, score
from multitl.judging.predictions import Predictions

NAMES = ("cat", "dog", "cow")


def _predictions(labels: list[int], predicted: list[int], confidence: list[float]) -> Predictions:
    rest = (1 - np.array(confidence)) / (len(NAMES) - 1)
    probabilities = np.repeat(rest[:, None], len(NAMES), axis=1)
    probabilities[np.arange(len(labels)), predicted] = confidence
    paths = tuple(f"{i}.png" for i in range(len(labels)))
    return Predictions(NAMES, ("test",) * len(labels), paths, np.array(labels), probabilities.astype(np.float32))


EXAMPLE = _predictions([0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 0, 2], [0.9, 0.8, 0.6, 0.7, 0.95, 0.5])
METRICS = score(EXAMPLE.labels, EXAMPLE.probabilities, NAMES, resamples=2)


def test_pairs_are_the_mistakes_most_frequent_first() -> None:
    pairs = confused_pairs(METRICS, 5)
    assert [(pair.true, pair.predicted, pair.count, pair.support) for pair in pairs] == [
        ("cat", "dog", 2, 3),
        ("dog", "cat", 1, 2),
    ]


def test_the_matrix_keeps_the_classes_with_most_mistakes() -> None:
    small = confusion(METRICS, 2)
    assert small.names == ["cat", "dog"]
    assert small.hidden == 1
    assert [[cell.count for cell in row.cells] for row in small.rows] == [[1, 2], [1, 1]]
    assert small.rows[0].cells[1].share == pytest.approx(2 / 3)
    whole = confusion(METRICS, 50)
    assert [[cell.count for cell in row.cells] for row in whole.rows] == METRICS["confusion_matrix"]


def test_weak_classes_come_first_and_absent_ones_last() -> None:
    absent = {"class": "yak", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    rows = classes_by_f1({"per_class": [absent, *METRICS["per_class"]]})
    assert [row["class"] for row in rows] == ["cat", "dog", "cow", "yak"]


def test_confident_mistakes_come_first() -> None:
    pictures, are_mistakes = telling_pictures(EXAMPLE, 2)
    assert are_mistakes and telling_pictures(EXAMPLE, 1)[0] == pictures  # of each confusion the surest
    assert [(p.path, p.true, p.predicted) for p in pictures] == [("4.png", "dog", "cat"), ("1.png", "cat", "dog")]
    assert pictures[0].confidence == pytest.approx(0.95)
    assert pictures[0].true_probability == pytest.approx(0.025)
    assert len(telling_pictures(EXAMPLE, 10)[0]) == 3


def test_a_class_looks_like_what_it_is_likeliest_for() -> None:
    found = typical_pictures(EXAMPLE)
    assert found == [("cat", "0.png"), ("cat", "2.png"), ("dog", "3.png"), ("dog", "4.png"), ("cow", "5.png")]


def test_without_mistakes_the_least_sure_come_first() -> None:
    pictures, are_mistakes = telling_pictures(_predictions([0, 1, 2], [0, 1, 2], [0.9, 0.5, 0.7]), 2)
    assert not are_mistakes
    assert [picture.path for picture in pictures] == ["1.png", "2.png"]


@given(st.integers(1, 80), st.integers(0, 1000))
@settings(deadline=None)
def test_coverage_ends_at_the_accuracy_and_agrees_with_thresholds(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([0.5] * 3, count).round(1) + 1e-9  # rounded: equal confidences
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    judged = judge(random.integers(0, 3, count), probabilities)
    steps = coverage(judged)
    assert [step.share for step in steps] == sorted({step.share for step in steps})
    assert steps[-1].share == 1
    assert steps[-1].accuracy == pytest.approx(judged.correct.mean())
    for step in steps:
        above = trust_above(judged, step.confidence)
        assert above is not None
        assert (above.share, above.accuracy) == pytest.approx((step.share, step.accuracy))
    assert len(coverage(judged, most=5)) <= 5


def test_trust_in_nothing_is_none() -> None:
    judged = judge(EXAMPLE.labels, EXAMPLE.probabilities)
    assert trust_above(judged, 0.99) is None
    assert overconfidence(judged) == pytest.approx(np.mean([0.9, 0.8, 0.6, 0.7, 0.95, 0.5]) - 0.5)


def test_the_bound_without_mistakes_is_the_rule_of_three() -> None:
    assert error_bound_without_mistakes(1000) == pytest.approx(3 / 1000, rel=0.01)
    assert (1 - error_bound_without_mistakes(20)) ** 20 == pytest.approx(0.05)


def test_the_first_of_the_lowest() -> None:
    assert lowest([0.5, 0.2, math.nan, 0.2]) == 1
    assert lowest([math.nan]) is None
    assert lowest([]) is None
