"""One figure for all weights of a model."""

from __future__ import annotations

import hashlib

import keras


def weights_sha256(model: keras.Model) -> str:
    """A hash of every weight's shape and float32 bytes, in the model's order; equal on every backend."""
    digest = hashlib.sha256()
    for weight in model.weights:
        array = keras.ops.convert_to_numpy(weight.value)
        digest.update(str(array.shape).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
