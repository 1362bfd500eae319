"""What can be measured of a picture without a network, in one pass over all files, in threads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from multitl.contracts import Decoding
from multitl.data.images import AT_ONCE, UnreadableImage, count_pixels, decode_rgb, read_file
from multitl.system.budgets import Budget
from multitl.system.progress import progress_bar
from multitl.system.threads import default_threads, map_batches

SIDE = 256  # pixels, whatever the ratio, in which sharpness is measured
GREY = 64  # pixels of the small grey pictures by which copies are told
TINY = 16
FILES_AT_ONCE, AHEAD = 32, 3


@dataclass(frozen=True, eq=False)
class Looks:
    """Of n files; nan where one cannot be read any more.

    width, height: pixels.  brightness: mean, and contrast: standard deviation of grey values from 0 to 1.
    sharpness: standard deviation of the Laplacian over that of the grey values, at 256 x 256 pixels.
    tiny: float32 (n, 256), pictures of 16 x 16 grey values less their mean.
    grey: float32 (64, 64) from 0 to 255 of those files for which it was asked, by index.
    """

    width: np.ndarray
    height: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray
    sharpness: np.ndarray
    tiny: np.ndarray
    grey: dict[int, np.ndarray]

    @property
    def megapixels(self) -> np.ndarray:
        return self.width * self.height / 1e6

    @property
    def aspect(self) -> np.ndarray:
        """Width over height."""
        return self.width / self.height


def look_at(paths: Sequence[str], decoding: Decoding, wanted: Collection[int] = ()) -> Looks:
    """wanted: of which files the small grey picture is kept."""
    figures, tiny = np.full((len(paths), 5), np.nan), np.zeros((len(paths), TINY * TINY), "float32")
    grey: dict[int, np.ndarray] = {}
    batches = (range(first, min(first + FILES_AT_ONCE, len(paths))) for first in range(0, len(paths), FILES_AT_ONCE))
    look, wanted = partial(_look, paths, decoding, Budget(AT_ONCE)), frozenset(wanted)
    with progress_bar() as bar:
        task = bar.add_task("looking  ", total=len(paths), note="")
        for batch in map_batches(look, batches, threads=default_threads(), ahead=AHEAD):
            for index, measured, small in batch:
                if small is not None:
                    figures[index], tiny[index] = measured, _tiny(small)
                    if index in wanted:
                        grey[index] = small
            bar.advance(task, len(batch))
    width, height, brightness, contrast, sharpness = figures.T
    return Looks(width, height, brightness, contrast, sharpness, tiny, grey)


def _look(
    paths: Sequence[str], decoding: Decoding, budget: Budget, index: int
) -> tuple[int, tuple[float, ...], np.ndarray | None]:
    try:
        data = read_file(paths[index])
        with budget.take(count_pixels(data, decoding)):
            picture = decode_rgb(data, decoding)
            small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    except UnreadableImage:
        return index, (), None
    return index, (picture.width, picture.height, *_measure(small)), _shrink(small)


def _measure(small: Image.Image) -> tuple[float, float, float]:
    values = np.asarray(small, "float32") / 255
    middle = values[1:-1, 1:-1]
    laplacian = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * middle
    deviation = float(values.std())
    return float(values.mean()), deviation, float(laplacian.std()) / max(deviation, 1 / 255)


def _shrink(small: Image.Image) -> np.ndarray:
    step = SIDE // GREY
    return np.asarray(small, "float32").reshape(GREY, step, GREY, step).mean(axis=(1, 3))


def _tiny(grey: np.ndarray) -> np.ndarray:
    step = GREY // TINY
    values = grey.reshape(TINY, step, TINY, step).mean(axis=(1, 3)).ravel()
    return values - values.mean()
