"""What lies in a Keras weight file, layer by layer, without running or building anything from it.

Three formats, told apart by content, never by name: legacy HDF5 (Keras 1 and 2, and `model.save("x.h5")`: groups named
after layers), Keras 3's `.weights.h5` (groups named after classes: layers/conv2d_1/vars/0), and `.keras`, a zip archive
with the second inside. The configuration in a file is never read. Links out of the file are refused, and no array
is read before its shape is known to be wanted, so a file cannot fill the memory with shapes that it only claims.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from multitl.errors import WeightsError
from multitl.hdf5_heaps import check_heaps

_HDF5_START = b"\x89HDF\r\n\x1a\n"
_ZIP_START = b"PK\x03\x04"
_INSIDE_KERAS = "model.weights.h5"
_MOST_LAYERS = 100_000
_MOST_DEPTH = 32  # of groups in groups; hard links can form a circle
_MOST_EXPANSION = 100  # of a compressed archive; weights hardly compress
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, zipfile.BadZipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class StoredWeight:
    """One array. name: as stored, such as "conv1/kernel:0" or "0"."""

    name: str
    dataset: h5py.Dataset

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.dataset.shape)


@dataclass(frozen=True)
class StoredLayer:
    """A layer with weights. path: its place, "layers/conv2d_1", in Keras 3's formats; "" in legacy files."""

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
            values = np.asarray(weight.dataset[()])
        if not np.isfinite(values).all():
            raise refuse(self.path, f"{weight.dataset.name} contains values that are not finite")
        return values


@contextlib.contextmanager
def open_weight_file(path: Path) -> Iterator[WeightFile]:
    """List the layers of a file. Raises WeightsError if it is missing, damaged, unsafe or of another kind."""
    with contextlib.ExitStack() as stack:
        with _damage_as_error(path):
            plain = _as_hdf5(path, stack)
            check_heaps(plain)
            opened = stack.enter_context(h5py.File(plain, "r", locking=False))
            root = _child(opened, "model_weights") if "model_weights" in opened else opened
            is_legacy = "layer_names" in root.attrs or "layer_names0" in root.attrs
            layers = tuple(_legacy_layers(root) if is_legacy else _layers_below(root, "", 0))
        if not layers:
            raise refuse(path, "an HDF5 file without the weights of a Keras model")
        yield WeightFile(path, is_legacy, layers)


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
    except _DAMAGE as error:
        raise refuse(path, f"a damaged or unreadable file ({error})") from error


def _as_hdf5(path: Path, stack: contextlib.ExitStack) -> Path:
    """The HDF5 file itself, for `.keras` a copy of what is inside, which lives as long as `stack`."""
    if not path.is_file():
        raise refuse(path, "nothing, or no ordinary file")  # a pipe would be waited for
    with path.open("rb") as file:
        start = file.read(len(_HDF5_START))
    if start == _HDF5_START:
        return path
    if start.startswith(_ZIP_START):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="multitl-")))
        return _extract(path, folder / _INSIDE_KERAS)
    if not start:
        raise refuse(path, "an empty file")
    if start.startswith(b"version"):
        raise refuse(path, "a Git LFS pointer: the file itself was never downloaded (git lfs pull)")
    raise refuse(path, f"a file of another kind (it begins with {start!r})")


def _extract(path: Path, target: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        if _INSIDE_KERAS not in archive.namelist():
            raise refuse(path, f"a zip archive without {_INSIDE_KERAS}, so not a .keras file")
        member = archive.getinfo(_INSIDE_KERAS)
        if member.file_size > _MOST_EXPANSION * max(member.compress_size, 1):
            raise refuse(path, f"an archive that would grow {_MOST_EXPANSION}-fold: refused as a decompression bomb")
        with archive.open(member) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    return target


def _legacy_layers(root: h5py.Group) -> Iterator[StoredLayer]:
    for name in _names(root, "layer_names"):
        group = _child(root, name)
        weights = tuple(StoredWeight(weight, _dataset(group, weight)) for weight in _names(group, "weight_names"))
        if weights:
            yield StoredLayer(name, "", weights)


def _layers_below(group: h5py.Group, path: str, depth: int) -> Iterator[StoredLayer]:
    if depth > _MOST_DEPTH:
        raise ValueError("groups nested too deeply")
    if "vars" in group:
        variables = _child(group, "vars")
        keys = sorted(variables, key=lambda key: (len(key), key))  # "0", "1", ... "10"
        weights = tuple(StoredWeight(key, _dataset(variables, key)) for key in keys)
        if weights:
            yield StoredLayer(str(variables.attrs.get("name", path)), path, weights)
    for key in group:
        if key != "vars" and not (depth == 0 and key == "optimizer"):
            child = _child(group, key)
            if isinstance(child, h5py.Group):
                yield from _layers_below(child, f"{path}/{key}".lstrip("/"), depth + 1)


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of strings that Keras splits over several attributes if it is long: layer_names0, layer_names1, ..."""
    found = [group.attrs[attribute]] if attribute in group.attrs else []
    while f"{attribute}{len(found)}" in group.attrs:
        found.append(group.attrs[f"{attribute}{len(found)}"])
    names = [name.decode() if isinstance(name, bytes) else str(name) for part in found for name in part]
    if len(names) > _MOST_LAYERS:
        raise ValueError(f"{len(names)} names in {attribute}")
    return names


def _child(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """What lies at `name` ("a/b"), refusing links that lead elsewhere."""
    here = group
    for part in re.split("/+", name.strip("/")):
        if here.get(part, getclass=True, getlink=True) is not h5py.HardLink:
            raise KeyError(f"no plain member {part!r} in {here.name}")
        here = here[part]
    return here


def _dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    dataset = _child(group, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or dataset.dtype.kind not in "fiu":
        raise ValueError(f"{name} is not an array of numbers")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name} points into other files")
    return dataset
