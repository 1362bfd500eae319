"""Each image is of one class: softmax and cross-entropy. Satisfies `multitl.contracts.Goal`.

The truth (n,) are class indices, targets one-hot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from scipy.special import log_softmax, softmax

from multitl.contracts import Example
from multitl.models.objective import focus, mean_of


def truth_of(examples: Sequence[Example], classes: int) -> np.ndarray:
    return np.array([example.label for example in examples])


def targets_of(truth: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype="float32")[truth]


def smoothed(targets: Any, smoothing: float) -> Any:
    return targets * (1 - smoothing) + smoothing / targets.shape[1]


def activate(logits: np.ndarray) -> np.ndarray:
    return softmax(logits, axis=-1)


def exact(outputs: np.ndarray) -> np.ndarray:
    """Rows that sum to 1."""
    values = outputs.astype("float64")
    return (values / values.sum(axis=1, keepdims=True)).astype("float32")


def as_targets(probabilities: np.ndarray) -> np.ndarray:
    return probabilities


def soften(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    return softmax(np.log(np.maximum(probabilities.astype("float64"), 1e-30)) / temperature, axis=-1)


def log_loss_and_accuracy(truth: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """Of an image its best class is the answer."""
    chosen = probabilities[np.arange(len(truth)), truth].astype("float64")
    accuracy = np.mean(probabilities.argmax(axis=1) == truth)
    return float(-np.log(np.maximum(chosen, 1e-12)).mean()), float(accuracy)


def losses_and_accuracy(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, float]:
    losses = -(log_softmax(logits, axis=-1) * targets).sum(axis=1)
    return losses, float((logits.argmax(axis=1) == targets.argmax(axis=1)).mean())


def label_losses(logits: np.ndarray, targets: np.ndarray) -> None:
    return None


def misfit(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    log_p = log_softmax(logits, axis=-1)
    return -float(np.vdot(targets, log_p)), np.exp(log_p) * weights - targets


def flatness(classes: int) -> float:
    return 2 * classes


def curvature(logits: np.ndarray) -> np.ndarray:
    p = softmax(logits, axis=-1)
    return (p * (1 - p)).mean(axis=1)


def kinds(targets: np.ndarray) -> np.ndarray:
    """The class."""
    return targets.argmax(axis=1)


def last_layer() -> keras.layers.Layer:
    return keras.layers.Softmax(dtype="float32", name="probabilities")


def loss(smoothing: float, gamma: float) -> CrossEntropy:
    return FocalCrossEntropy(smoothing, gamma) if gamma else CrossEntropy(from_logits=True, label_smoothing=smoothing)


class CrossEntropy(keras.losses.CategoricalCrossentropy):
    """See `multitl.contracts.Loss`."""

    def right(self, targets: Any, logits: Any, counts: Any = None) -> Any:
        ops = keras.ops
        are_right = ops.equal(ops.argmax(logits, axis=-1), ops.argmax(targets, axis=-1))
        return mean_of(ops.cast(are_right, "float32"), counts)


class FocalCrossEntropy(CrossEntropy):
    """The term of each class times (1 - its probability)^gamma."""

    def __init__(self, smoothing: float, gamma: float) -> None:
        super().__init__(from_logits=True, label_smoothing=smoothing, name="focal_cross_entropy")
        self.smoothing, self.gamma = smoothing, gamma

    def call(self, targets: Any, logits: Any) -> Any:
        """(n,)"""
        ops = keras.ops
        log_p = ops.log_softmax(logits, axis=-1)
        return -ops.sum(smoothed(targets, self.smoothing) * focus(ops.exp(log_p), self.gamma) * log_p, axis=-1)
