"""An image as it was given, as the bytes of an image file: files stay what they are, pixels are written without loss.

Pixels become the PNG that Pillow writes by default, those of other channels than one or three the .npy of `np.save`. So
an array, and the same array saved by `Image.save` or `np.save`, are the same file to the last byte: the same content
hash, and with it the same place when splits are cut.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from multitl.contracts import MOST_CHANNELS
from multitl.errors import DataError
from multitl.given.rows import comes_from

TORCH = ("torch", "Tensor")
ARRAYS = (
    ("numpy", "ndarray"), TORCH, ("tensorflow", "Tensor"), ("tensorflow", "EagerTensor"), ("jaxlib", "ArrayImpl"),
    ("jaxlib", "Array"), ("jax", "Array"),
)  # fmt: skip
IN_PNG = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
CHANNELS = (1, 3)
SHAPES = "uint8 pixels (height, width), (height, width, 1), (height, width, 3), or of more channels with channels='all'"
IN_NPY = (np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64)  # of more channels


def is_array(value: Any) -> bool:
    return any(comes_from(value, package, name) for package, name in ARRAYS)


def as_array(value: Any) -> np.ndarray:
    """Any framework's array on the host; PyTorch's images (..., channels, height, width) get their channels last."""
    if not comes_from(value, *TORCH):
        return np.asarray(value)
    array = value.detach().cpu().numpy()
    is_first = array.ndim > 2 and array.shape[-3] in CHANNELS and array.shape[-1] not in CHANNELS
    return np.moveaxis(array, -3, -1) if is_first else array


def as_bytes(image: Any, where: str) -> bytes:
    """The bytes of a file. where: which image it is, for people. Raises DataError for what is no image."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        return _encode_pillow(image, where)
    if not is_array(image):
        raise DataError(
            f"{where} is no image.",
            expected=f"a path, the bytes of an image file, a PIL image, or {SHAPES}",
            received=f"{type(image).__module__}.{type(image).__qualname__}",
            fix="give one of these",
        )
    pixels = as_array(image)
    check_pixels(pixels, where)
    if is_stack(pixels.shape):
        return _as_npy(pixels)
    return _encode(Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)))


def check_pixels(pixels: np.ndarray, where: str, batch: int = 0) -> None:
    """Raises DataError for an image, or for `batch` = 1 an array of images, of another shape or type."""
    shape = pixels.shape[batch:]
    if is_stack(shape) and pixels.dtype in IN_NPY:
        return
    if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[2] not in CHANNELS):
        raise DataError(
            f"{where} has another shape than images have.",
            expected=("n images of " if batch else "") + SHAPES,
            received=f"{pixels.dtype} {pixels.shape}",
            fix=_mend_shape(shape, batch),
        )
    if pixels.dtype != np.uint8:
        low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
        raise DataError(
            f"{where} does not hold pixels of 8 bits.",
            expected="uint8, from 0 (black) to 255; multitl brings them to what the backbone wants",
            received=f"{pixels.dtype} from {low:g} to {high:g}",
            fix=_mend_range(low, high),
        )


def is_stack(shape: tuple[int, ...]) -> bool:
    """Whether it is an image of other channels than one or three, which are last: fewer than rows and columns."""
    if len(shape) != 3 or shape[0] in CHANNELS or shape[2] in CHANNELS:
        return False
    return 1 < shape[2] <= MOST_CHANNELS and shape[2] < min(shape[:2])


def _as_npy(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(pixels))
    return buffer.getvalue()


def _mend_shape(shape: tuple[int, ...], batch: int) -> str:
    if len(shape) == 3 and shape[0] in CHANNELS:
        axes = ", ".join(str(axis + batch) for axis in (1, 2, 0))
        return f"images.transpose({'0, ' if batch else ''}{axes}) puts the channels last"
    if len(shape) == 3 and shape[2] > 3:
        return "images[..., :3], or whichever three channels show most"
    return "reshape it" if shape else "give an array of images"


def _mend_range(low: float, high: float) -> str:
    if low >= 0 and high <= 1:
        return "(images * 255).round().astype('uint8'); of torchvision's transforms leave ToTensor out"
    if low >= 0 and high <= 255:
        return "images.round().astype('uint8')"
    return "give the images before they were normalised, as uint8; of more bits, divide them down to 255 first"


def _encode_pillow(image: Image.Image, where: str) -> bytes:
    """Pillow reads a file when its pixels are needed, so that here it shows whether it is whole."""
    try:
        return _encode(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ...
        raise DataError(
            f"{where} is an image that cannot be read.",
            expected="a whole picture, of a mode that PNG or TIFF know",
            received=f"mode {image.mode}: {str(error).partition(chr(10))[0] or type(error).__name__}",
            fix="image.convert('RGB'), or leave it out",
        ) from error


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if image.mode in IN_PNG else "TIFF")
    return buffer.getvalue()
