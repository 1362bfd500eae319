"""What every adapter makes of what it is given: rows of an image, its label and its split, in the order given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from multitl.data.tables import Reading
from multitl.errors import DataError, nearest_names, shorten

OTHER_SEPARATORS = frozenset(";, ")  # that labels.py looks for where "|" is in no cell


@dataclass(frozen=True)
class Row:
    """One image as it was given.

    image: the path of a file, the bytes of one, a PIL image, or an array: see pictures.py.
    cells: name of a column -> text; the label and the split are among them, if there are any.
    name: of the file that the image once was, "" if nobody knows.
    """

    image: Any
    cells: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


Read = Callable[[Any, Reading], Iterator[Row]]  # what an adapter is


def comes_from(value: Any, package: str, name: str) -> bool:
    """Whether a value is of a class, told by names alone, so that nothing is imported: ("pandas", "DataFrame")."""
    return any(one.__name__ == name and one.__module__.partition(".")[0] == package for one in type(value).__mro__)


def labelled(image: Any, label: Any, reading: Reading, *, names: Sequence[str] = (), split: Any = None) -> Row:
    """A row of an adapter whose source has no names of columns. names: of the classes that numbers stand for."""
    if reading.listed:
        cells = label_bits(label, reading)
    elif reading.labels == "several":
        cells = {reading.label_column or "label": label_set_text(label, names, reading.separator)}
    else:
        cells = {reading.label_column or "label": label_text(label, names if reading.labels == "one" else ())}
    return Row(image, cells if split is None else cells | {"split": cell_text(split)})


def label_text(label: Any, names: Sequence[str] = ()) -> str:
    """A label as a class name; "" for a missing one. Raises DataError for several numbers an image."""
    try:
        value = np.asarray(label)
    except ValueError:  # lists of different lengths
        value = np.empty(0, object)
    if value.size != 1:
        raise DataError(
            "The labels are not one class an image.",
            expected="a name or a whole number an image",
            received=f"{value.dtype} of shape {value.shape} for one image",
            fix="labels.argmax(axis=-1), if they are one-hot",
        )
    text = cell_text(value.reshape(()).item())
    return str(names[int(text)]) if names and text.isdecimal() and int(text) < len(names) else text


def label_bits(labels: Any, reading: Reading) -> dict[str, str]:
    """The same as cells of columns of 0 and 1, those that are asked for. Raises DataError for labels that have none."""
    if isinstance(labels, str):
        held = [part.strip() for part in labels.split(reading.separator or "|") if part.strip()]
    else:
        held = _label_names(labels, reading.listed)
    if unknown := [name for name in held if name not in reading.listed]:
        raise DataError(
            f"The label {unknown[0]!r} is none of those that are to be read.",
            expected=f"some of {', '.join(reading.listed)}, or a row of {len(reading.listed)} values of 0 and 1",
            received=", ".join(held),
            nearest=nearest_names(unknown[0], reading.listed),
            fix="name them all: label_column='a,b,c'; or leave it out where labels are given by name",
        )
    return {name: str(int(name in held)) for name in reading.listed}


def label_set_text(labels: Any, names: Sequence[str] = (), separator: str = "") -> str:
    """Several labels of an image as a cell, "cat|dog". labels: such a text, names, or a row of 0 and 1, one a name.

    A single name that holds another separator ends in ours, so that it is not taken apart: "tench, fish|".
    Raises DataError for other numbers, and for a name that holds ours.
    """
    if isinstance(labels, str):
        return labels.strip()
    held, between = _label_names(labels, names), separator or "|"
    if split := [name for name in held if between in name]:
        raise DataError(
            f"The label {split[0]!r} holds what stands between labels.",
            expected=f"names without {between!r}",
            received=", ".join(held),
            fix="label_separator='+', or another that is in no name",
        )
    text = between.join(held)
    return text + between if len(held) == 1 and OTHER_SEPARATORS.intersection(text) else text


def _label_names(labels: Any, names: Sequence[str]) -> list[str]:
    if np.ndim(labels) == 0 and not isinstance(labels, Iterable):
        raise DataError(
            "An image has one label where several are asked for, or none.",
            expected='("cat", "dog"), a row of 0 and 1, or () for an image without a label',
            received=repr(labels),
            fix="labels='one' for one class an image",
        )
    values = np.asarray(labels if isinstance(labels, np.ndarray) else list(labels))
    if values.size and values.dtype.kind not in "biuf":
        return [cell_text(one) for one in values]
    if values.ndim != 1 or not np.isin(values, (0, 1)).all():
        raise DataError(
            "The labels of an image are neither names nor a row of 0 and 1.",
            expected='("cat", "dog"), or [1, 0, 1]',
            received=f"{values.dtype} of shape {values.shape} for one image: {values.ravel()[:5]}",
            fix="give names; or labels='one' for one class an image",
        )
    if names and values.size and len(values) != len(names):  # empty: no label
        raise DataError(
            "A row of 0 and 1 is not as long as there are labels.",
            expected=f"{len(names)} values, of {shorten(names)}",
            received=f"{len(values)} values",
            fix="look at how they were made",
        )
    return [str(names[index] if names else index) for index in np.flatnonzero(values).tolist()]


def cell_text(value: Any) -> str:
    """Any cell as text, as tables have it: "" for a missing one, whole numbers without a point."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or (isinstance(value, float) and value != value) or repr(value) in ("<NA>", "NaT"):
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
