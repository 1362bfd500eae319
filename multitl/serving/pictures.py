"""Where a run looks, as it is sent: the numbers of a map as lists and, for people, drawn over the image."""

from __future__ import annotations

import numpy as np

from multitl.data.images import jpeg_uri
from multitl.explaining.overlays import as_photo, small_jpeg
from multitl.judging.map_rows import in_json
from multitl.serving.answers import Said

SIDE = 448  # pixels; shown at half of that, or as they are on a screen of twice as many


def sent(said: Said, pixels: np.ndarray | None) -> Said:
    """An answer with "maps" in JSON's types. pixels: what the network saw, uint8 (h, w, channels), if maps are to have
    a "picture", the address of a JPEG; the strongest colour is the largest number of any of them.
    """
    maps = said["maps"]
    if pixels is None:
        return said | {"maps": [in_json(one) for one in maps]}
    photo, largest = as_photo(pixels), max(float(np.abs(one["map"]).max()) for one in maps)
    return said | {
        "maps": [in_json(one) | {"picture": jpeg_uri(small_jpeg(photo, one["map"], largest, SIDE))} for one in maps]
    }
