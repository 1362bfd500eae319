"""Differences of two runs on the same images: what they are, how far they may be luck, and whose answers are better."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from multitl.judging.label_metrics import score_labels
from multitl.judging.metrics import score
from multitl.judging.number_metrics import score_numbers
from multitl.judging.pairs import Answers, compare_pair, figures_of, holm, mcnemar

if keras.config.backend() != "jax":
    pytest.skip("no framework is asked here", allow_module_level=True)

RANDOM = np.random.default_rng(3)
NAMES = ["a", "b", "c"]


def of_classes(truth: np.ndarray, skill: float) -> Answers:
    logits = RANDOM.normal(0, 1, (len(truth), 3)) + skill * np.eye(3)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Answers("one", truth, probabilities.argmax(axis=1), probabilities)


def of_labels(truth: np.ndarray, skill: float) -> Answers:
    probabilities = 1 / (1 + np.exp(-RANDOM.normal(skill * (2 * truth - 1), 1)))
    return Answers("several", truth, probabilities >= 0.5, probabilities)


def of_numbers(truth: np.ndarray, noise: float) -> Answers:
    said = truth + RANDOM.normal(0, noise, len(truth))
    return Answers("number", truth, said, said[:, None])


CLASSES, LABELS, NUMBERS = RANDOM.integers(0, 3, 200), RANDOM.random((200, 3)) < 0.4, RANDOM.normal(5, 3, 200)
PAIRS = {  # the second is better
    "one": (of_classes(CLASSES, 1), of_classes(CLASSES, 2.5)),
    "several": (of_labels(LABELS, 0.5), of_labels(LABELS, 2)),
    "number": (of_numbers(NUMBERS, 3), of_numbers(NUMBERS, 1)),
}


def reported(one: Answers) -> dict:
    if one.kind == "one":
        return score(one.truth, one.probabilities, NAMES, resamples=2)
    if one.kind == "several":
        return score_labels(one.truth, one.probabilities, NAMES, [0.5] * 3, resamples=2)
    return score_numbers(one.truth, one.given, 0.0, resamples=2)


@pytest.mark.parametrize("kind", PAIRS)
def test_figures_are_those_of_the_report_and_the_better_run_is_told(kind: str):
    first, second = PAIRS[kind]
    duel = compare_pair(first, second, resamples=200)
    before, after = reported(first), reported(second)
    for name, one in duel.differences.items():
        assert one.first == pytest.approx(before[name], rel=1e-5)
        assert one.second == pytest.approx(after[name], rel=1e-5)
        assert one.difference == one.second - one.first
        assert one.interval[0] <= one.difference <= one.interval[1] and one.is_clear, name
    assert duel.only_second > duel.only_first and duel.p_value < 0.001


def test_both_are_judged_on_the_same_resamples():
    """The interval of a difference is that of the mean of the images' own differences."""
    first, second = PAIRS["one"]
    random, gains = np.random.default_rng(0), second.right.astype(float) - first.right
    means = [gains[random.integers(0, 200, 200)].mean() for _ in range(500)]
    one = compare_pair(first, second, seed=0, resamples=500).differences["accuracy"]
    np.testing.assert_allclose(one.interval, np.quantile(means, [0.025, 0.975]), rtol=1e-9)


@pytest.mark.parametrize("kind", PAIRS)
def test_a_run_does_not_differ_from_itself(kind: str):
    duel = compare_pair(PAIRS[kind][0], PAIRS[kind][0], resamples=20)
    assert all((one.difference, *one.interval) == (0, 0, 0) and not one.is_clear for one in duel.differences.values())
    assert (duel.only_first, duel.only_second, duel.p_value) == (0, 0, 1.0)


def test_mcnemar_is_exact():
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(5, 5) == 1


def test_holm_asks_more_of_several_questions():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])  # the example of R's p.adjust
    assert holm([0.02]) == [0.02]


def test_a_figure_that_a_run_does_not_have_is_left_out():
    """Of numbers that are all the same there is no R2."""
    same = Answers("number", np.full(9, 2.0), np.arange(9.0), np.arange(9.0)[:, None])
    assert figures_of(same, resamples=9)["r2"] is None
    assert set(compare_pair(same, same, resamples=9).differences) == {"mae", "rmse"}
