"""Figures of merit beside scikit-learn's, and what a constant answer gives."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.dummy import DummyClassifier, DummyRegressor

from multitl.judging.merits import baselines_of, merit_of

RANDOM = np.random.default_rng(0)
COUNT, NAMES = 80, ("cat", "dog", "owl")


def test_of_one_class() -> None:
    truth, answers = RANDOM.integers(0, 2, COUNT), RANDOM.dirichlet([1, 1, 1], COUNT)
    merit = merit_of("one", truth, answers, 0)
    assert merit.score == pytest.approx(sklearn_metrics.accuracy_score(truth, answers.argmax(axis=1)))
    assert merit.interval[0] < merit.score < merit.interval[1] and merit.mae is None
    always, guessing = baselines_of("one", truth, NAMES)
    constant = DummyClassifier(strategy="most_frequent").fit(truth[:, None], truth)
    assert always.score == pytest.approx(constant.score(truth[:, None], truth))
    assert always.says == f"always {NAMES[constant.predict([[0]])[0]]}"
    assert guessing.score == pytest.approx(1 / 3)


def test_of_several_labels() -> None:
    truth, answers = RANDOM.random((COUNT, 3)) < 0.3, RANDOM.random((COUNT, 3))
    merit = merit_of("several", truth, answers, 0)
    assert merit.score == pytest.approx(sklearn_metrics.average_precision_score(truth, answers))
    assert merit.interval[0] < merit.score < merit.interval[1]
    (guessing,) = baselines_of("several", truth, NAMES)
    assert guessing.score == pytest.approx(sklearn_metrics.average_precision_score(truth, np.ones_like(answers)))
    truth[:, 1] = False  # a label that no image has: nothing is known of it
    assert merit_of("several", truth, answers, 0).score == pytest.approx(
        sklearn_metrics.average_precision_score(truth[:, [0, 2]], answers[:, [0, 2]])
    )
    assert merit_of("several", np.zeros_like(truth), answers, 0).score == 0


def test_of_a_number() -> None:
    truth = RANDOM.normal(100, 10, COUNT)
    answers = truth[:, None] + RANDOM.normal(0, 5, (COUNT, 1))
    merit = merit_of("number", truth, answers, 0)
    assert merit.score == pytest.approx(sklearn_metrics.r2_score(truth, answers))
    assert merit.mae == pytest.approx(sklearn_metrics.mean_absolute_error(truth, answers))
    assert merit_of("number", truth, -answers, 0).score < 0, "worse than the mean is said to be so"
    (always,) = baselines_of("number", truth, ("value",))
    said = DummyRegressor().fit(truth[:, None], truth).predict(truth[:, None])
    assert always.score == pytest.approx(sklearn_metrics.r2_score(truth, said))
    assert always.mae == pytest.approx(sklearn_metrics.mean_absolute_error(truth, said))
