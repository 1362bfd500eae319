"""What a SavedModel's variables and constants hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from multitl_tensorflow.bundles import Bundle, DamagedBundle
from multitl_tensorflow.damage import first_line, refuse
from multitl_tensorflow.operations import attribute

MOST_FILLED = 2**26  # bytes of a constant that repeats one number


class Checkpoint:
    """The values of a SavedModel's variables, by their keys. Reading it executes no graph."""

    def __init__(self, folder: Path, what: str) -> None:
        """folder: the module's `variables`, which constants alone do without."""
        self.what = what
        self.shapes: Mapping[str, list[int]] = {}
        if not (folder / "variables.index").is_file():
            return
        try:
            self._bundle = Bundle(folder / "variables")
        except (DamagedBundle, OSError) as error:
            raise refuse(what, f"variables that cannot be read: {first_line(error)}") from error
        self.shapes = self._bundle.shapes

    def __contains__(self, key: str) -> bool:
        return key in self.shapes

    def read(self, key: str) -> Any:
        """The tensor under a key, or the bytes of a text; half precision becomes float32. Raises WeightsError."""
        try:
            value = self._bundle.read(key)
        except (DamagedBundle, OSError) as error:
            raise refuse(self.what, f"the variable {key} cannot be read: {first_line(error)}") from error
        return as_float32(value) if isinstance(value, np.ndarray) else value


def constant(node: Any, what: str) -> np.ndarray:
    """The value of a Const node. Few bytes may claim to be many numbers: that is refused."""
    tensor = attribute(node, "value").tensor
    count = math.prod(dim.size for dim in tensor.tensor_shape.dim)
    if count < 0 or count * max(1, tf.as_dtype(tensor.dtype).size) > max(MOST_FILLED, 8 * tensor.ByteSize()):
        raise refuse(what, f"a constant of {count} numbers in {tensor.ByteSize()} bytes ({node.name})")
    try:
        return as_float32(tf.make_ndarray(tensor))
    except (TypeError, ValueError) as error:
        raise refuse(what, f"a constant that cannot be read ({node.name}): {first_line(error)}") from error


def as_float32(array: np.ndarray) -> np.ndarray:
    """Half precision widened; anything else as it is."""
    return array.astype("float32") if array.dtype.name in ("float16", "bfloat16") else array
