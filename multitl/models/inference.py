"""Running a model over many inputs in batches of one fixed shape.

One shape, because XLA compiles once for it, and because an output then does not depend on how inputs were grouped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np

from multitl.data.pixels import PixelReader
from multitl.system import interrupts

BATCH = 32


def predict_padded(model: keras.Model, inputs: np.ndarray, size: int = BATCH) -> np.ndarray:
    """The model's outputs (n, ...) for at most `size` inputs (n, ...), run as a full batch of `size`."""
    padding = np.repeat(inputs[:1], size - len(inputs), axis=0)
    with interrupts.held_back():
        return np.asarray(model.predict_on_batch(np.concatenate([inputs, padding])))[: len(inputs)]


def predict_pixels(
    model: keras.Model, reader: PixelReader, advance: Callable[[int], None] = lambda count: None
) -> np.ndarray:
    """The model's outputs (n, k) for every image of the reader, in order. `advance` hears how many were just done."""
    outputs = []
    for pixels in reader.batches(index_batches(len(reader))):
        outputs.append(predict_padded(model, pixels))
        advance(len(pixels))
    return np.concatenate(outputs)


def as_probabilities(outputs: np.ndarray) -> np.ndarray:
    """Outputs of a softmax (n, k) -> float32 rows that sum to 1, also where the model computed in 16 bits."""
    exact = outputs.astype("float64")
    return (exact / exact.sum(axis=1, keepdims=True)).astype("float32")


def index_batches(count: int, size: int = BATCH) -> Iterator[list[int]]:
    """[0, 1, ...], in lists of `size`, the last one shorter."""
    return (list(range(start, min(start + size, count))) for start in range(0, count, size))
