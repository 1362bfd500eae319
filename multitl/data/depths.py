"""Grey of more than 8 bits, and what else a file may hold that is not plain: what it is, and how it becomes 8 bits.

A file says how many bits it has, but not how many are used: 12 bits of a camera in a file of 16 are nearly black. So
the values of a whole data set are looked at, and what looks wrong is said once, with the option that mends it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from multitl.contracts import Decoding
from multitl.data.bands import eight_bits, white_of
from multitl.data.tiffs import bits_of, is_white_zero

PLAIN, GREY12, GREY16, GREY32, FLOATS = "8 bits", "12-bit grey", "16-bit grey", "32-bit grey", "float grey"
COLOUR16, CHANNELS = "16-bit colour", "more than three channels"
KINDS = (PLAIN, GREY12, GREY16, GREY32, FLOATS, COLOUR16, CHANNELS)  # by number in the cache
GREYS = (GREY12, GREY16, GREY32, FLOATS)
DIM = 4  # a data set is nearly black if its brightest value is below this part of white
USUAL_BITS = (8, 10, 12, 14)


class Look(NamedTuple):
    """A file's kind, its lowest and highest value, and how many pages and channels it has."""

    kind: str = PLAIN
    low: float = 0.0
    high: float = 255.0
    pages: int = 1
    channels: int = 3


def kind_of(image: ImageFile.ImageFile) -> str:
    """One of KINDS, of an image that is open and not yet loaded."""
    if image.mode == "F":
        return FLOATS
    if image.mode == "I":
        return GREY32 if bits_of(image) == 32 else GREY16
    if image.mode.startswith("I;16"):
        return GREY12 if bits_of(image) == 12 else GREY16
    stored = " ".join(str(tile[3]) for tile in image.tile)  # Pillow's names of what is in the file: "RGB;16B", "RGBXX"
    return CHANNELS if "RGBX" in stored else COLOUR16 if ";16" in stored else PLAIN


def channels_of(mode: str) -> int:
    """Of a picture that Pillow opens, by its mode: 1 of grey, else 3; what is transparent is laid over white."""
    return 1 if mode in ("1", "L", "LA", "La", "I", "F") or mode.startswith("I;16") else 3


def look_at(image: Image.Image, kind: str, pages: int) -> Look:
    """Of a loaded image."""
    channels = channels_of(image.mode)
    if kind == COLOUR16:
        colours = [band for band in image.getbands() if band != "A"]
        extrema = np.asarray([image.getchannel(band).getextrema() for band in colours])
        return Look(kind, float(extrema.min()), float(extrema.max()), pages, channels)
    if kind in GREYS:
        values = np.asarray(image)
        return Look(kind, float(values.min()), float(values.max()), pages, channels)
    return Look(kind, pages=pages, channels=channels)


def unfit(look: Look, decoding: Decoding) -> str:
    """Why a grey file has no picture; "" if it has one."""
    if look.kind not in GREYS or (decoding.values and math.isfinite(look.high - look.low)):
        return ""
    most, numbers = (255, "float") if look.kind == FLOATS else (65535, "integer")
    if 0 <= look.low <= look.high <= most:  # False for nan
        return ""
    return f"unsupported: {numbers} values outside [0, {most}]: {look.low:g} to {look.high:g}"


def to_eight_bits(image: Image.Image, look: Look, decoding: Decoding) -> Image.Image:
    """Grey of any kind to 8 bits, once `unfit` has nothing against it.

    By itself 16 bits are divided by 257, 12 by 4095 / 255, floats up to 1 multiplied by 255, others left as they are.
    """
    values = np.asarray(image)
    eight = eight_bits(values, *(decoding.values or (0, 4095 if look.kind == GREY12 else white_of(values))))
    return Image.fromarray(255 - eight if is_white_zero(image) else eight)


@dataclass
class _Seen:
    files: int = 0
    low: float = math.inf
    high: float = -math.inf
    dimmest: float = math.inf  # highest value of any file that is not black

    def add(self, look: Look) -> None:
        self.files += 1
        self.low, self.high = min(self.low, look.low), max(self.high, look.high)
        self.dimmest = min(self.dimmest, look.high if look.high > 0 else math.inf)


class Looks:
    """All files of a data set together."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Seen] = {}
        self._with_pages = self._pages = 0
        self.channels: Counter[int] = Counter()  # files by how many they have

    def add(self, look: Look) -> None:
        self.channels[look.channels] += 1
        if look.kind != PLAIN and math.isfinite(look.high - look.low):
            self._kinds.setdefault(look.kind, _Seen()).add(look)
        self._with_pages += look.pages > 1
        self._pages = max(self._pages, look.pages)

    def warnings(self, decoding: Decoding, *, of_a_run: bool = False) -> tuple[str, ...]:
        """What is odd about the values, and the option that mends it; about pages, where none was chosen.

        of_a_run: decoding is as a run was trained with, and so cannot be changed.
        """
        odd = tuple(text for kind, seen in sorted(self._kinds.items()) for text in _oddities(kind, seen, decoding))
        if self._with_pages and not decoding.page:
            pages = f"{self._with_pages} files have several pages, up to {self._pages}, and the first is taken unasked"
            odd += ((pages, "--page 1, or another,"),)
        return tuple(_with_advice(*one, of_a_run) for one in odd)

    def mending_range(self, decoding: Decoding) -> str:
        """The option that makes grey files fit which do not, "" if none does."""
        greys = [seen for kind, seen in self._kinds.items() if unfit(Look(kind, seen.low, seen.high), decoding)]
        return _option(min(seen.low for seen in greys), max(seen.high for seen in greys)) if greys else ""


def _oddities(kind: str, seen: _Seen, decoding: Decoding) -> Iterator[tuple[str, str]]:
    """What is odd about the values of one kind of file, and the option that mends it, or "" if none does."""
    held = f"{seen.files} files of {kind} hold values from {seen.low:g} to {seen.high:g}"
    if kind in GREYS and decoding.values:
        black, white = decoding.values
        if seen.high - black > 2 * (white - black):
            yield f"{held}, of which {white:g} is white already", "another --bits or --range"
    elif kind in (GREY16, GREY32) and 0 < seen.high < 65536 / DIM:
        yield f"{held}, nearly black where 65535 is white", _option(0, seen.high)
    elif kind == FLOATS and 1 < seen.high < 256 / DIM:
        yield f"{held}, nearly black where 255 is white", f"--range 0,{seen.high:g}"
    elif kind == FLOATS and seen.dimmest <= 1 < seen.high:
        yield f"{held}; in a file up to 1 that is white, in others 255", "--range 0,255"
    elif kind == COLOUR16 and 0 < seen.high < 256 / DIM:
        yield (
            f"{seen.files} files of {kind} are nearly black: up to {seen.high:g} in their upper 8 bits, the ones read",
            "",
        )
    elif kind == CHANNELS:
        yield f"{seen.files} files have {kind}: the first three are taken for red, green and blue", ""


def _with_advice(problem: str, option: str, of_a_run: bool) -> str:
    if not option:
        return f"{problem}. Convert them to 8 bits and three channels, if that is not right."
    if of_a_run:
        return f"{problem}; a run reads files as in its training: convert them, or train with {option}."
    return f"{problem}: {option} mends that."


def _option(low: float, high: float) -> str:
    """A usual number of bits, where one fits, else the range itself."""
    bits = next((bits for bits in USUAL_BITS if high < 2**bits), 0)
    if bits and low >= 0 and high > 127:
        return f"--bits {bits}"
    return f"--range{' ' if low >= 0 else '='}{low:g},{high:g}"
