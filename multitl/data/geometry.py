"""From a picture to pixels: RGB or other channels, and the geometry of `Preprocess`.

Nothing but Pillow and NumPy is used: this is also what classify.py does, which goes with every model that leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from multitl.contracts import Preprocess
from multitl.data.resampling import resample

MAX_PIXELS = 178_956_970  # where Pillow itself refuses ("decompression bomb"); 537 MB as RGB
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of 8 bits as RGB, what is transparent over white. Raises ValueError for a mode without a way."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(layer, mask=layer)  # by its alpha, without a copy of that
    return white


def fit_pixels(picture: Image.Image | Sequence[Image.Image], preprocess: Preprocess) -> np.ndarray:
    """Resize and crop as `preprocess` says: uint8 (height, width, channels).

    picture: an RGB image, or of other channels an image of 8 bits for each.

    To the pixel: "crop" is torchvision's Resize(shorter_side) and CenterCrop, "squash", "cover" and "fit" are timm's
    modes squash, center (of a crop that is not square) and border. Offsets are rounded half to even.
    """
    height, width = preprocess.height, preprocess.width
    images = [picture] if isinstance(picture, Image.Image) else picture
    size = _resized(images[0].height, images[0].width, preprocess)
    (top, tall, above), (left, wide, before) = _centre(size[0], height), _centre(size[1], width)
    parts = [_resize(image, size, (top, tall), (left, wide), preprocess) for image in images]
    part = parts[0] if parts[0].ndim == 3 else np.stack(parts, axis=-1)
    if part.shape[:2] == (height, width):
        return part
    canvas = np.full((height, width, part.shape[2]), preprocess.fill, np.uint8)
    canvas[above : above + tall, before : before + wide] = part
    return canvas


def _resized(height: int, width: int, how: Preprocess) -> tuple[int, int]:
    """The size of the whole image before its centre is cut out; "cover" and "fit" as timm's ResizeKeepRatio."""
    if how.resize == "crop":
        return _shorter_side_to(how.shorter_side, height, width)
    tall, wide = how.box or (how.height, how.width)
    if how.resize == "squash":
        return tall, wide
    ratio = {"cover": min, "fit": max}[how.resize](height / tall, width / wide)
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _shorter_side_to(side: int, height: int, width: int) -> tuple[int, int]:
    """torchvision's `_compute_resized_output_size`: the longer side is truncated, not rounded."""
    if height < width:
        return side, int(side * width / height)
    return int(side * height / width), side


def _centre(resized: int, wanted: int) -> tuple[int, int, int]:
    """Of one side: first pixel taken, how many, and the empty pixels before them where there are too few."""
    if resized < wanted:
        return 0, resized, (wanted - resized) // 2
    return round((resized - wanted) / 2), wanted, 0


def _resize(
    image: Image.Image, size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int], how: Preprocess
) -> np.ndarray:
    """Resize to `size` = (height, width) and cut out `rows` and `columns`, each (first, count)."""
    (top, tall), (left, wide) = rows, columns
    box = (left, top, left + wide, top + tall)
    if (image.height, image.width) == size:
        return np.asarray(image.crop(box))
    if not how.antialias:
        area = slice(top, top + tall), slice(left, left + wide)
        return resample(np.asarray(image), size, *area, how.interpolation)
    method = FILTERS[how.interpolation]
    if size[0] * size[1] > MAX_PIXELS:  # a hair-thin image: never hold it whole
        return np.asarray(image.resize((wide, tall), method, _source_box(image, size, box)))
    # a source box would save a third of the work, but Pillow then may swap its two passes: bicubic differs by 25 levels
    return np.asarray(image.resize(size[::-1], method).crop(box))


def _source_box(
    image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]
) -> tuple[float, float, float, float]:
    """`box` of the resized image in coordinates of the original."""
    x, y = image.width / size[1], image.height / size[0]
    left, top, right, bottom = box
    return left * x, top * y, min(right * x, image.width), min(bottom * y, image.height)
