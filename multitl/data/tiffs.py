"""What Pillow does not say of a TIFF: what it holds that cannot be read, how many bits it uses, which end is white."""

from __future__ import annotations

import contextlib
import io

from PIL import Image, TiffImagePlugin

BITS, PHOTOMETRIC, SAMPLES, SAMPLE_FORMAT = 258, 262, 277, 339
NUMBERS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}
WHITE_IS_ZERO = 0
MOST_PAGES = 1000  # that are counted


def describe_tiff(data: bytes) -> str:
    """The pixels of a TIFF's first page, "5 channels of 16-bit unsigned integers"; "" if its tags make no sense."""
    try:
        header = data[:16] if data[2:3] == b"\x2b" or data[3:4] == b"\x2b" else data[:8]  # BigTIFF
        tags, file = TiffImagePlugin.ImageFileDirectory_v2(header), io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        channels, bits = int(tags.get(SAMPLES, 1)), max(tags.get(BITS, (1,)))
        numbers = NUMBERS[max(tags.get(SAMPLE_FORMAT, (1,)))]
    except Exception:  # whatever a damaged file makes of it
        return ""
    return f"{channels} channel{'s' * (channels > 1)} of {bits}-bit {numbers}"


def is_ordinary(data: bytes) -> bool:
    """Whether Pillow reads all that a TIFF holds: one page of grey, or of red, green and blue with 8 bits."""
    try:
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
        is_grey = image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16")
        is_rgb = image.mode == "RGB" and bits_of(image) == 8 and image.tag_v2.get(SAMPLES) == 3
        return (is_grey or is_rgb) and count_pages(image) == 1
    except Exception:  # whatever a damaged file, or one of other channels, makes of it
        return False


def bits_of(image: Image.Image) -> int:
    """Bits of a channel, by the tags of a TIFF; 0 of other files."""
    return max(image.tag_v2.get(BITS, (1,))) if isinstance(image, TiffImagePlugin.TiffImageFile) else 0


def is_white_zero(image: Image.Image) -> bool:
    """Whether a TIFF says so; Pillow heeds it up to 8 bits."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO


def count_pages(image: Image.Image) -> int:
    """Of a TIFF, as far as they can be found, and not above MOST_PAGES; 1 of other files. The page stays the first."""
    pages = 1
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        with contextlib.suppress(Exception):  # EOFError at the end; anything where what follows is damaged
            while pages < MOST_PAGES:
                image.seek(pages)
                pages += 1
        image.seek(0)
    return pages
