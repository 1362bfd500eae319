"""Values of any number of channels as 8 bits: which axes an array has, which of its channels are taken, what is white.

Nothing but NumPy is used: this is also what classify.py does, which goes with every model that leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NPY = b"\x93NUMPY"
LONGEST_HEADER = 4096  # of an .npy file
PLAINLY = {1: (1, 1, 1), 3: (1, 2, 3)}  # number of channels -> which are red, green and blue, where nobody says
HOW_TO_PICK = "--channels R,G,B picks three of them, such as 4,3,2; --channels all takes all"


def arrange(shape: Sequence[int], axes: str = "") -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """Height, width and channels, and which axes these are. Unnamed ones: the shortest of the outer two is channels.

    axes: a letter for each, as TIFFs have them. Raises ValueError for what is no image.
    """
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"an array of shape {tuple(shape)}, which is no image")
    if len(shape) == 2:
        return (shape[0], shape[1], 1), (0, 1)
    place = next((axis for axis, name in enumerate(axes) if name not in "YX"), 0 if shape[0] < shape[2] else 2)
    height, width = (axis for axis in range(3) if axis != place)
    return (shape[height], shape[width], shape[place]), (height, width, place)


def channels_last(values: np.ndarray, axes: str = "") -> np.ndarray:
    """(height, width, channels) of an array whose axes `arrange` finds."""
    size, order = arrange(values.shape, axes)
    return values.transpose(order).reshape(size)


def picked(channels: Sequence[int] | None, held: int) -> Sequence[int]:
    """Which of the `held` channels of a file are taken, from 1. channels: as `Decoding` has them.

    Raises ValueError where a file lacks one, or has others than RGB and nobody says which.
    """
    taken = PLAINLY.get(held, ()) if channels is None else channels or range(1, held + 1)
    if not taken or max(taken) > held:
        raise ValueError(f"it has {held} channel{'s' * (held > 1)}")
    return taken


def plain_values(values: np.ndarray) -> np.ndarray:
    """The same as one of uint8, uint16, int32 and float32. Raises ValueError for values that are none of these."""
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "uif":
        raise ValueError(f"values of type {values.dtype}")
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    if values.dtype.itemsize > 2 or values.dtype.kind == "i":
        if not -(2**31) <= int(values.min()) <= int(values.max()) < 2**31:
            raise ValueError(f"whole numbers of more than 32 bits: {values.min()} to {values.max()}")
        return values.astype(np.int32)
    return values.astype(values.dtype.newbyteorder("="))


def white_of(values: np.ndarray) -> int:
    """What is white where nobody says: of floats up to 1 that, of others 255; of whole numbers 65535."""
    return (1 if values.max() <= 1 else 255) if values.dtype.kind == "f" else 65535


def eight_bits(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """From `black`, which becomes 0, to `white`, which becomes 255; what lies outside is cut off. uint8."""
    scaled = (values - np.result_type(values, np.float32).type(black)) * (255 / (white - black))
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
