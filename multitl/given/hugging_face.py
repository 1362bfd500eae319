"""Data sets of Hugging Face: a column of type Image, and one of labels, whose names a ClassLabel knows.

Images are taken as the bytes that the data set holds, before it decodes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from multitl.data.parquet_images import named
from multitl.data.tables import Reading
from multitl.errors import DataError, shorten
from multitl.given.frames import check_column, rows_of
from multitl.given.rows import Row, comes_from

AT_ONCE = 100  # rows


def read_hugging_face(given: Any, reading: Reading) -> Iterator[Row]:
    """given: a `datasets.Dataset`."""
    features = dict(given.features)
    pictures = _pictures_in(features, reading)
    is_set = reading.labels == "several"
    cells = {name: _inner(one) if is_set else one for name, one in features.items()}
    names = {name: list(one.names) for name, one in cells.items() if comes_from(one, "datasets", "ClassLabel")}
    plain, asked = given.with_format("arrow"), replace(reading, path_column=pictures)
    for first in range(0, len(given), AT_ONCE):
        table = plain[first : first + AT_ONCE]
        columns = {name: table.column(name).to_pylist() for name in table.column_names if _is_cell(cells[name])}
        columns |= {name: _named(columns[name], classes) for name, classes in names.items()}
        yield from rows_of(columns | {pictures: table.column(pictures).to_pylist()}, asked, first)


def _pictures_in(features: dict[str, Any], reading: Reading) -> str:
    check_column(features, "path", reading.path_column)
    images = [name for name, one in features.items() if comes_from(one, "datasets", "Image")]
    if not images and not reading.path_column:
        raise DataError(
            "The data set has no column of images.",
            expected="a column of type datasets.Image()",
            received=shorten((f"{name}: {type(one).__name__}" for name, one in features.items()), most=12),
            fix="data.cast_column('NAME', datasets.Image()), or path_column='NAME'",
        )
    return reading.path_column or ("image" if "image" in images else images[0])


def _inner(feature: Any) -> Any:
    """What a list of several labels holds, however it is written; any other feature as it is."""
    if isinstance(feature, list) and len(feature) == 1:
        inner = feature[0]
    elif any(comes_from(feature, "datasets", name) for name in ("List", "LargeList", "Sequence")):
        inner = feature.feature
    else:
        return feature
    return inner if comes_from(inner, "datasets", "ClassLabel") or getattr(inner, "dtype", "") == "string" else feature


def _named(cells: list[Any], names: list[str]) -> list[Any]:
    """Numbers, or lists of them, as the names that they stand for."""
    return [named(cell, names) if isinstance(cell, list) else named([cell], names)[0] for cell in cells]


def _is_cell(feature: Any) -> bool:
    """Whether a column may be a label or a split, and is not a second picture, a sound or a list of boxes."""
    return comes_from(feature, "datasets", "ClassLabel") or comes_from(feature, "datasets", "Value")
