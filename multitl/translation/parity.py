"""How far a translated network is from its original: shipped, not test-only, since no translation is kept without it.

Random networks hardly react to white noise and often give every image nearly the same output. So the probes are images
with structure, and an error counts against the difference that the input makes, not only against the output's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import keras
import numpy as np

from multitl.adapters import load_backend
from multitl.contracts import Parity
from multitl.errors import TranslationError

Images: TypeAlias = np.ndarray | list[np.ndarray]  # a list where a network has several inputs
MAX_REL = 1e-4
MAX_SPREAD = 1e-2  # eight times the worst of torchvision's 80 (ResNet-152, float32's own rounding)
LIMITS = f"an error of at most {MAX_REL:g} of the largest output, and {MAX_SPREAD:g} of the outputs' spread"
PROBES = 4
PIXELS_AT_ONCE = 500_000  # Keras keeps every intermediate result of a batch: EfficientNet-B7's would fill 20 GB
NOWHERE = "no operation by itself: the error grows along the way"  # what `insist` is told if none diverges
WAVES = 8  # the finest structure of a probe has half as many periods across the image


def probe_images(shape: Sequence[int], count: int = PROBES, seed: int = 0) -> np.ndarray:
    """Images (count, *shape) float32 for a network whose inputs are (height, width, channels): smooth shapes and noise.

    Every channel of every image has mean 0 and deviation 1. The same seed gives the same images on every machine.
    Other shapes do as well: all axes but the last are smooth.
    """
    random = np.random.default_rng(seed)
    space, channels = tuple(shape[:-1]), shape[-1]
    images = random.standard_normal((count, *[min(WAVES, size) for size in space], channels))
    for axis, size in enumerate(space, start=1):
        images = np.moveaxis(np.tensordot(images, _cosines(size), (axis, 0)), -1, axis)
    images = _standardised(images) + random.standard_normal(images.shape) / 3
    return _standardised(images).astype("float32")


def run(model: keras.Model, images: Images) -> np.ndarray:
    """The model's outputs for `images` in evaluation, (n, ...); several outputs of one model side by side, (n,
    values).
    """
    return np.concatenate([side_by_side(every_output(model, batch)) for batch in _batches_of_each(images)])


def batches(images: np.ndarray) -> Iterator[np.ndarray]:
    """Images (n, height, width, channels), no more of them at once than PIXELS_AT_ONCE allows."""
    at_once = _at_once(images)
    return (images[start : start + at_once] for start in range(0, len(images), at_once))


def _at_once(images: np.ndarray) -> int:
    return max(1, PIXELS_AT_ONCE // math.prod(images.shape[1:-1]))


def _batches_of_each(images: Images) -> Iterator[Images]:
    """As `batches`, of every input of a network."""
    if not isinstance(images, list):
        return batches(images)
    at_once = min(map(_at_once, images))
    return ([one[start : start + at_once] for one in images] for start in range(0, len(images[0]), at_once))


def every_value(model: keras.Model, tensors: Mapping[str, keras.KerasTensor], images: Images) -> dict[str, np.ndarray]:
    """What the model's tensors are for `images` in evaluation, by the names given."""
    return dict(zip(tensors, every_output(keras.Model(model.input, list(tensors.values())), images), strict=True))


def deviation(original: np.ndarray, translated: np.ndarray) -> float:
    """The `max_rel` of one intermediate result; the translation may have it once where it is equal for all images."""
    return compare(original, np.broadcast_to(translated, original.shape)).max_rel


def every_output(model: keras.Model, images: Images) -> list[np.ndarray]:
    """Each output of a model for `images` in evaluation, in full float32, flat."""
    with load_backend().full_precision():
        return [keras.ops.convert_to_numpy(one) for one in keras.tree.flatten(model(images, training=False))]


def side_by_side(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """One array of a network's outputs, each (n, ...)."""
    return outputs[0] if len(outputs) == 1 else np.hstack([one.reshape(len(one), -1) for one in outputs])


def compare(original: np.ndarray, translated: np.ndarray) -> Parity:
    """Both (n, ...): the outputs for the same n inputs. Raises TranslationError if their shapes differ."""
    if original.shape != translated.shape:
        raise TranslationError(
            "The translated network's output has another shape than the original's.",
            expected=f"{original.shape}",
            received=f"{translated.shape}",
            fix="report this at the project's issue tracker, with the network",
        )
    a, b = (values.reshape(len(values), -1).astype("float64") for values in (original, translated))
    error, largest = float(np.abs(a - b).max()), np.abs(a).max()
    return Parity(
        max_abs=error,
        max_rel=_over(error, largest),
        max_spread=_over(error, np.ptp(a, axis=0).max() if len(a) > 1 else largest),  # one output has no spread
        top1=float(np.mean(a.argmax(1) == b.argmax(1))),
        inputs=len(a),
    )


def is_close(parity: Parity) -> bool:
    """Whether a translation may be kept. False also where an output is not a number."""
    return parity.max_rel <= MAX_REL and parity.max_spread <= MAX_SPREAD


def insist(parity: Parity, what: str, received: str = "") -> Parity:
    """`parity` itself, or TranslationError with its figures. what: the network.  received: where it went wrong."""
    if is_close(parity):
        return parity
    raise TranslationError(
        f"{what} as translated does not compute what the original does.",
        expected=LIMITS,
        received=f"{describe(parity)}{received and '; '}{received}",
        fix="report this at the project's issue tracker; nothing was stored",
    )


def describe(parity: Parity) -> str:
    """One line of figures."""
    return (
        f"{parity.max_rel:.1e} of the largest output, {parity.max_spread:.1e} of the spread, "
        f"same best class for {parity.top1:.0%} of {parity.inputs} inputs"
    )


def _cosines(size: int) -> np.ndarray:
    """The slowest waves across `size` samples, (waves, size): the basis of a discrete cosine transform."""
    waves = np.arange(min(WAVES, size))[:, None]
    return np.cos(np.pi * waves * (np.arange(size) + 0.5) / size)


def _standardised(images: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 over the inner axes of each image and channel; over everything if these hold one value."""
    axes = tuple(range(1, images.ndim - 1)) if math.prod(images.shape[1:-1]) > 1 else None
    return (images - images.mean(axes, keepdims=True)) / images.std(axes, keepdims=True)


def _over(error: float, size: float) -> float:
    """error / size, where no error is none whatever the size, and any error of nothing is endless."""
    return 0.0 if error == 0 else float(error / size) if size else float("inf")
