"""The solver against scikit-learn's, and against what makes a minimum; no framework takes part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge

from multitl.models import several_labels
from multitl.models.numbers import Numbers
from multitl.training import softmax_regression
from multitl.training.softmax_regression import ROUGH, Problems, Samples, SoftmaxRegression


def draw(count: int, channels: int, classes: int, seed: int = 0) -> Samples:
    """Overlapping classes, soft labels, uneven weights."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = random.normal(0.3, 1, (count, channels)) + 0.5 * np.eye(classes, channels)[labels]
    targets = 0.9 * np.eye(classes)[labels] + 0.1 / classes
    return Samples(features.astype("float32"), targets, random.uniform(0.2, 3, count))


def gradient(samples: Samples, kernel: np.ndarray, bias: np.ndarray, penalty: float) -> np.ndarray:
    """Of the objective, written down once more in the plainest way."""
    features = np.column_stack([samples.features.astype("float64"), np.ones(len(samples.features))])
    theta = np.vstack([kernel, bias])
    shares = samples.weights / samples.weights.sum()
    return features.T @ ((softmax(features @ theta, axis=1) - samples.targets) * shares[:, None]) + 2 * penalty * theta


@pytest.mark.parametrize(("count", "channels"), [(90, 7), (24, 60), (61, 60), (60, 60)])
@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-5])
def test_the_gradient_of_the_plain_objective_is_zero(count: int, channels: int, penalty: float) -> None:
    samples = draw(count, channels, 3)
    solution = SoftmaxRegression(samples).solve(penalty)
    start = gradient(samples, np.zeros((channels, 3)), np.zeros(3), penalty)
    end = gradient(samples, solution.kernel, solution.bias, penalty)
    assert np.linalg.norm(end) <= 1e-6 * np.linalg.norm(start)


@pytest.mark.parametrize(("count", "channels"), [(90, 7), (24, 60)])
def test_it_is_the_solution_of_scikit_learn(count: int, channels: int) -> None:
    samples, penalty = draw(count, channels, 3), 1e-3
    hard = samples.targets.argmax(axis=1)
    hard_samples = Samples(samples.features, np.eye(3)[hard], samples.weights)
    ours = SoftmaxRegression(hard_samples).solve(penalty)
    c = 1 / (2 * penalty * samples.weights.sum())  # it minimises C * sum of losses + ||w||^2 / 2, without the bias
    theirs = LogisticRegression(C=c, fit_intercept=False, tol=1e-10, max_iter=10_000)
    theirs.fit(np.column_stack([samples.features, np.ones(count)]).astype("float64"), hard, samples.weights)
    np.testing.assert_allclose(np.vstack([ours.kernel, ours.bias]), theirs.coef_.T, atol=1e-5)


@pytest.mark.parametrize(("count", "channels"), [(90, 7), (24, 60)])
def test_of_several_labels_it_is_as_many_regressions_of_scikit_learn(count: int, channels: int) -> None:
    samples, penalty = draw(count, channels, 3), 1e-3
    targets = np.random.default_rng(1).random((count, 3)) < 0.2 + 0.5 * samples.targets
    ours = SoftmaxRegression(Samples(samples.features, targets, samples.weights, several_labels)).solve(penalty)
    c = 1 / (2 * penalty * samples.weights.sum())
    for number, label in enumerate(targets.T):
        theirs = LogisticRegression(C=c, fit_intercept=False, tol=1e-10, max_iter=10_000)
        theirs.fit(np.column_stack([samples.features, np.ones(count)]).astype("float64"), label, samples.weights)
        found = np.append(ours.kernel[:, number], ours.bias[number])
        np.testing.assert_allclose(found, theirs.coef_[0], atol=1e-4)


@pytest.mark.parametrize(("count", "channels"), [(90, 7), (24, 60)])
@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-5])
def test_of_numbers_it_is_the_ridge_regression_of_scikit_learn(count: int, channels: int, penalty: float) -> None:
    samples = draw(count, channels, 3)
    numbers = samples.features[:, :1] * 2 + np.random.default_rng(1).normal(size=(count, 1))
    ours = SoftmaxRegression(Samples(samples.features, numbers, samples.weights, Numbers())).solve(penalty)
    theirs = Ridge(alpha=penalty * samples.weights.sum(), fit_intercept=False, solver="cholesky")
    theirs.fit(np.column_stack([samples.features, np.ones(count)]).astype("float64"), numbers[:, 0], samples.weights)
    np.testing.assert_allclose(np.append(ours.kernel, ours.bias), theirs.coef_, atol=1e-5)


def test_a_weight_of_two_is_a_row_that_comes_twice() -> None:
    samples = draw(30, 8, 3)
    twice = np.r_[np.arange(30), np.arange(10)]
    heavy = Samples(samples.features, samples.targets, np.where(np.arange(30) < 10, 2.0, 1.0))
    copied = Samples(samples.features[twice], samples.targets[twice], np.ones(40))
    one, other = (SoftmaxRegression(some).solve(1e-3) for some in (heavy, copied))
    np.testing.assert_allclose(one.kernel, other.kernel, atol=1e-5)


def test_problems_solved_together_are_those_solved_alone() -> None:
    """And a start from elsewhere changes nothing."""
    samples = draw(60, 90, 4)
    regression = SoftmaxRegression(samples)
    shares = (np.arange(60)[:, None] % 3 != np.arange(3)) * samples.weights[:, None]
    shares /= shares.sum(axis=0)
    start, _ = Problems(regression, shares, np.float32).minimise(1.0, ROUGH)
    together, left = Problems(regression, shares, np.float64).minimise(1e-3, 1e-9, start)
    assert left < 1e-8
    for fold in range(3):
        alone, _ = Problems(regression, shares[:, [fold]], np.float64).minimise(1e-3, 1e-9)
        np.testing.assert_allclose(together[:, fold], alone[:, 0], atol=1e-6)


def test_rows_in_blocks_have_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = draw(200, 9, 3)
    whole = SoftmaxRegression(samples).solve(1e-3)
    monkeypatch.setattr(softmax_regression, "ROWS", 7)
    np.testing.assert_allclose(SoftmaxRegression(samples).solve(1e-3).kernel, whole.kernel, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(2, 4), st.sampled_from([1e-6, 1e-2, 1e3]))
def test_few_images_or_channels_are_no_matter(count: int, channels: int, classes: int, penalty: float) -> None:
    solution = SoftmaxRegression(draw(count, channels, classes)).solve(penalty)
    assert np.isfinite(solution.kernel).all() and solution.gradient <= 1e-6


def test_features_that_say_nothing_give_the_frequencies_of_the_classes() -> None:
    targets = np.eye(2)[[0, 0, 0, 1]]
    solution = SoftmaxRegression(Samples(np.zeros((4, 5), "float32"), targets, np.ones(4))).solve(1e-9)
    np.testing.assert_allclose(solution.kernel, 0, atol=1e-12)
    np.testing.assert_allclose(softmax(solution.bias), [0.75, 0.25], atol=1e-5)


@pytest.mark.parametrize("penalty", [1e-3, 1e-2, 0.1])
def test_features_that_say_almost_nothing_are_solved_as_well(penalty: float) -> None:
    """There is next to no gradient at zero, so that a share of it is less than the loss can tell."""
    for seed in range(10):
        random = np.random.default_rng(seed)
        noise = random.normal(size=(15, 16)) * np.geomspace(1e-4, 1e-6, 16)
        samples = Samples((random.normal(size=16) + noise).astype("float32"), np.eye(5)[np.arange(15) % 5], np.ones(15))
        assert SoftmaxRegression(samples).solve(penalty).gradient <= 1e-7


@pytest.mark.parametrize("penalty", [0.5, 3.16, 10.0, 1e3])
@pytest.mark.parametrize("seed", range(4))
def test_a_large_penalty_is_solved_as_well(penalty: float, seed: int) -> None:
    """The loss is level there to the last bit while the gradient is not, above all where features hardly differ."""
    drawn = draw(60, 16, 5, seed)
    samples = Samples(1 + 0.01 * drawn.features, np.eye(5)[np.arange(60) % 5], np.ones(60))
    solution = SoftmaxRegression(samples).solve(penalty)
    start = gradient(samples, np.zeros((16, 5)), np.zeros(5), penalty)
    assert np.linalg.norm(gradient(samples, solution.kernel, solution.bias, penalty)) <= 1e-6 * np.linalg.norm(start)


@pytest.mark.parametrize(("count", "channels"), [(90, 7), (24, 60)])
@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_towards_a_prior_the_gradient_of_the_plain_objective_is_zero(count: int, channels: int, penalty: float) -> None:
    plain, prior = draw(count, channels, 3), np.random.default_rng(1).normal(0, 0.3, (channels + 1, 3))
    samples = Samples(plain.features, plain.targets, plain.weights, prior=prior)
    found = SoftmaxRegression(samples).solve(penalty)
    left = gradient(samples, found.kernel, found.bias, 0.0)
    left += 2 * penalty * (np.vstack([found.kernel, found.bias]) - prior)
    start = gradient(samples, np.zeros((channels, 3)), np.zeros(3), penalty)
    assert np.linalg.norm(left) <= 1e-5 * np.linalg.norm(start)


def test_a_strong_pull_leaves_the_prior_and_a_weak_one_forgets_it() -> None:
    plain, prior = draw(200, 7, 3), np.random.default_rng(1).normal(0, 1, (8, 3))
    pulled = SoftmaxRegression(Samples(plain.features, plain.targets, plain.weights, prior=prior))
    strong, weak, anew = pulled.solve(1e5), pulled.solve(1e-7), SoftmaxRegression(plain).solve(1e-7)
    np.testing.assert_allclose(np.vstack([strong.kernel, strong.bias]), prior, atol=1e-4)
    features = np.column_stack([plain.features, np.ones(200)])
    said, wanted = (softmax(features @ np.vstack([one.kernel, one.bias]), axis=1) for one in (weak, anew))
    np.testing.assert_allclose(said, wanted, atol=1e-3)


@pytest.mark.parametrize(("count", "channels"), [(90, 7), (24, 60)])
def test_begun_at_the_answer_to_fewer_images_it_ends_where_it_does_from_zero(count: int, channels: int) -> None:
    samples = draw(count, channels, 3)
    few = Samples(samples.features[: count - 9], samples.targets[: count - 9], samples.weights[: count - 9])
    regression, before = SoftmaxRegression(samples), SoftmaxRegression(few).solve(1e-3)
    anew, again = regression.solve(1e-3), regression.solve(1e-3, regression.coordinates(before))
    np.testing.assert_allclose(again.kernel, anew.kernel, atol=1e-6)
    at_answer = regression.coordinates(anew)
    found = at_answer[:, 0] if regression.basis is None else regression.basis @ at_answer[:, 0]
    np.testing.assert_allclose(found, np.vstack([anew.kernel, anew.bias]), atol=1e-9)


def test_a_prior_that_is_the_answer_already_is_left_as_it_is() -> None:
    """There the gradient is zero from the start."""
    plain = draw(200, 7, 3)
    best = SoftmaxRegression(plain).solve(1e-9)
    prior = np.vstack([best.kernel, best.bias])
    again = SoftmaxRegression(Samples(plain.features, plain.targets, plain.weights, prior=prior)).solve(1e-2)
    np.testing.assert_allclose(again.kernel, best.kernel, atol=1e-5)
