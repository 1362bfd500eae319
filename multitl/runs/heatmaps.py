"""RUN/heatmaps.json: where the network saw what it said of the images that the report shows, if that is exact.

Like everything in a run's folder it may have been made by anyone.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct, to_builtins

from multitl.contracts import Split
from multitl.runs.cards import ClassName, Count, Positive, read_json_of
from multitl.system.writing import write_json

HEATMAPS = "heatmaps.json"
_Row = Annotated[tuple[float, ...], Meta(min_length=1, max_length=2**10)]


class ClassMap(Struct, frozen=True, kw_only=True):
    """What each position (h, w) of the last feature map gives to the logit of a class.  error: see `Heatmap`."""

    name: ClassName
    error: Positive
    values: Annotated[tuple[_Row, ...], Meta(min_length=1, max_length=2**10)]

    def __post_init__(self) -> None:
        if len({len(row) for row in self.values}) > 1 or not all(
            math.isfinite(one) for row in self.values for one in row
        ):
            raise ValueError("a map that is no table of numbers")


class ImageMaps(Struct, frozen=True, kw_only=True):
    """place: of the image among those of its split, as predictions.csv has them.  maps: of the class that was said, and
    of the true one where that is another.
    """

    place: Count
    maps: tuple[ClassMap, ...]


class Heatmaps(Struct, frozen=True, kw_only=True):
    """images: none where there is nothing to show, or maps would not be exact."""

    split: Split = "test"
    images: tuple[ImageMaps, ...] = ()


def write_heatmaps(folder: Path, heatmaps: Heatmaps) -> None:
    write_json(folder / HEATMAPS, to_builtins(heatmaps))


def read_heatmaps(folder: Path, missing: str) -> Heatmaps:
    """Of a run without the file, as those of older versions, none. Raises RunError, with the advice `missing`."""
    if not (folder / HEATMAPS).exists():
        return Heatmaps()
    return read_json_of(folder / HEATMAPS, Heatmaps, "the file that training wrote", missing)
