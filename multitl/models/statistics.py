"""Batch statistics as PyTorch keeps them.

PyTorch normalises a batch by its biased variance and stores the unbiased one
(https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html: "the value stored in the moving average [...]
is calculated via the unbiased estimator"). That is n / (n - 1) times as large, with n = images x positions; Keras
stores the biased one. Where maps are small it matters: for 8 images and 2 x 2 positions the difference is 3 %.

Nothing in training reads the moving variance, and its recurrence is linear, so k steps can be put right afterwards:
where Keras went from `before` to `now` with momentum m, PyTorch stands at c * now + (1 - c) * m**k * before, where
c = n / (n - 1).
"""

from __future__ import annotations

import math

import keras
import numpy as np

from multitl.models.freezing import leaf_layers


class UnbiasedVariance:
    """Makes Keras' moving variances those that PyTorch would have, for steps of one batch size.

        variance = UnbiasedVariance(model, batch_size)   # before the first step
        ...                                              # some steps
        variance.correct(steps)                          # before anything reads or stores the statistics; then go on

    Only BatchNormalization layers that train are touched; each must be called once in a step, on maps of fixed size.
    Those that see a single value per channel are left alone: PyTorch refuses to train them.
    """

    def __init__(self, model: keras.Model, batch_size: int) -> None:
        """model: functional, with `trainable` set on its layers.  batch_size: images in each step."""
        self._layers = [layer for layer in leaf_layers(model) if _learns_statistics(layer)]
        self._counts = [batch_size * _positions(layer) for layer in self._layers]
        self.start()

    def start(self) -> None:
        """Steps count from here on."""
        self._before = [_variance(layer) for layer in self._layers]

    def correct(self, steps: int) -> None:
        """Put the moving variances right after `steps` steps since the start or the last correction."""
        for layer, count, before in zip(self._layers, self._counts, self._before, strict=True):
            if count > 1:
                ratio = count / (count - 1)
                remains = (1 - ratio) * layer.momentum**steps
                layer.moving_variance.assign(ratio * _variance(layer) + remains * before)
        self.start()


class UnbiasedVarianceCallback(keras.callbacks.Callback):
    """`UnbiasedVariance` for `model.fit`, put right before validation and at the end of each epoch.

    batch_size: every batch must have it, so drop an incomplete last one.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._variance, self._steps, self._settled = UnbiasedVariance(self.model, self.batch_size), 0, 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._steps = batch + 1  # with steps_per_execution this is called once for several

    def on_test_begin(self, logs: dict | None = None) -> None:
        self._settle()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._settle()

    def _settle(self) -> None:
        self._variance.correct(self._steps - self._settled)
        self._settled = self._steps


def _learns_statistics(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization) and layer.trainable


def _positions(layer: keras.layers.Layer) -> int:
    """Values per image and channel in the layer's input (batch, ...)."""
    shape = layer.input.shape
    return math.prod(size for axis, size in enumerate(shape) if axis not in (0, layer.axis % len(shape)))


def _variance(layer: keras.layers.Layer) -> np.ndarray:
    """In float64: the correction takes the difference of nearly equal numbers."""
    return np.array(keras.ops.convert_to_numpy(layer.moving_variance.value), "float64")
