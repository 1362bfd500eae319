"""Running a model over many inputs in batches of one fixed shape.

One shape, because XLA compiles once for it, and because an output then does not depend on how inputs were grouped. And
one batch ahead: the device works on the next while the last one's outputs come to the host.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from multitl.adapters import load_backend
from multitl.contracts import Forward, Peers
from multitl.data.pixels import PixelReader
from multitl.distribution.peers import ALONE_PEERS
from multitl.system import interrupts

BATCH = 32


def compile_forward(model: keras.Model, *, is_for_long: bool = False) -> Forward:
    """The model for inference, on this process' backend: once for many passes. See `Backend.make_forward`."""
    return load_backend().make_forward(model, is_for_long=is_for_long)


def predict_batches(forward: Forward, batches: Iterable[np.ndarray], size: int = BATCH) -> Iterator[np.ndarray]:
    """The outputs (n, ...) for each batch of at most `size` inputs (n, ...), run as a full one of `size`."""
    under_way: deque[tuple[Any, int]] = deque()
    for inputs in batches:
        padding = np.repeat(inputs[:1], size - len(inputs), axis=0)
        with interrupts.held_back():
            under_way.append((forward(np.concatenate([inputs, padding])), len(inputs)))
        if len(under_way) > 1:
            yield _fetch(*under_way.popleft())
    yield from (_fetch(*pending) for pending in under_way)


def predict_padded(forward: Forward, inputs: np.ndarray, size: int = BATCH) -> np.ndarray:
    """The outputs (n, ...) for at most `size` inputs (n, ...), run as a full batch of `size`."""
    return next(predict_batches(forward, [inputs], size))


def predict_pixels(
    forward: Forward, reader: PixelReader, advance: Callable[[int], None] = lambda count: None,
    peers: Peers = ALONE_PEERS, rows: Sequence[int] | None = None, columns: slice = slice(None),
) -> np.ndarray:  # fmt: skip
    """The outputs (n, k) for every image of the reader, or for these, in order. `advance` hears how many were just
    done.

    columns: of the outputs, those that are kept.
    peers: who share the work, and all get all of it.
    """
    own, outputs = peers.share(range(len(reader)) if rows is None else rows), []
    for values in predict_batches(forward, reader.batches(index_batches(own))):
        outputs.append(values[:, columns])
        advance(len(values))
    return peers.rows(np.concatenate(outputs) if outputs else np.empty(0))


def _fetch(outputs: Any, count: int) -> np.ndarray:
    with interrupts.held_back():
        return keras.ops.convert_to_numpy(outputs)[:count]


def index_batches(indices: Sequence[int], size: int = BATCH) -> Iterator[list[int]]:
    """In lists of `size`, the last one shorter."""
    return (list(indices[start : start + size]) for start in range(0, len(indices), size))
