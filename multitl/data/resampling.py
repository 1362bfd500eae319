"""TensorFlow's image resize without antialias, in numpy: `tf.image.resize(..., antialias=False)` of TensorFlow 2.

Half-pixel centres; output pixel i looks at input position (i + 0.5) * input/output - 0.5 and weighs the few pixels
around it, however much the image shrinks. Formulas from tensorflow/core/kernels/image: resize_bilinear_op,
resize_bicubic_op (Keys, a = -0.5, its table of 1024 steps), resize_nearest_neighbor_op and
scale_and_translate_op (lanczos3).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TABLE_STEPS = 1024  # resize_bicubic_op reads its kernel from a table


def resample(pixels: np.ndarray, size: tuple[int, int], rows: slice, columns: slice, interpolation: str) -> np.ndarray:
    """Resize uint8 (H, W[, C]) to `size` = (height, width) and give [rows, columns] of it, uint8, rounded and clipped.

    interpolation: "nearest", "bilinear", "bicubic" or "lanczos". Only what [rows, columns] needs is computed.
    """
    tall = _apply(pixels, *_taps(pixels.shape[0], size[0], rows, interpolation))
    wide = _apply(tall.swapaxes(0, 1), *_taps(pixels.shape[1], size[1], columns, interpolation)).swapaxes(0, 1)
    return np.clip(np.rint(wide), 0, 255).astype(np.uint8)


def _apply(pixels: np.ndarray, indices: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sum along axis 0: (H, W, ...) -> float32 (out, W, ...). indices, weights: (out, taps)."""
    total = np.zeros((len(indices), *pixels.shape[1:]), np.float32)
    across = weights.reshape(*weights.shape, *(1 for _ in pixels.shape[1:]))
    for tap in range(indices.shape[1]):
        total += pixels[indices[:, tap]] * across[:, tap]
    return total


def _taps(length: int, out: int, part: slice, interpolation: str) -> tuple[np.ndarray, np.ndarray]:
    """Which of `length` inputs each output of range(out)[part] reads: indices (n, taps), float32 weights (n, taps)."""
    outputs = np.arange(*part.indices(out), dtype=np.float32)
    centre = (outputs + np.float32(0.5)) * np.float32(length / out)
    if interpolation == "nearest":
        indices = np.minimum(centre.astype(np.intp), length - 1)
        return indices[:, None], np.ones((len(outputs), 1), np.float32)
    reach, kernel = KERNELS[interpolation]
    first = np.floor(centre - np.float32(0.5))
    delta = centre - np.float32(0.5) - first
    steps = np.arange(1 - reach, reach + 1)
    indices = first.astype(np.intp)[:, None] + steps
    weights = kernel(delta[:, None] - steps)
    if interpolation != "bilinear":  # bilinear repeats the edge pixel; the others leave out what lies outside
        weights = np.where((indices >= 0) & (indices < length), weights, 0)
        weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(indices, 0, length - 1), weights.astype(np.float32)


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(distance))


def _keys(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution with a = -0.5, at distances rounded as in TensorFlow's table."""
    x = np.rint(np.abs(distance) * TABLE_STEPS) / TABLE_STEPS
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _lanczos3(distance: np.ndarray) -> np.ndarray:
    return np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)


# how many pixels a kernel reaches on each side, and its weight by distance in pixels
KERNELS: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "bilinear": (1, _triangle),
    "bicubic": (2, _keys),
    "lanczos": (3, _lanczos3),
}
