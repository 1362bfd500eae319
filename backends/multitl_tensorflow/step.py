"""A training step as one function, whose state are TensorFlow's own variables. Satisfies `multitl.contracts.Step`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from multitl.contracts import Forward, Gradient, Peers
from multitl.models.objective import count_parts, figures, objective
from multitl.system import interrupts
from multitl_tensorflow.sharing import shared_mean


def inference(model: keras.Model) -> Forward:
    """The model for inference: see `multitl.contracts.Backend.make_forward`."""
    run = tf.function(partial(model, training=False), reduce_retracing=True)
    return lambda inputs: run(tf.convert_to_tensor(inputs))


def input_gradient(model: keras.Model) -> Gradient:
    """See `multitl.contracts.Backend.make_gradient`."""

    @tf.function(reduce_retracing=True)
    def run(inputs: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            weighed = tf.reduce_sum(weights * model(inputs, training=False))
        return tape.gradient(weighed, inputs)

    return lambda inputs, weights: run(tf.convert_to_tensor(inputs), tf.convert_to_tensor(weights))


class Step:
    """Of a compiled model, whose optimizer is built."""

    def __init__(
        self, model: keras.Model, prepare: Callable[..., Any], accumulate: int, peers: Peers | None = None
    ) -> None:
        self._peers = peers.size if peers else 1
        self._model, self._prepare, self._accumulate = model, prepare, accumulate
        self._run = tf.function(self._advance, reduce_retracing=True)

    def __enter__(self) -> Step:
        if self._peers > 1:
            interrupts.take_back_signals()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Keras' variables are TensorFlow's."""

    def __call__(
        self, inputs: tuple[np.ndarray, ...], labels: np.ndarray, weights: np.ndarray, learning_rate: float
    ) -> tf.Tensor:
        rate = tf.constant(learning_rate, "float32")
        given = tuple(tf.convert_to_tensor(array) for array in inputs)
        return self._run(given, tf.convert_to_tensor(labels), tf.convert_to_tensor(weights), rate)

    def _advance(
        self, inputs: tuple[tf.Tensor, ...], labels: tf.Tensor, weights: tf.Tensor, rate: tf.Tensor
    ) -> tf.Tensor:
        optimizer, variables = self._model.optimizer, self._model.trainable_variables
        parts = count_parts(labels.shape[0], self._accumulate)
        cut = [tf.split(one, parts) for one in (labels, weights, *inputs)]
        gradients, told = self._look(*(pieces[0] for pieces in cut))
        for part in zip(*(pieces[1:] for pieces in cut), strict=True):
            with tf.control_dependencies(gradients):  # one after the other, lest they share the memory
                further, seen = self._look(*part)
            gradients = [one + other for one, other in zip(gradients, further, strict=True)]
            told += seen
        if parts > 1:
            gradients, told = [one / parts for one in gradients], told / parts
        if self._peers > 1:
            *gradients, told = shared_mean([*gradients, told], self._peers)
        optimizer.learning_rate.assign(rate)
        optimizer.apply(gradients, variables)
        return told

    def _look(self, labels: tf.Tensor, weights: tf.Tensor, *inputs: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Gradients and figures of some images."""
        model = self._model
        with tf.GradientTape() as tape:
            logits = model(self._prepare(*inputs), training=True)
            loss = objective(model, logits, labels, weights, model.losses)
            scaled = model.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in model.trainable_variables])
        dense = [
            None if one is None else tf.convert_to_tensor(one) for one in gradients
        ]  # of embeddings they are sparse
        return dense, figures(model, loss, logits, labels)
