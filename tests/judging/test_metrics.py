"""Figures against scikit-learn's own and against properties that must hold for any classifier."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from multitl.errors import DataError
from multitl.judging.metrics import BINS, judge, reliability, score


def _names(classes: int) -> list[str]:
    return [f"class {i}" for i in range(classes)]


def _classifier(count: int, classes: int, seed: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the probabilities themselves: calibrated by construction where `sharpness` is 1."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(classes, 0.3), count)
    labels = (probabilities.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1)
    sharpened = probabilities**sharpness
    return labels, sharpened / sharpened.sum(axis=1, keepdims=True)


classifiers = st.builds(
    _classifier, count=st.integers(1, 60), classes=st.integers(2, 9), seed=st.integers(0, 10_000),
    sharpness=st.sampled_from([0.3, 1.0, 3.0]),
)  # fmt: skip


def test_point_figures_equal_scikit_learn() -> None:
    labels, probabilities = _classifier(500, 7, seed=1)
    predicted = probabilities.argmax(axis=1)
    figures = score(labels, probabilities, _names(7), resamples=10)
    assert figures["accuracy"] == sklearn_metrics.accuracy_score(labels, predicted)
    assert figures["f1_macro"] == pytest.approx(sklearn_metrics.f1_score(labels, predicted, average="macro"))
    assert figures["f1_weighted"] == pytest.approx(sklearn_metrics.f1_score(labels, predicted, average="weighted"))
    assert figures["log_loss"] == pytest.approx(sklearn_metrics.log_loss(labels, probabilities))
    assert figures["top5_accuracy"] == sklearn_metrics.top_k_accuracy_score(labels, probabilities, k=5)
    assert figures["confusion_matrix"] == sklearn_metrics.confusion_matrix(labels, predicted).tolist()
    report = sklearn_metrics.classification_report(labels, predicted, output_dict=True)
    for index, row in enumerate(figures["per_class"]):
        wanted = report[str(index)]
        assert row["class"] == f"class {index}"
        assert [row[key] for key in ("precision", "recall", "f1", "support")] == pytest.approx(
            [wanted[key] for key in ("precision", "recall", "f1-score", "support")]
        )


def test_ties_and_certain_answers_are_judged_as_scikit_learn_does() -> None:
    labels, probabilities = _classifier(400, 8, seed=5, sharpness=9.0)
    probabilities = probabilities.round(1) + 1e-3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    probabilities[:9] = np.eye(8)[3]
    figures = score(labels, probabilities, _names(8), resamples=10)
    exact = probabilities / probabilities.sum(axis=1, keepdims=True)
    assert figures["log_loss"] == pytest.approx(sklearn_metrics.log_loss(labels, exact))
    assert figures["top5_accuracy"] == sklearn_metrics.top_k_accuracy_score(labels, exact, k=5)


def test_calibration_error_follows_its_definition() -> None:
    labels, probabilities = _classifier(400, 4, seed=2, sharpness=3.0)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    wanted = 0.0
    for i in range(BINS):
        inside = (confidence > i / BINS) & (confidence <= (i + 1) / BINS)
        if inside.any():
            wanted += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert score(labels, probabilities, _names(4), resamples=10)["ece"] == pytest.approx(wanted)


def test_a_calibrated_model_has_a_small_error_and_an_overconfident_one_a_large_one() -> None:
    calibrated = score(*_classifier(20_000, 5, seed=3), _names(5), resamples=50)
    overconfident = score(*_classifier(20_000, 5, seed=3, sharpness=4.0), _names(5), resamples=50)
    assert calibrated["ece"] < 0.012
    assert overconfident["ece"] > 0.1
    assert overconfident["log_loss"] > calibrated["log_loss"]


def test_confidence_on_a_bin_edge_belongs_to_the_lower_bin() -> None:
    labels, probabilities = np.array([0, 0]), np.array([[0.6, 0.4], [1.0, 0.0]])
    bins = reliability(judge(labels, probabilities))
    assert [(round(b.low * BINS), b.count) for b in bins] == [(8, 1), (14, 1)]
    assert bins[0].high == pytest.approx(0.6)


def test_intervals_are_those_of_resampling_with_scikit_learn() -> None:
    labels, probabilities = _classifier(120, 3, seed=4)
    predicted, random = probabilities.argmax(axis=1), np.random.default_rng(9)
    slow: dict[str, list[float]] = {"accuracy": [], "f1_macro": [], "f1_weighted": []}
    for _ in range(600):
        drawn = random.integers(0, 120, 120)
        true, guess = labels[drawn], predicted[drawn]
        slow["accuracy"].append(sklearn_metrics.accuracy_score(true, guess))
        slow["f1_macro"].append(sklearn_metrics.f1_score(true, guess, average="macro"))
        slow["f1_weighted"].append(sklearn_metrics.f1_score(true, guess, average="weighted"))
    figures = score(labels, probabilities, _names(3))
    for name, values in slow.items():
        assert figures[f"{name}_ci"] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.02)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth = np.mean([score(*_classifier(20_000, 4, seed=s), _names(4), resamples=2)["accuracy"] for s in range(3)])
    covered = 0
    for seed in range(100):
        low, high = score(*_classifier(150, 4, seed=100 + seed), _names(4), resamples=200)["accuracy_ci"]
        covered += low <= truth <= high
    assert 88 <= covered <= 100


@given(classifiers)
@settings(max_examples=60, deadline=None)
def test_figures_are_finite_json_in_range_inside_their_intervals(classifier: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = classifier
    classes = probabilities.shape[1]
    figures = score(labels, probabilities, _names(classes), resamples=25)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert ("top5_accuracy" in figures) == (classes > 5)
    for name in ("accuracy", "f1_macro", "f1_weighted", "ece"):
        low, high = figures[f"{name}_ci"]
        assert 0 <= low <= figures[name] <= high <= 1 + 1e-12
    assert np.sum(figures["confusion_matrix"]) == figures["count"] == len(labels)
    assert [row["support"] for row in figures["per_class"]] == np.sum(figures["confusion_matrix"], axis=1).tolist()
    assert figures["log_loss"] >= 0


@given(classifiers, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_examples_does_not_matter(classifier: tuple[np.ndarray, np.ndarray], shuffler) -> None:
    labels, probabilities = classifier
    order = list(range(len(labels)))
    shuffler.shuffle(order)
    first = score(labels, probabilities, _names(probabilities.shape[1]), resamples=20)
    second = score(labels[order], probabilities[order], _names(probabilities.shape[1]), resamples=20)
    assert first.pop("log_loss") == pytest.approx(second.pop("log_loss"))
    assert first == second


@given(classifiers, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_renaming_the_classes_changes_nothing_but_their_order(classifier, shuffler) -> None:
    labels, probabilities = classifier
    order = list(range(probabilities.shape[1]))
    shuffler.shuffle(order)
    first = score(labels, probabilities, _names(len(order)), resamples=20)
    second = score(np.argsort(order)[labels], probabilities[:, order], [f"class {i}" for i in order], resamples=20)
    for name in ("accuracy", "f1_macro", "f1_weighted", "ece", "log_loss"):
        assert first[name] == pytest.approx(second[name])
    rows = {row["class"]: row for row in second["per_class"]}
    assert all(rows[row["class"]] == pytest.approx(row) for row in first["per_class"])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
@settings(max_examples=30, deadline=None)
def test_perfect_predictions_score_one(labels: list[int]) -> None:
    figures = score(np.array(labels), np.eye(6)[labels], _names(6), resamples=20)
    for name in ("accuracy", "f1_macro", "f1_weighted"):
        assert figures[name] == 1.0
        assert figures[f"{name}_ci"] == [1.0, 1.0]
    assert figures["ece"] == 0.0
    assert figures["top5_accuracy"] == 1.0
    assert figures["log_loss"] == pytest.approx(0.0, abs=1e-9)


def test_absent_classes_do_not_count_in_macro_f1_unless_predicted() -> None:
    right = score(np.array([0, 1]), np.eye(3)[[0, 1]], _names(3), resamples=5)
    assert right["f1_macro"] == 1.0
    absent = {"class": "class 2", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert right["per_class"][2] == absent | {"specificity": 1.0, "roc_auc": None, "average_precision": None}
    assert (right["roc_auc"], right["map"], right["kappa"]) == (1.0, 1.0, 1.0)
    assert right["confusion_matrix"] == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    wrong = score(np.array([0, 1]), np.eye(3)[[0, 2]], _names(3), resamples=5)
    assert wrong["f1_macro"] == pytest.approx(1 / 3)


def test_the_seed_decides_the_intervals() -> None:
    labels, probabilities = _classifier(300, 4, seed=5)
    first, again, other = (score(labels, probabilities, _names(4), seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first["f1_macro_ci"] != other["f1_macro_ci"]
    assert first["f1_macro_ci"] == pytest.approx(other["f1_macro_ci"], abs=0.02)


def test_float32_rows_that_sum_to_one_only_roughly_are_accepted() -> None:
    labels, probabilities = _classifier(50, 4, seed=6)
    rough = (probabilities * 1.0004).astype(np.float32)
    assert score(labels, rough, _names(4))["accuracy"] == score(labels, probabilities, _names(4))["accuracy"]


@pytest.mark.parametrize(
    ("labels", "probabilities", "words"),
    [
        ([0, 1], [[0.5, 0.5]], "do not fit"),
        ([0], [[0.2, 0.3, 0.5]], "do not fit"),
        ([0], [0.5, 0.5], "do not fit"),
        ([], np.zeros((0, 2)), "nothing to score"),
        ([2], [[0.5, 0.5]], "out of range"),
        ([-1], [[0.5, 0.5]], "out of range"),
        ([0.0], [[0.5, 0.5]], "out of range"),
        ([0], [[0.5, 0.6]], "row 0"),
        ([0, 0], [[0.5, 0.5], [np.nan, 0.5]], "row 1"),
        ([0], [[np.inf, -np.inf]], "row 0"),
        ([0], [[1.5, -0.5]], "row 0"),
    ],
)
def test_unusable_input_is_refused(labels, probabilities, words: str) -> None:
    with pytest.raises(DataError, match=words):
        score(np.array(labels), np.array(probabilities), _names(2))


def test_metrics_import_no_framework() -> None:
    frameworks = {"keras", "jax", "torch", "tensorflow"}
    code = f"import sys, multitl.judging.metrics; sys.exit(bool({frameworks} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
