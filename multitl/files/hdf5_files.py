"""What lies in a Keras weight file, layer by layer, without running or building anything from it.

Three formats, told apart by content, never by name: legacy HDF5 (Keras 1 and 2, and `model.save("x.h5")`: groups named
after layers), Keras 3's `.weights.h5` (groups named after classes: layers/conv2d_1/vars/0), and `.keras`, a zip archive
with the second inside. The configuration in a file is never read. HDF5 itself runs in another process
(hdf5_worker.py). Links out of the file are refused, and no array is read before its shape is known to be wanted, so a
file cannot fill the memory with shapes that it only claims.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multitl.errors import WeightsError, full_disk, tells_full_disk
from multitl.files.hdf5_contents import Place, ask_for_weights
from multitl.files.zip_members import DAMAGE, copy_member, open_archive
from multitl.system.regular_files import MOST_MODEL, open_regular
from multitl.system.scratch import temporary_folder

HDF5_START = b"\x89HDF\r\n\x1a\n"
ZIP_START = b"PK\x03\x04"
_INSIDE_KERAS = "model.weights.h5"
_FIRST_LAYERS = "_layer_checkpoint_dependencies"


@dataclass(frozen=True)
class StoredWeight:
    """One array. name: as stored, such as "conv1/kernel:0" or "0"."""

    name: str
    place: Place

    @property
    def shape(self) -> tuple[int, ...]:
        return self.place.shape


@dataclass(frozen=True)
class StoredLayer:
    """A layer with weights. path: its place, "layers/conv2d_1", in Keras 3's formats; "" in legacy files.

    The first files of Keras 3 say "_layer_checkpoint_dependencies" for "layers"; here they do not.
    """

    name: str
    path: str
    weights: tuple[StoredWeight, ...]


@dataclass(frozen=True)
class WeightFile:
    """An open file. is_legacy: `layers` are in the order of the saved model and may stand for whole nested models."""

    path: Path
    is_legacy: bool
    layers: tuple[StoredLayer, ...]

    def read(self, weight: StoredWeight) -> np.ndarray:
        """The array's numbers. Raises WeightsError if they are damaged or not finite."""
        with _damage_as_error(self.path):
            values = weight.place.read()
        if not np.isfinite(values).all():
            raise refuse(self.path, f"{weight.name} contains values that are not finite")
        return values


@contextlib.contextmanager
def open_weight_file(path: Path) -> Iterator[WeightFile]:
    """List the layers of a file. Raises WeightsError if it is missing, damaged, unsafe or of another kind."""
    with contextlib.ExitStack() as stack:
        with _damage_as_error(path):
            scratch = stack.enter_context(temporary_folder())
            is_legacy, found = ask_for_weights(_as_hdf5(path, scratch), scratch)
        layers = tuple(
            StoredLayer(name, place.replace(_FIRST_LAYERS, "layers"), tuple(StoredWeight(*one) for one in weights))
            for name, place, weights in found
        )
        if not layers:
            raise refuse(path, "an HDF5 file without the weights of a Keras model")
        yield WeightFile(path, is_legacy, layers)


def group_name(kind: str) -> str:
    """Of a class's first layer in Keras 3's formats: Conv2D -> conv2d, BatchNormalization -> batch_normalization."""
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)).lower()


def sides(shape: Sequence[int | None]) -> str:
    """A shape for people: "3x3x64"."""
    return "x".join(map(str, shape)) or "scalar"


def refuse(path: Path, found: str) -> WeightsError:
    """The WeightsError for a file that cannot be used at all. found: what it is or holds."""
    return WeightsError(
        f"Cannot read weights from {path}.",
        expected="weights that Keras saved: .h5, .weights.h5 or .keras",
        received=found,
        fix="fetch or save the file again, or choose another with --weights",
    )


@contextlib.contextmanager
def _damage_as_error(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        if tells_full_disk(error):  # not the file's fault
            raise full_disk(error) from error
        raise refuse(path, f"a damaged or unreadable file ({error})") from error


def _as_hdf5(path: Path, scratch: Path) -> Path:
    """The HDF5 file itself, for `.keras` a copy of what is inside."""
    with open_regular(path, MOST_MODEL) as file:
        start = file.read(len(HDF5_START))
    if start == HDF5_START:
        return path
    if start.startswith(ZIP_START):
        return _extract(path, scratch / _INSIDE_KERAS)
    if not start:
        raise refuse(path, "an empty file")
    if start.startswith(b"version"):
        raise refuse(path, "a Git LFS pointer: the file itself was never downloaded (git lfs pull)")
    raise refuse(path, f"a file of another kind (it begins with {start!r})")


def _extract(path: Path, target: Path) -> Path:
    with open_archive(path) as archive:
        if _INSIDE_KERAS not in archive.namelist():
            raise refuse(path, f"a zip archive without {_INSIDE_KERAS}, so not a .keras file")
        copy_member(archive, _INSIDE_KERAS, target)
    return target
