"""An image has any number of labels, none among them: sigmoids, each with a cross-entropy of its own.

Satisfies `multitl.contracts.Goal`. Truth and targets (n, k) are 1 where an image has a label. The log loss of an image
is the sum over labels: minus the log-probability of having just these. Its answer to a label is right where the
probability is on the label's side of one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from scipy.special import expit, logit

from multitl.contracts import Example
from multitl.models.objective import focus, mean_of

HALF = 0.5
LEAST = 1e-12  # of a probability, in a log loss


def truth_of(examples: Sequence[Example], classes: int) -> np.ndarray:
    truth = np.zeros((len(examples), classes), bool)
    for row, example in zip(truth, examples, strict=True):
        row[list(example.labels)] = True
    return truth


def targets_of(truth: np.ndarray, classes: int) -> np.ndarray:
    return truth.astype("float32")


def smoothed(targets: Any, smoothing: float) -> Any:
    return targets * (1 - smoothing) + smoothing / 2


def activate(logits: np.ndarray) -> np.ndarray:
    return expit(logits)


def exact(outputs: np.ndarray) -> np.ndarray:
    return outputs.astype("float32").clip(0, 1)


def as_targets(probabilities: np.ndarray) -> np.ndarray:
    return probabilities


def soften(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    highest = 1 - np.finfo(probabilities.dtype).epsneg  # what is 1 may have been anything above it
    return expit(logit(probabilities.astype("float64").clip(1e-30, highest)) / temperature)


def log_loss_and_accuracy(truth: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    chosen = np.where(truth, probabilities, 1 - probabilities.astype("float64"))
    losses = -np.log(np.maximum(chosen, LEAST)).sum(axis=1)
    return float(losses.mean()), float(((probabilities > HALF) == truth).mean())


def losses_and_accuracy(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, float]:
    losses = label_losses(logits, targets).sum(axis=1)
    return losses, float(((logits > 0) == (targets > HALF)).mean())


def label_losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, logits) - targets * logits


def misfit(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    sizes = (np.logaddexp(0, logits) * weights).sum()
    return float(sizes - np.vdot(targets, logits)), expit(logits) * weights - targets


def flatness(classes: int) -> float:
    return 4


def curvature(logits: np.ndarray) -> np.ndarray:
    p = expit(logits)
    return (p * (1 - p)).mean(axis=1)


def kinds(targets: np.ndarray) -> np.ndarray:
    """The rarest of its labels, as the hardest to spread, or a number of its own for none."""
    order = np.argsort(targets.sum(axis=0), kind="stable")
    has = targets[:, order] > HALF
    return np.where(has.any(axis=1), has.argmax(axis=1), targets.shape[1])


def last_layer() -> keras.layers.Layer:
    return keras.layers.Activation("sigmoid", dtype="float32", name="probabilities")


def loss(smoothing: float, gamma: float) -> BinaryCrossEntropies:
    return FocalCrossEntropies(smoothing, gamma) if gamma else BinaryCrossEntropies(smoothing)


class BinaryCrossEntropies(keras.losses.Loss):
    """See `multitl.contracts.Loss`."""

    def __init__(self, smoothing: float) -> None:
        super().__init__(name="binary_cross_entropies")
        self.smoothing = smoothing

    def call(self, targets: Any, logits: Any) -> Any:
        """(n,), summed over labels."""
        ops, aims = keras.ops, smoothed(targets, self.smoothing)
        return ops.sum(ops.softplus(logits) - aims * logits, axis=-1)

    def right(self, targets: Any, logits: Any, counts: Any = None) -> Any:
        ops = keras.ops
        are_right = ops.cast(ops.equal(logits > 0, targets > HALF), "float32")
        return mean_of(ops.mean(are_right, axis=-1), counts)


class FocalCrossEntropies(BinaryCrossEntropies):
    """Both terms of each label times (1 - the probability of that answer)^gamma."""

    def __init__(self, smoothing: float, gamma: float) -> None:
        super().__init__(smoothing)
        self.gamma = gamma

    def call(self, targets: Any, logits: Any) -> Any:
        """(n,), summed over labels."""
        ops, aims = keras.ops, smoothed(targets, self.smoothing)
        has = aims * focus(ops.sigmoid(logits), self.gamma) * ops.softplus(-logits)
        lacks = (1 - aims) * focus(ops.sigmoid(-logits), self.gamma) * ops.softplus(logits)
        return ops.sum(has + lacks, axis=-1)
