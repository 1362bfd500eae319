"""`tf.data.Dataset` and Keras' `PyDataset`: images and labels one by one or in batches, as uint8.

Their order may be another each time they are gone through (`shuffle`), so it is not used: see `Kind.is_ordered`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from multitl.data.tables import Reading
from multitl.errors import DataError
from multitl.given.pictures import SHAPES, as_array, check_pixels, is_array
from multitl.given.rows import Row, labelled
from multitl.given.torch_datasets import take_apart

ENDLESS = -1  # tf.data's INFINITE_CARDINALITY
WITHOUT_WEIGHTS = 2  # of (images, labels, weights) the first


def read_tf_data(given: Any, reading: Reading) -> Iterator[Row]:
    """given: a `tf.data.Dataset`, batched or not. Its `.class_names`, as Keras sets them, name the labels."""
    if int(given.cardinality()) == ENDLESS:
        raise _endless("a tf.data.Dataset after repeat()", "leave repeat() out, or add .take(N)")
    yield from _rows(given.as_numpy_iterator(), getattr(given, "class_names", ()), reading)


def read_py_dataset(given: Any, reading: Reading) -> Iterator[Row]:
    """given: a `keras.utils.PyDataset`, whose items are batches."""
    if given.num_batches is None:
        raise _endless("a PyDataset without a length", "let num_batches be a number")
    yield from _rows((given[index] for index in range(given.num_batches)), (), reading)


def _rows(items: Iterable[Any], names: Any, reading: Reading) -> Iterator[Row]:
    for number, item in enumerate(items):
        where = f"Element {number} of the data set"
        if isinstance(item, tuple | list):
            item = item[:WITHOUT_WEIGHTS] if len(item) > 1 else item[0]
        images, labels = take_apart(item, where)
        yield from _batch(images, labels, names, reading, where)


def _batch(images: Any, labels: Any, names: Any, reading: Reading, where: str) -> Iterator[Row]:
    """The rows of one element: an image, or a batch of images."""
    if isinstance(images, bytes):  # of a file
        yield Row(images) if labels is None else labelled(images, labels, reading, names=names)
        return
    pixels = as_array(images) if is_array(images) else np.empty(0)
    if pixels.dtype == object:  # a batch of files
        pixels = pixels.reshape(-1)
    elif pixels.ndim == 4:
        check_pixels(pixels, where, batch=1)
    elif pixels.ndim == 3:
        check_pixels(pixels, where)
        pixels, labels = pixels[None], labels if labels is None else [labels]
    else:
        raise DataError(
            f"{where} is no image and no batch of images.", expected=SHAPES,
            received=f"{type(images).__name__} {pixels.shape}", fix="let it give (images, labels)",
        )  # fmt: skip
    _check_length(pixels, labels, where)
    for index, image in enumerate(pixels):
        yield Row(image) if labels is None else labelled(image, labels[index], reading, names=names)


def _check_length(images: Any, labels: Any, where: str) -> None:
    if labels is not None and len(images) != len(labels):
        raise DataError(
            f"{where} has not as many labels as images.",
            expected="one label an image",
            received=f"{len(images)} images, {len(labels)} labels",
            fix="look at how it is batched",
        )


def _endless(received: str, fix: str) -> DataError:
    return DataError("The data set never ends.", expected="one pass over the images", received=received, fix=fix)
