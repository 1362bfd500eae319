"""Artefacts opened by TensorFlow alone. See `contracts.Runtime`."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from multitl.contracts import Answer


def open_serving(folder: Path) -> Answer:
    """By the signature serving_default, as TF Serving does."""
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return lambda images: serve(images=tf.constant(images))["probabilities"].numpy()


def open_reusable(folder: Path) -> Answer:
    """By calling it, as hub.load's users do: hub.load is tf.saved_model.load for a folder."""
    module = tf.saved_model.load(str(folder))
    return lambda images: module(tf.constant(images), training=False).numpy()
