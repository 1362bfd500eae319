"""Figures of several labels an image, against scikit-learn's and the plainest way of writing them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn import metrics as sklearn_metrics

from multitl.errors import DataError
from multitl.judging import label_metrics
from multitl.judging.label_findings import label_cautions, seen_for, telling_label_pictures
from multitl.judging.label_metrics import average_precisions, best_thresholds, score_labels
from multitl.judging.predictions import Predictions, read_predictions, write_label_predictions

NAMES = ("a", "b|c", "ünï")


def draw(count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth, and probabilities in steps of 0.05, so that some are equal."""
    random = np.random.default_rng(seed)
    truth = random.random((count, 3)) < [0.5, 0.2, 0.05]
    return truth, np.round(expit(random.normal(3 * truth - 1.5, 1.5)) * 20) / 20


def test_figures_are_those_of_scikit_learn() -> None:
    truth, probabilities = draw()
    thresholds = best_thresholds(truth, probabilities)
    given = probabilities >= thresholds
    found = score_labels(truth, probabilities, NAMES, thresholds, resamples=100)
    for name, value in {
        "map": sklearn_metrics.average_precision_score(truth, probabilities, average="macro"),
        "roc_auc": sklearn_metrics.roc_auc_score(truth, probabilities, average="macro"),
        "f1_macro": sklearn_metrics.f1_score(truth, given, average="macro"),
        "f1_micro": sklearn_metrics.f1_score(truth, given, average="micro"),
        "subset_accuracy": sklearn_metrics.accuracy_score(truth, given),
        "hamming_loss": sklearn_metrics.hamming_loss(truth, given),
        "log_loss": sum(sklearn_metrics.log_loss(*one) for one in zip(truth.T, probabilities.T, strict=True)),
    }.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
        if interval := found.get(f"{name}_ci"):
            assert interval[0] <= found[name] <= interval[1] and interval[0] < interval[1]
    tables = sklearn_metrics.multilabel_confusion_matrix(truth, given)
    for row, table, one, chosen in zip(found["per_label"], tables, truth.T, given.T, strict=True):
        counts = [[row["rightly_without"], row["false_alarms"]], [row["misses"], row["hits"]]]
        assert counts == table.tolist()
        assert row["f1"] == pytest.approx(sklearn_metrics.f1_score(one, chosen))
        assert row["precision"] == pytest.approx(sklearn_metrics.precision_score(one, chosen))
        assert row["recall"] == pytest.approx(sklearn_metrics.recall_score(one, chosen))


def test_average_precision_of_a_resample_is_that_of_its_images() -> None:
    truth, probabilities = draw(60)
    weights = np.random.default_rng(1).integers(0, 4, (5, 60)).astype("float32")
    found = average_precisions(truth[:, 0], probabilities[:, 0], weights)
    for one, value in zip(weights.astype(int), found, strict=True):
        expected = sklearn_metrics.average_precision_score(truth[:, 0].repeat(one), probabilities[:, 0].repeat(one))
        assert value == pytest.approx(expected, abs=1e-5)


def test_intervals_are_the_same_however_many_resamples_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, probabilities = draw()
    whole = score_labels(truth, probabilities, NAMES, [0.5] * 3, resamples=100)
    monkeypatch.setattr(label_metrics, "AT_ONCE", 7 * len(truth))
    parts = score_labels(truth, probabilities, NAMES, [0.5] * 3, resamples=100)
    for name in ("map_ci", "f1_macro_ci", "f1_micro_ci", "subset_accuracy_ci", "hamming_loss_ci"):
        assert parts[name] == pytest.approx(whole[name], rel=1e-6)


def test_a_threshold_between_two_neighbours_of_float32_tells_them_apart() -> None:
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    for first, second in ((low, high), (high, np.nextafter(high, np.float32(1)))):  # one midpoint is rounded down
        probabilities = np.array([[first], [second]])
        predictions = Predictions(("a",), ("test",) * 2, ("x", "y"), np.array([[False], [True]]), probabilities)
        thresholds = best_thresholds(predictions.labels, probabilities)
        assert not telling_label_pictures(predictions, thresholds, 2)[1]


def test_no_threshold_is_better_than_the_best() -> None:
    truth, probabilities = draw(40)
    for one, values, threshold in zip(truth.T, probabilities.T, best_thresholds(truth, probabilities), strict=True):
        tried = {t: sklearn_metrics.f1_score(one, values >= t, zero_division=0) for t in np.linspace(0.001, 1, 500)}
        assert sklearn_metrics.f1_score(one, values >= threshold, zero_division=0) >= max(tried.values())
    assert best_thresholds(np.zeros((4, 1), bool), np.ones((4, 1))) == [0.5]
    assert best_thresholds(np.array([[1], [0]], bool), np.array([[0.9], [0.3]])) == [pytest.approx(0.6)]


def test_a_label_that_no_image_has_is_left_out() -> None:
    truth, probabilities = draw(50)
    truth[:, 1], truth[:, 2] = False, True
    found = score_labels(truth, probabilities, NAMES, [0.5] * 3, resamples=50)
    rows = found["per_label"]
    assert rows[1]["average_precision"] is None and rows[1]["roc_auc"] is None and rows[2]["roc_auc"] is None
    precisions = [rows[0]["average_precision"], rows[2]["average_precision"]]
    assert found["map"] == pytest.approx(np.mean(precisions)) and found["roc_auc"] == rows[0]["roc_auc"]
    assert any("nothing is known: b|c" in caution for caution in label_cautions(found, "test"))
    nothing = score_labels(np.zeros((3, 3), bool), probabilities[:3], NAMES, [0.5] * 3, resamples=50)
    assert nothing["map"] is None and nothing["map_ci"] is None and nothing["roc_auc"] is None


def test_the_order_of_the_images_moves_nothing() -> None:
    truth, probabilities = draw(30)
    order = np.random.default_rng(2).permutation(30)
    one = score_labels(truth, probabilities, NAMES, [0.5] * 3, resamples=50)
    assert score_labels(truth[order], probabilities[order], NAMES, [0.5] * 3, resamples=50) == one


@pytest.mark.parametrize("wrong", [np.full((2, 3), np.nan), np.full((2, 3), 1.1), np.zeros((2, 2)), np.zeros((0, 3))])
def test_what_cannot_be_scored_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"cannot be scored"):
        score_labels(np.zeros((len(wrong), 3), bool), wrong, NAMES, [0.5] * 3)


def test_predictions_come_back_from_their_file(tmp_path) -> None:
    truth, probabilities = draw(12)
    splits = ["validation"] * 5 + ["test"] * 7
    paths = [str(tmp_path / f"{number}.png") for number in range(12)]
    write_label_predictions(
        tmp_path / "predictions.csv", zip(splits, paths, truth, probabilities, strict=True), NAMES, [0.5] * 3
    )
    found = read_predictions(tmp_path / "predictions.csv")
    assert (found.class_names, list(found.splits), list(found.paths)) == (NAMES, splits, paths)
    np.testing.assert_array_equal(found.labels, truth)
    np.testing.assert_array_equal(found.probabilities, probabilities.astype("float32"))
    assert found.of("test").labels.shape == (7, 3)


def test_labels_seen_for_others_and_the_clearest_mistakes() -> None:
    truth = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    probabilities = np.array([[0.1, 0.9, 0.0], [0.2, 0.6, 0.1], [0.1, 0.8, 0.2], [0.4, 0.2, 0.1]], "float32")
    predictions = Predictions(("a", "b", "c"), ("test",) * 4, tuple("wxyz"), truth, probabilities)
    (swap,) = seen_for(predictions, [0.5] * 3, 6)
    assert (swap.true, swap.said, swap.count) == ("a", "b", 2)
    pictures, are_mistakes = telling_label_pictures(predictions, [0.5] * 3, 12)
    assert are_mistakes and [picture.path for picture in pictures] == ["w", "x"]
    assert pictures[0].true == ("a",) and pictures[0].said == ("b",)
    calm, are_mistakes = telling_label_pictures(
        Predictions(("a", "b", "c"), ("test",) * 4, tuple("wxyz"), probabilities >= 0.5, probabilities), [0.5] * 3, 2
    )
    assert not are_mistakes and {(picture.path, picture.wrong) for picture in calm} == {("x", "b"), ("z", "a")}
