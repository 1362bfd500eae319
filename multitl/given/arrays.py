"""NumPy arrays (of PyTorch, JAX and TensorFlow too) with their labels, and lists of images or paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import repeat
from typing import Any

from multitl.data.tables import Reading
from multitl.errors import DataError
from multitl.given.pictures import CHANNELS, SHAPES, as_array, check_pixels, is_array
from multitl.given.rows import Row, labelled

PAIR = "a tuple (images, labels) or (images, labels, splits), or a list of (image, label)"


def read_pair(given: tuple[Any, ...], reading: Reading) -> Iterator[Row]:
    """(images, labels) or (images, labels, splits): each an array or a list, of one length."""
    if len(given) not in (2, 3):
        raise DataError(
            "These data are a tuple of another length than 2 or 3.", expected=PAIR, received=f"{len(given)} things",
            fix="a list, if each of them is an image",
        )  # fmt: skip
    images, labels = list(_images(given[0])), _values(given[1])
    splits = _values(given[2]) if len(given) == 3 else repeat(None, len(images))
    lengths = [len(images), len(labels), *([len(splits)] if isinstance(splits, Sequence) else [])]
    if len(set(lengths)) > 1:
        raise DataError(
            "There are not as many labels as images.",
            expected="one label an image, and one split if there are splits",
            received=", ".join(f"{n} {what}" for n, what in zip(lengths, ("images", "labels", "splits"), strict=False)),
            fix="look where they were cut or filtered",
        )
    for image, label, split in zip(images, labels, splits, strict=True):
        yield labelled(image, label, reading, split=split)


def read_list(given: Sequence[Any], reading: Reading) -> Iterator[Row]:
    """A list of (image or path, label) or (..., label, split); without labels, of images or paths."""
    for index, item in enumerate(given):
        if not isinstance(item, tuple | list):
            yield Row(item)
        elif len(item) in (2, 3):
            yield labelled(item[0], item[1], reading, split=item[2] if len(item) == 3 else None)
        else:
            raise DataError(
                f"Row {index} of the list is neither an image nor an image with its label.",
                expected="(path or image, label) or (path or image, label, split)",
                received=f"{len(item)} things",
                fix="give each row as one of these",
            )


def read_array(given: Any, reading: Reading) -> Iterator[Row]:
    """Images without labels, (n, height, width[, channels])."""
    yield from map(Row, _images(given))


def is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _images(given: Any) -> Iterable[Any]:
    if not is_array(given):
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise DataError(
                "The first of the tuple is no array and no list of images.", expected=PAIR,
                received=type(given).__name__, fix="put the rows into a list",
            )  # fmt: skip
        return given
    images = as_array(given)
    if images.dtype.kind in "USO":  # paths
        return images.tolist()
    check_pixels(images, "The array of images", batch=1)
    if images.ndim == 3 and images.shape[2] in CHANNELS:
        raise DataError(
            "The array is one image, not several.", expected="n images of " + SHAPES,
            received=f"{images.dtype} {images.shape}", fix="images[None], or a list of images",
        )  # fmt: skip
    return images


def _values(given: Any) -> Sequence[Any]:
    """Labels or splits as a list; one-hot rows stay rows."""
    is_ordered = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping | Set)
    if not is_ordered or (is_array(given) and not as_array(given).ndim):
        raise DataError(
            "The second or third of the tuple is no array and no list of labels.", expected=PAIR,
            received=type(given).__name__, fix="give a label for each image",
        )  # fmt: skip
    return list(as_array(given)) if is_array(given) else list(given)
