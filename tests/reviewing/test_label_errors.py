"""Which labels are suspected, by the definition of confident learning and on labels that were planted."""

from __future__ import annotations

import numpy as np

from multitl.models.goals import GOALS
from multitl.reviewing.answers import unseen_answers
from multitl.reviewing.label_errors import count_label_errors, find_label_errors
from multitl.training import large_tasks
from multitl.training.solved_head import Task


def test_how_many_are_wrong_is_told_by_the_mean_confidence_in_each_class():
    """By hand: the thresholds are 0.7 and 0.63, then 0.55 and 0.47; of a class without images nothing is suspected.

    Two images count for another class; of the three that are answered otherwise those of the least probable labels.
    """
    probabilities = np.array([[0.9, 0.1, 0], [0.5, 0.5, 0], [0.3, 0.7, 0], [0.35, 0.65, 0], [0.1, 0.45, 0.45]])
    labels = np.array([0, 0, 1, 1, 1])
    assert find_label_errors(probabilities, labels).rows.tolist() == []
    probabilities[1], probabilities[4] = [0.2, 0.8, 0], [0.95, 0.05, 0]
    assert count_label_errors(probabilities, labels) == 2
    probabilities[3] = [0.51, 0.49, 0]  # answered otherwise, and not as sure
    found = find_label_errors(probabilities, labels)
    assert found.rows.tolist() == [4, 1]
    assert found.suggested.tolist() == [0, 1]
    np.testing.assert_allclose(found.score, [0.95, 0.8])


def planted(count: int = 120, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features around a corner each (count, 4), labels of which every tenth is wrong, and whether it is."""
    random = np.random.default_rng(0)
    truth = np.arange(count) % classes
    features = (3 * np.eye(classes, 4)[truth] + random.normal(0, 0.2, (count, 4))).astype("float32")
    is_wrong = np.arange(count) % 10 == 3
    return features, np.where(is_wrong, (truth + 1) % classes, truth), is_wrong


def test_planted_errors_are_found_and_named(monkeypatch):
    features, labels, is_wrong = planted()
    task = Task([features], np.eye(3, dtype="float32")[labels], np.ones(len(labels), "float32"))
    probabilities, others = unseen_answers(task, features[:7])
    found = find_label_errors(probabilities, labels)
    assert sorted(found.rows.tolist()) == np.flatnonzero(is_wrong).tolist()
    assert (found.suggested == (labels[found.rows] - 1) % 3).all()
    assert others.shape == (7, 3)
    np.testing.assert_allclose(others.sum(axis=1), 1, atol=1e-6)

    monkeypatch.setattr(large_tasks, "IN_MEMORY", features.nbytes // 2)  # in parts, none of which sees all
    monkeypatch.setattr(large_tasks, "SAMPLE_BYTES", features.nbytes // 2)
    monkeypatch.setattr(large_tasks, "A_CHANNEL", 1)
    in_parts, _ = unseen_answers(task, features[:7])
    assert sorted(find_label_errors(in_parts, labels).rows.tolist()) == np.flatnonzero(is_wrong).tolist()
    assert not np.allclose(in_parts, probabilities)


def test_too_few_images_for_folds_are_not_judged():
    few = Task([np.eye(3, dtype="float32")], np.eye(3, dtype="float32"), np.ones(3, "float32"), goal=GOALS["one"])
    assert unseen_answers(few, np.empty((0, 3), "float32")) is None
