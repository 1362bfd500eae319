"""Augmented batches: still images, different for every seed, the same for the same one."""

from __future__ import annotations

import numpy as np
import pytest

from multitl.data.augmentation import augment

pytestmark = pytest.mark.every_backend

GRADIENT = np.linspace(0, 255, 24, dtype="uint8")
PIXELS = np.stack([np.broadcast_to(GRADIENT[None, :, None], (24, 24, 3))] * 16)  # dark on the left, bright on the right


def test_none_changes_nothing() -> None:
    assert augment(PIXELS, "none", seed=1) is PIXELS


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_a_seed_is_a_draw(strength: str) -> None:
    one, again, other = (augment(PIXELS, strength, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one.astype(int) - other).max() > 20
    assert one.dtype == np.uint8 and one.shape == PIXELS.shape


def test_images_of_a_batch_are_changed_one_by_one() -> None:
    changed = augment(PIXELS, "light", seed=1)
    assert len({image.tobytes() for image in changed}) > 4


def test_light_mirrors_some_and_keeps_the_rest() -> None:
    slopes = augment(PIXELS, "light", seed=3).astype(float)[:, :, 16:].mean((1, 2, 3)) - 127
    assert (slopes > 20).any() and (slopes < -20).any()  # bright on the right, and mirrored


def test_values_stay_within_a_pixel() -> None:
    bright = augment(np.full((8, 16, 16, 3), 250, np.uint8), "strong", seed=5)
    assert bright.min() > 100  # no wrap-around past 255
