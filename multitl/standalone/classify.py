"""Classify images by the model beside this file: `python classify.py IMAGE ...`

Prints a line for each image: its path, the class, its probability; where an image may have several labels, each that it
has and its probability; where a number is predicted, "value" and the number. What cannot be read is named on stderr,
and the exit code is 1. Needs NumPy, Pillow and what opens the model, and nothing of multitl, which wrote it. Pictures
of 8 bits become pixels as for `multitl predict`, to the last bit, and so do .npy arrays of any channels; HEIC, and
pictures of more bits or other channels, are beyond it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from multitl.data.bands import LONGEST_HEADER, NPY, channels_last, eight_bits, picked, plain_values, white_of
from multitl.data.geometry import fit_pixels, to_rgb
from multitl.standalone.decisions import decide, reaching
from multitl.standalone.runtimes import open_keras as open_model


def classify(paths: list[str], folder: Path) -> Iterator[list[tuple[str, float]]]:
    """The class and its probability for each image; of several labels those that are given, the likeliest first.

    folder: where the model lies, preprocess.json and labels.txt.  Raises ValueError for a file that cannot be read.
    """
    return map(classifier(folder), paths)


def classifier(folder: Path) -> Callable[[str], list[tuple[str, float]]]:
    """The same for one path after the other."""
    how: Any = SimpleNamespace(**json.loads((folder / "preprocess.json").read_text(encoding="utf-8")))
    labels = (folder / "labels.txt").read_text(encoding="utf-8").split("\n")
    answer = open_model(folder)

    def classified(path: str) -> list[tuple[str, float]]:
        pixels = fit_pixels(read_picture(path, how), how)[np.newaxis]
        (probabilities,) = answer(as_taken(pixels, how))
        return [(labels[index], float(probabilities[index])) for index in given(probabilities, how)]

    return classified


def given(probabilities: np.ndarray, how: Any) -> list[int]:
    """Places of the labels that reach their thresholds, the likeliest first; without thresholds that of the class."""
    if how.thresholds is not None:
        return reaching(probabilities, how.thresholds)
    costs = None if how.costs is None else np.array(how.costs)
    return [int(index) for index in decide(probabilities[np.newaxis], costs)]


def read_picture(path: str, how: Any) -> Image.Image | list[Image.Image]:
    """A picture of 8-bit RGB, or of other channels an image for each: those that the model was trained on.

    Raises ValueError with the path.
    """
    channels = how.decoding["channels"]
    try:
        if Path(path).read_bytes()[: len(NPY)] == NPY:
            bands = read_bands(path, channels, how.decoding["values"])
        elif channels is None:
            return read_rgb(path, how)
        else:
            rgb, held = read_rgb(path, how), read_grey_or_colour(path)
            bands = [rgb.split()[channel - 1] for channel in picked(channels, held)]
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    return Image.merge("RGB", bands) if len(bands) == 3 else bands


def read_bands(path: str, channels: Any, limits: Any) -> list[Image.Image]:
    """The channels of an array that are taken, as 8 bits; limits: which values are black and white, or None."""
    array = channels_last(np.load(path, allow_pickle=False, max_header_size=LONGEST_HEADER))
    values = plain_values(array[..., [channel - 1 for channel in picked(channels, array.shape[2])]])
    if values.dtype != np.uint8:
        most = 255 if values.dtype.kind == "f" else 65535
        if limits is None and not 0 <= values.min() <= values.max() <= most:
            raise ValueError(f"values outside [0, {most}]")
        black, white = limits or (0, white_of(values))
        values = np.stack([eight_bits(plane, black, white) for plane in np.moveaxis(values, -1, 0)], axis=-1)
    return [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(values, -1, 0)]


def read_grey_or_colour(path: str) -> int:
    """Channels of a picture: 1 of a grey one, else 3."""
    with Image.open(path) as image:
        return 1 if image.mode in ("1", "L", "LA", "La") else 3


def read_rgb(path: str, how: Any) -> Image.Image:
    """An upright picture of 8-bit RGB; what is transparent becomes white."""
    with Image.open(path) as image:
        if how.decoding["page"] > 1 and getattr(image, "n_frames", 1) > 1:
            image.seek(how.decoding["page"] - 1)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            raise ValueError("more than 8 bits a value, which `multitl predict` reads, but not this program")
        image.load()
        return to_rgb(ImageOps.exif_transpose(image))


def as_taken(pixels: np.ndarray, how: Any) -> np.ndarray:
    """uint8 (n, height, width, channels) as the model takes images: so, in [0, 1], or normalised."""
    if how.takes == "pixels":
        return pixels
    if how.takes == "unit":
        return pixels.astype("float32") / np.float32(255)
    ordered = pixels[..., ::-1] if how.channel_order == "bgr" else pixels
    return ordered.astype("float32") * np.array(how.scale, "float32") + np.array(how.offset, "float32")


def shown(label: str, number: float) -> str:
    """A probability, or a number of any size."""
    return f"{number:.6g}" if label == "value" else f"{number:.4f}"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    ask, faults = classifier(Path(__file__).resolve().parent), 0
    for name in sys.argv[1:]:
        try:
            found = ask(name)
        except ValueError as error:
            faults += 1
            print(error, file=sys.stderr)
        else:
            print("\t".join([name, *(f"{label}\t{shown(label, number)}" for label, number in found)]), flush=True)
    sys.exit(faults > 0)
