"""Heatmaps of the pictures that the report shows, drawn over what the network was given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multitl.contracts import Preprocess
from multitl.data.images import AT_ONCE, UnreadableImage, decode_pixels, jpeg_uri, read_file
from multitl.explaining.overlays import as_photo, small_jpeg
from multitl.runs.heatmaps import ImageMaps, read_heatmaps
from multitl.system.budgets import Budget

SIDE = 160  # pixels; shown at less than half of that


@dataclass(frozen=True)
class DrawnMap:
    """name: of the class.  uri: a JPEG."""

    name: str
    uri: str


def read_maps(folder: Path, split: str, missing: str) -> dict[int, ImageMaps]:
    """By the place of an image in its split. Raises RunError for a damaged file, with the advice `missing`."""
    heatmaps = read_heatmaps(folder, missing)
    return {one.place: one for one in heatmaps.images} if heatmaps.split == split else {}


def draw_maps(path: str, maps: ImageMaps | None, preprocess: Preprocess) -> list[DrawnMap]:
    """No map if there is none, or the picture is gone. The strongest colour is the largest number of any of them."""
    if maps is None:
        return []
    try:
        photo = as_photo(decode_pixels(read_file(path), preprocess, Budget(AT_ONCE)))
    except UnreadableImage:
        return []
    values = {one.name: np.array(one.values) for one in maps.maps}
    largest = max(float(np.abs(one).max()) for one in values.values())
    return [DrawnMap(name, jpeg_uri(small_jpeg(photo, one, largest, SIDE))) for name, one in values.items()]
