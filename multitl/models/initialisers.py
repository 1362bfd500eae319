"""First weights drawn with numpy while a network is being built: quick, and the same numbers under every backend.

Under JAX each new weight shape compiles a kernel for its random or constant initialiser; for NASNetMobile that is 11 of
12 seconds. Keras offers no public hook between a layer's configuration and its first weights:
`StatelessScope(initialize_variables=False)` leaves variables behind that the next scope trips over, and an initialiser
object of our own would be written into the saved model, which plain Keras could then not load. So the `__call__` of
three public initialiser classes is replaced while the network is built. Configurations stay as Keras makes them. With a
Keras whose initialisers are other than we know them (insides.py), networks that are filled from a file start with what
Keras draws, which takes longer and comes to the same.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from multitl.models.insides import FIRST_WEIGHTS, NEW_VARIABLE, unknown_keras

Shape = tuple[int, ...]
Draw = Callable[[keras.initializers.Initializer, Shape], np.ndarray]


@contextlib.contextmanager
def numpy_initialisers(seed: int | None) -> Iterator[None]:
    """While open, new layers get their first weights from numpy.

    seed: a number draws what Keras' formulas describe, equal on every backend and in every run; None gives kernels of
    zeros, for a network whose weights are about to be overwritten.  Other initialisers keep working as before.
    One thread at a time: other threads that build layers meanwhile are affected.  Raises BackendError for a seed where
    this Keras cannot be made to take numbers of ours.
    """
    if seed is not None and FIRST_WEIGHTS.faults:
        raise unknown_keras("way to first weights that are equal on every backend", FIRST_WEIGHTS.faults[0])
    zeros = _as_initialiser(lambda _, shape: np.zeros(shape, "float32"))
    ones = _as_initialiser(lambda _, shape: np.ones(shape, "float32"))
    random = None if seed is None else np.random.default_rng(seed)
    drawn = zeros if random is None else _as_initialiser(lambda one, shape: _variance_scaling(one, shape, random))
    with FIRST_WEIGHTS.replaced(zeros, ones, drawn):
        yield


@contextlib.contextmanager
def bounded_weights(most: int) -> Iterator[None]:
    """While open, variables of more than `most` numbers together raise ValueError before any memory is taken.

    Every weight of every layer is a `keras.Variable`, so nothing that a description claims gets round this. One thread
    at a time, as above.  Raises BackendError where this Keras makes weights in another way: it is a protection, and
    nothing is opened without it.
    """
    _insist_on_bound()
    with _bound(most):
        yield


@functools.cache
def _insist_on_bound() -> None:
    """Try it, once a process: four numbers must not pass where three may."""
    fault = NEW_VARIABLE.fault or "a weight got past the bound"
    if not NEW_VARIABLE.fault:
        with _bound(3):
            try:
                keras.layers.Layer(name="tried").add_weight(shape=(2, 2), initializer="zeros", name="tried")
            except ValueError:
                return
    raise unknown_keras("way to bound what a saved model allocates", fault)


def _bound(most: int) -> contextlib.AbstractContextManager[None]:
    left, original = most, keras.Variable.__init__

    def bounded(self: keras.Variable, initializer: Any, shape: Any = None, *arguments: Any, **options: Any) -> None:
        nonlocal left
        if callable(initializer) or isinstance(initializer, str):  # else it is its own value, already in memory
            left -= math.prod(shape or ())
        if left < 0:
            raise ValueError("a network that claims more weights than the file holds numbers for")
        original(self, initializer, shape, *arguments, **options)

    return NEW_VARIABLE.swapped(bounded)


def _as_initialiser(draw: Draw) -> Callable[..., object]:
    def call(self: keras.initializers.Initializer, shape: Shape, dtype: str | None = None) -> object:
        return keras.ops.convert_to_tensor(draw(self, tuple(shape)), dtype=dtype or keras.config.floatx())

    return call


def _variance_scaling(initialiser: keras.initializers.Initializer, shape: Shape, random: np.random.Generator):
    """Glorot, He and Lecun all are this one (https://keras.io/api/layers/initializers/#variancescaling-class)."""
    inputs, outputs = _fans(shape)
    fan = {"fan_in": inputs, "fan_out": outputs, "fan_avg": (inputs + outputs) / 2}[initialiser.mode]
    variance = initialiser.scale / max(1.0, fan)
    if initialiser.distribution == "uniform":
        limit = np.float32(np.sqrt(3 * variance))
        return random.random(shape, dtype="float32") * 2 * limit - limit
    if initialiser.distribution == "untruncated_normal":
        return random.standard_normal(shape, dtype="float32") * np.float32(np.sqrt(variance))
    # Cutting a normal distribution off at two deviations leaves 0.8796 of its deviation.
    return _truncated_normal(shape, random) * np.float32(np.sqrt(variance) / 0.87962566103423978)


def _truncated_normal(shape: Shape, random: np.random.Generator) -> np.ndarray:
    values = random.standard_normal(shape, dtype="float32")
    outside = np.abs(values) > 2
    while outside.any():
        values[outside] = random.standard_normal(int(outside.sum()), dtype="float32")
        outside = np.abs(values) > 2
    return values


def _fans(shape: Shape) -> tuple[int, int]:
    """Inputs and outputs of one unit of a dense or convolution kernel (..., inputs, outputs)."""
    if len(shape) < 2:
        return max((1, *shape)), max((1, *shape))
    field = int(np.prod(shape[:-2]))
    return shape[-2] * field, shape[-1] * field
