"""What a training step minimises and what it tells, in `keras.ops`: the same on every backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

LEAST = 1e-7  # of 1 - p: the power of a gamma below 1 is infinitely steep at 0
Tensor = Any  # of whatever framework runs


def objective(
    model: keras.Model, logits: Tensor, labels: Tensor, weights: Tensor, penalties: Sequence[Tensor]
) -> Tensor:
    """The loss a model was compiled with, of a batch, and what its layers add.

    logits: (n, classes).  labels: 0 and 1 (n, classes).  weights: (n,).  penalties: scalars, as `model.losses`.
    """
    return sum(penalties, start=model.loss(labels, logits, sample_weight=weights))


def focus(probabilities: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma, of which the derivative is a number at p = 1 as well."""
    return keras.ops.maximum(1 - probabilities, LEAST) ** gamma


def mean_of(values: Tensor, counts: Tensor = None) -> Tensor:
    """Of the images whose count is 1, where it is 1 or 0, or of all. values: (n,).  counts: (n,)."""
    ops = keras.ops
    if counts is None:
        return ops.mean(values)
    return ops.sum(values * counts) / ops.maximum(ops.sum(counts), 1.0)


def count_parts(images: int, least: int) -> int:
    """How many equal parts a batch is computed in, where there are to be so many at least: the next divisor.

    Of a number that has none up to twice as many, the next lower one: 31 images are not computed one by one.
    """
    upwards = range(min(least, images), min(2 * least, images) + 1)
    return next(parts for parts in (*upwards, *range(upwards.start, 0, -1)) if images % parts == 0)


def figures(model: keras.Model, loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Loss and accuracy of a batch, float32 (2,), as the loss that a model was compiled with counts what is right."""
    return keras.ops.stack([keras.ops.cast(loss, "float32"), model.loss.right(labels, logits)])
