"""Against SciPy's matrix roots, and what it is for: equal covariances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from multitl.training.coral import RIDGE, covariance_power, recolour

RANDOM = np.random.default_rng(3)


def draw(count: int, channels: int) -> np.ndarray:
    return (RANDOM.normal(2, 1, (count, channels)) @ RANDOM.normal(0, 1, (channels, channels))).astype("float32")


def test_features_get_the_mean_and_the_covariance_of_the_others() -> None:
    source, target = draw(300, 6), draw(200, 6)
    found = recolour(source, target, ridge=1e-9)(source)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=0), target.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(np.cov(found.T, ddof=0), np.cov(target.T, ddof=0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [50, 4])  # more images than channels, and fewer
def test_it_is_the_papers_formula(count: int) -> None:
    source, target = draw(count, 5), draw(40, 5)
    ridges = [RIDGE * np.trace(np.cov(one.T, ddof=0)) / 5 * np.eye(5) for one in (source, target)]
    first, second = (np.cov(one.T, ddof=0) + ridge for one, ridge in zip((source, target), ridges, strict=True))
    expected = (source - source.mean(axis=0)) @ np.linalg.inv(sqrtm(first)) @ sqrtm(second) + target.mean(axis=0)
    np.testing.assert_allclose(recolour(source, target)(source), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("count", [1, 4])
def test_fewer_images_than_channels_or_a_channel_without_life_are_no_obstacle(count: int) -> None:
    source, target = draw(count, 8), draw(5, 8)
    source[:, 2] = target[:, 3] = 0
    assert np.isfinite(recolour(source, target)(source)).all()


def test_the_same_domain_stays_where_it_is() -> None:
    source = draw(30, 12)
    np.testing.assert_allclose(recolour(source, source)(source), source, rtol=1e-3, atol=1e-3)
    root = covariance_power(source, RIDGE, 0.5)
    added = RIDGE * np.trace(np.cov(source.T, ddof=0)) / 12 * np.eye(12)
    np.testing.assert_allclose(root @ root, np.cov(source.T, ddof=0) + added, rtol=1e-3, atol=1e-4)
