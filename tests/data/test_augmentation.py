"""Changed images: by seed, epoch and image; the same on every backend; whole pixels moved, or smoothly warped."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from multitl.data.augmentation import NUMBERS, augment, changes_of, draw

pytestmark = pytest.mark.every_backend

SIZE = 24
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (16, SIZE, SIZE + 4, 3), dtype=np.uint8)
DRAWN = draw(1, 1, range(16))


def test_a_draw_is_by_seed_epoch_and_image() -> None:
    np.testing.assert_array_equal(draw(3, 5, [7, 8, 2**64 - 1])[1:], draw(3, 5, [8, 2**64 - 1]))
    others = [draw(3, 5, [7]), draw(4, 5, [7]), draw(3, 6, [7]), draw(3, 5, [8]), draw(5, 3, [7]), draw(10**9, 5, [7])]
    assert len({one.tobytes() for one in others}) == len(others)
    many = draw(0, 1, range(2000))
    assert many.min() >= 0 and many.max() < 1 and np.abs(many.mean(axis=0) - 0.5).max() < 0.03


def test_light_moves_whole_pixels() -> None:
    """Beside a plain loop: mirrored or not, shifted, what lies outside reflected."""
    changed = augment(PIXELS, "light", DRAWN)
    mirrored = set()
    for image, result, (mirror, down, right, *_) in zip(PIXELS, changed, DRAWN, strict=True):
        shift = [round((2 * down - 1) * 0.1 * SIZE), round((2 * right - 1) * 0.1 * (SIZE + 4))]
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="symmetric")
        padded = padded[4 + shift[0] :, 4 + shift[1] :][:SIZE, : SIZE + 4]
        if mirror < 0.5:
            padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="symmetric")[4 + shift[0] :][:SIZE]
            padded = padded[:, ::-1][:, 4 - shift[1] :][:, : SIZE + 4]
        np.testing.assert_array_equal(result, padded)
        mirrored.add(mirror < 0.5)
    assert mirrored == {True, False}


def test_strong_warps_as_scipy_does() -> None:
    changed = augment(PIXELS, "strong", DRAWN)
    rows, columns = np.mgrid[:SIZE, : SIZE + 4]
    changes = changes_of("strong", DRAWN, SIZE, SIZE + 4).astype("float64")
    for image, result, (a, b, c, d, e, f, brightness, contrast) in zip(PIXELS, changed, changes, strict=True):
        where = [a * rows + b * columns + c, d * rows + e * columns + f]
        warped = [
            map_coordinates(channel, where, order=1, mode="reflect") for channel in np.moveaxis(image / 1.0, 2, 0)
        ]
        wanted = np.stack(warped, axis=2) + brightness
        mean = wanted.mean(axis=(0, 1))
        wanted = np.clip(mean + (wanted - mean) * contrast, 0, 255)
        assert np.abs(result - wanted).max() < 0.51  # rounding to whole numbers


def test_strong_keeps_within_its_bounds() -> None:
    extremes = np.array([[0.9, 0.5, 0.5, zoom, angle, 0.5, 0.5] for zoom in (0, 1) for angle in (0, 1)])
    a, b, _, d, e, *_ = changes_of("strong", extremes, SIZE, SIZE).T
    np.testing.assert_allclose(np.hypot(a, d), [0.8, 0.8, 1.2, 1.2], rtol=1e-6)
    np.testing.assert_allclose(np.degrees(np.arctan2(d, a)), [-20, 20, -20, 20], rtol=1e-5)
    np.testing.assert_allclose([a, b], [e, -d], rtol=1e-6)  # no shear


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_the_middle_of_the_ranges_changes_nothing(strength: str) -> None:
    np.testing.assert_array_equal(augment(PIXELS, strength, np.full((16, NUMBERS), 0.5)), PIXELS)


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_an_image_does_not_depend_on_its_neighbours(strength: str) -> None:
    whole = augment(PIXELS, strength, DRAWN)
    np.testing.assert_array_equal(augment(PIXELS[5:7], strength, DRAWN[5:7]), whole[5:7])
    assert len({image.tobytes() for image in whole}) == 16


def test_values_stay_within_a_pixel() -> None:
    bright = augment(np.full((16, 16, 16, 3), 250, np.uint8), "strong", DRAWN)
    assert bright.min() > 190  # no wrap-around past 255
