"""Heatmaps as pictures: the photo in grey, what speaks for a class in orange, what speaks against it in blue.

Colours are mixed with the photo in Oklab (Ottosson 2020), where equal steps look equally large; orange and blue differ
for every kind of colour blindness.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LEAST_SIDE = 224  # pixels; smaller images are shown larger
MOST_COVERED = 0.85  # of the photo, where a map is largest
FOR, AGAINST = (0.72, 0.10, 0.13), (0.52, -0.03, -0.16)  # Oklab: lightness, green to red, blue to yellow
DARKEST, LIGHTEST = 0.3, 0.95  # of the photo, so that colours show on black and on white

_CAPTION, _GAP = 22, 6  # pixels
# Björn Ottosson, "A perceptual color space for image processing": linear sRGB -> cone responses, their roots -> Oklab
_CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
_OKLAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip
# As they are applied to rows of pixels, there and back
_TO_CONES, _FROM_CONES, _FROM_OKLAB = (
    matrix.T.astype("float32") for matrix in (_CONES, np.linalg.inv(_CONES), np.linalg.inv(_OKLAB))
)


def as_photo(pixels: np.ndarray) -> np.ndarray:
    """uint8 (h, w, channels), as a network takes them -> RGB (H, W, 3), not smaller than people want to see it.

    Of one channel, or more than three, it is their mean, in grey.
    """
    if pixels.shape[-1] != 3:
        pixels = np.repeat(pixels.mean(axis=-1, keepdims=True).round().astype("uint8"), 3, axis=-1)
    factor = max(1.0, LEAST_SIDE / min(pixels.shape[:2]))
    size = round(pixels.shape[1] * factor), round(pixels.shape[0] * factor)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def overlay(photo: np.ndarray, values: np.ndarray, largest: float) -> np.ndarray:
    """A map (h, w), brought to the photo's size bilinearly, over it: uint8 RGB (H, W, 3).

    largest: what is shown in full colour, above 0; maps that are to be compared share it.
    """
    scaled = (np.asarray(values) / (largest or 1.0)).astype("float32")
    size = photo.shape[1], photo.shape[0]
    strength = np.asarray(Image.fromarray(scaled).resize(size, Image.Resampling.BILINEAR)).clip(-1, 1)[..., None]
    lightness = DARKEST + (LIGHTEST - DARKEST) * _lightness(photo)
    grey = np.stack([lightness, np.zeros_like(lightness), np.zeros_like(lightness)], axis=-1)
    colour, share = np.where(strength > 0, FOR, AGAINST).astype("float32"), MOST_COVERED * np.abs(strength)
    return _to_rgb(grey + share * (colour - grey))


def side_by_side(panels: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """Pictures (H, W, 3) of one size in a row, each below its caption."""
    height, width = panels[0][1].shape[:2]
    sheet = Image.new("RGB", (len(panels) * (width + _GAP) - _GAP, height + _CAPTION), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for place, (caption, picture) in enumerate(panels):
        left = place * (width + _GAP)
        draw.text((left + 2, 5), _fitting(caption, width - 4, draw, font), "black", font)
        sheet.paste(Image.fromarray(picture), (left, _CAPTION))
    return sheet


def small_jpeg(photo: np.ndarray, values: np.ndarray, largest: float, side: int) -> bytes:
    """`overlay` at most `side` pixels wide and high."""
    image, buffer = Image.fromarray(photo), io.BytesIO()
    image.thumbnail((side, side))  # before it is coloured, which takes longest
    Image.fromarray(overlay(np.asarray(image), values, largest)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _fitting(text: str, width: int, draw: ImageDraw.ImageDraw, font: ImageFont.ImageFont | ImageFont.FreeTypeFont):
    """As much of a text as there is room for, in letters that Pillow's own font has, on one line."""
    text = " ".join(text.split()).encode("latin-1", "replace").decode("latin-1")
    while len(text) > 1 and draw.textlength(text, font) > width:
        text = text[:-2] + "~" if text.endswith("~") else text[:-1] + "~"
    return text


def _lightness(photo: np.ndarray) -> np.ndarray:
    """Of each pixel by Oklab, in [0, 1]."""
    value = photo.astype("float32") / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_CONES) @ _OKLAB[0].astype("float32")


def _to_rgb(oklab: np.ndarray) -> np.ndarray:
    """uint8 sRGB; what has no colour there takes the nearest."""
    linear = ((oklab @ _FROM_OKLAB) ** 3 @ _FROM_CONES).clip(0, 1)
    value = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (value * 255).round().astype("uint8")
