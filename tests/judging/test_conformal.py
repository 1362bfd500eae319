"""Sets of plausible classes: they hold the true one as often as they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from multitl.judging.conformal import COVERAGE, describe_sets, least_plausible, plausible


def made_up(count: int, seed: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Truth (n,) and probabilities (n, 5) of a network that is too sure, or not sure enough."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, 5))
    truth = np.array([random.choice(5, p=row) for row in softmax(2 * logits, axis=1)])
    return truth, softmax(sharpness * logits, axis=1)


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 8.0])
def test_the_promise_holds_however_sure_the_network_is(sharpness):
    shares = []
    for seed in range(40):
        least = least_plausible(*made_up(50, seed, sharpness))
        shares.append(describe_sets(*made_up(400, 1000 + seed, sharpness), least)[0])
    assert COVERAGE <= np.mean(shares) < COVERAGE + 0.04  # 1 / 51 more by rounding up


def test_the_threshold_is_an_order_statistic():
    probabilities = np.array([[share, 1 - share] for share in np.linspace(0.5, 0.95, 10)])
    truth = np.zeros(10, int)
    assert least_plausible(truth, probabilities) == 0.5  # ceil(11 * 0.9) = 10 of 10
    truth[0] = 1
    assert least_plausible(truth, probabilities[:, ::-1]) == pytest.approx(0.05)


def test_too_few_images_promise_nothing():
    truth, probabilities = made_up(8, 0, 2.0)
    assert least_plausible(truth, probabilities) == 0.0
    assert plausible(probabilities[0], 0.0) == np.argsort(-probabilities[0], kind="stable").tolist()
    assert least_plausible(truth[:0], probabilities[:0]) == 0.0


def test_a_set_is_never_empty_and_begins_with_the_likeliest():
    assert plausible(np.array([0.2, 0.5, 0.3], "float32"), 0.9) == [1]
    assert plausible(np.array([0.2, 0.5, 0.3], "float32"), 0.25) == [1, 2]
    assert describe_sets(np.array([0, 1]), np.array([[0.2, 0.5, 0.3]] * 2), 0.25) == (0.5, 2.0)
