"""Random changes to training images: drawn by NumPy, applied in the compiled step by whatever framework runs.

What happens to an image depends on the seed, the epoch and the image alone. So every backend trains on the same pixels,
whoever else is in the batch, and so does a run that was interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

Tensor = Any  # of whatever framework runs
SHIFT, ZOOM, ANGLE, BRIGHTNESS, CONTRAST = 0.1, 0.2, math.radians(20), 0.2 * 255, 0.2  # at most
NUMBERS = 7  # that are drawn for an image


def draw(seed: int, epoch: int, images: Sequence[int]) -> np.ndarray:
    """Numbers in [0, 1) for each image, (n, NUMBERS), by a counter-based generator (Philox, 10.1145/2063384.2063405).

    seed, epoch: below 2**32.  images: what identifies each, below 2**64.
    """
    keys = [np.array([seed << 32 | epoch, image], "uint64") for image in images]
    return np.stack([np.random.Generator(np.random.Philox(key=key)).random(NUMBERS) for key in keys])


def image_number(sha256: str) -> int:
    """What identifies an image of this hash (hexadecimal) for `draw`, wherever the file lies."""
    return int(sha256[:16], 16)


def changes_of(strength: str, drawn: np.ndarray, height: int, width: int) -> np.ndarray:
    """What `application` takes for each image, float32 (n, 8).

    strength: "light" (mirror, shift by whole pixels, up to 10 %) or "strong" (also zoom by up to 20 %, rotation by up
    to 20 degrees, brightness, contrast).  drawn: (n, NUMBERS).

    Row i, column j of the result are taken from (y, x) = (a i + b j + c, d i + e j + f): the first six numbers. Then
    `brightness` is added, and distances from the image's mean are multiplied by `contrast`.
    """
    mirror, down, right, *others = drawn.T
    sign = np.where(mirror < 0.5, -1.0, 1.0)
    shifts = np.rint((2 * down - 1) * SHIFT * height), np.rint((2 * right - 1) * SHIFT * width)
    if strength == "light":
        others = [np.full(len(drawn), 0.5)] * len(others)
    zoom, angle, brightness, contrast = (2 * number - 1 for number in others)
    cosine, sine = ((1 + ZOOM * zoom) * part(ANGLE * angle) for part in (np.cos, np.sin))
    a, b, d, e = cosine, -sine * sign, sine, cosine * sign
    middle, centre = (height - 1) / 2, (width - 1) / 2
    c = middle - a * middle - b * centre + shifts[0]
    f = centre - d * middle - e * centre + shifts[1]
    return np.stack([a, b, c, d, e, f, BRIGHTNESS * brightness, 1 + CONTRAST * contrast], axis=1).astype("float32")


def application(strength: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The function of uint8 pixels (n, height, width, 3) and changes (n, 8) that applies them; uint8 again.

    It is made of `keras.ops`. What lies outside of an image is its mirror image there.
    """
    return {"light": _move, "strong": _warp}[strength]


def augment(pixels: np.ndarray, strength: str, drawn: np.ndarray) -> np.ndarray:
    """A uint8 batch (n, height, width, 3), changed as the numbers (n, NUMBERS) say."""
    changes = changes_of(strength, drawn, *pixels.shape[1:3])
    tensors = keras.ops.convert_to_tensor(pixels), keras.ops.convert_to_tensor(changes)
    return keras.ops.convert_to_numpy(application(strength)(*tensors))


def _move(pixels: Tensor, changes: Tensor) -> Tensor:
    """By whole pixels, none of which changes its value."""
    ops, (height, width) = keras.ops, pixels.shape[1:3]
    row, column = ops.arange(height, dtype="float32"), ops.arange(width, dtype="float32")
    c, e, f = (changes[:, place, None] for place in (2, 4, 5))
    y, x = (ops.cast(ops.round(value), "int32") for value in (row + c, e * column + f))
    return _take(pixels, y[:, :, None], x[:, None, :])


def _warp(pixels: Tensor, changes: Tensor) -> Tensor:
    """Bilinear."""
    ops, (height, width) = keras.ops, pixels.shape[1:3]
    row = ops.arange(height, dtype="float32")[None, :, None]
    column = ops.arange(width, dtype="float32")[None, None, :]
    a, b, c, d, e, f, brightness, contrast = (changes[:, place, None, None] for place in range(8))
    y, x = a * row + b * column + c, d * row + e * column + f
    top, left = ops.floor(y), ops.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    top, left = ops.cast(top, "int32"), ops.cast(left, "int32")
    corners = [[_take(pixels, top + i, left + j) for j in (0, 1)] for i in (0, 1)]
    upper, lower = (
        ops.cast(one, "float32") * (1 - right) + ops.cast(other, "float32") * right for one, other in corners
    )
    changed = upper * (1 - down) + lower * down + brightness[..., None]
    mean = ops.mean(changed, axis=(1, 2), keepdims=True)
    changed = mean + (changed - mean) * contrast[..., None]
    return ops.cast(ops.clip(ops.round(changed), 0, 255), "uint8")


def _take(pixels: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The pixels (n, h, w, 3) at rows and columns that broadcast to (n, h, w), and may lie outside."""
    ops, (height, width, channels) = keras.ops, pixels.shape[1:]
    image = ops.arange(ops.shape(pixels)[0], dtype="int32")[:, None, None]
    place = (image * height + _reflect(y, height)) * width + _reflect(x, width)
    taken = ops.take(ops.reshape(pixels, (-1, channels)), ops.reshape(place, (-1,)), axis=0)
    return ops.reshape(taken, (-1, height, width, channels))


def _reflect(index: Tensor, length: int) -> Tensor:
    """... 1 0 | 0 1 ... n-1 | n-1 n-2 ..."""
    index = keras.ops.mod(index, 2 * length)
    return keras.ops.minimum(index, 2 * length - 1 - index)
