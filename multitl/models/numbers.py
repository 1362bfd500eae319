"""A number is asked of each image: squared error, so that its head is a ridge regression (Hoerl and Kennard 1970).

Satisfies `multitl.contracts.Goal`, as an object, since it knows a scale. Truth (n,) and answers (n, 1) are in the
user's units; targets and logits (n, 1) are standardised by mean and deviation of the training images, and the saved
model's last layer takes that back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from multitl.contracts import VALUE, Example
from multitl.data.bins import bins_of
from multitl.models.objective import mean_of

FOLDED = 10  # bins that are spread evenly over folds
NEAR = 1.0  # deviations up to which the error of a number is squared in a training step


@dataclass(frozen=True)
class Numbers:
    """mean, deviation: of the training images' numbers; by themselves nothing is standardised."""

    mean: float = 0.0
    deviation: float = 1.0

    def truth_of(self, examples: Sequence[Example], classes: int) -> np.ndarray:
        return np.array([example.label for example in examples], "float64")

    def targets_of(self, truth: np.ndarray, classes: int) -> np.ndarray:
        return self.as_targets(truth[:, None]).astype("float32")

    def smoothed(self, targets: Any, smoothing: float) -> Any:
        """Nothing is spread over other numbers."""
        return targets

    def activate(self, logits: np.ndarray) -> np.ndarray:
        return (logits.astype("float64") * self.deviation + self.mean).astype("float32")

    def exact(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.astype("float32")

    def as_targets(self, probabilities: np.ndarray) -> np.ndarray:
        return (probabilities.astype("float64") - self.mean) / self.deviation

    def soften(self, probabilities: np.ndarray, temperature: float) -> np.ndarray:
        """A number has no confidence that a temperature could change."""
        return probabilities.astype("float64")

    def log_loss_and_accuracy(self, truth: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
        losses, explained = self.losses_and_accuracy(self.as_targets(probabilities), self.as_targets(truth[:, None]))
        return float(losses.mean()), explained

    def losses_and_accuracy(self, logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, float]:
        losses = np.square(logits - targets.astype("float64")).sum(axis=1)
        spread = float(np.var(targets, dtype="float64"))
        return losses, float(np.clip(1 - losses.mean() / spread, 0, 1)) if spread else 0.0

    def label_losses(self, logits: np.ndarray, targets: np.ndarray) -> None:
        return None

    def misfit(self, logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Without the squares of the targets, which no solution changes."""
        weighed = weights * logits
        return float(np.vdot(logits, weighed - 2 * targets)), 2 * (weighed - targets)

    def flatness(self, classes: int) -> float:
        return 0.5

    def curvature(self, logits: np.ndarray) -> np.ndarray:
        return np.full(len(logits), 2.0)

    def kinds(self, targets: np.ndarray) -> np.ndarray:
        """Bins of the number."""
        return bins_of(targets[:, 0], FOLDED)

    def last_layer(self) -> keras.layers.Layer:
        return keras.layers.Rescaling(self.deviation, self.mean, dtype="float32", name=VALUE)

    def loss(self, smoothing: float, gamma: float) -> HuberError:
        """Neither is for numbers."""
        return HuberError(name="huber_error")


class HuberError(keras.losses.Loss):
    """See `multitl.contracts.Loss`. The squared error, and further off a line (Huber 1964): one number that is wrong in
    the data does not carry a step away.
    """

    def call(self, targets: Any, logits: Any) -> Any:
        """(n,)"""
        ops = keras.ops
        error = ops.abs(logits - targets)
        near = ops.minimum(error, NEAR)
        return ops.sum(near * (2 * error - near), axis=-1)

    def right(self, targets: Any, logits: Any, counts: Any = None) -> Any:
        """The share of the batch's variance that is explained."""
        ops = keras.ops
        numbers = targets[:, 0]
        left = mean_of(ops.square(logits[:, 0] - numbers), counts)
        spread = mean_of(ops.square(numbers - mean_of(numbers, counts)), counts)
        return ops.clip(1 - left / ops.maximum(spread, 1e-7), 0.0, 1.0)
