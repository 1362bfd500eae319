"""The network in a whole-model file of Keras, as data: Keras 2's and tf_keras' `.h5` and `.keras`, and Keras 3's own.

Both formats, told apart by content, hold a description of the network as JSON: an attribute of the HDF5 file, or
config.json in the zip archive. Only that text is read here, and nothing is built from it. The weights beside it are
read by hdf5_files.py.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py

from multitl.errors import WeightsError
from multitl.hdf5_heaps import check_heaps

_HDF5_START = b"\x89HDF\r\n\x1a\n"
_ZIP_START = b"PK\x03\x04"
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MOST_TEXT = 64 * 2**20  # bytes of one description; that of NASNetLarge has one million
_MOST_EXPANSION = 100  # of a compressed text; JSON shrinks to a twentieth
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, zipfile.BadZipFile, zlib.error, EOFError)
_FIX = "save it again with model.save('model.keras') or model.save('model.h5')"


@dataclass(frozen=True)
class SavedModel:
    """A file's description of its network.

    config: {"class_name": "Functional" or "Sequential", "config": {...}}.  keras_version: of what wrote the file, ""
    where it does not say.
    """

    path: Path
    config: Mapping[str, Any]
    keras_version: str

    @property
    def is_keras3(self) -> bool:
        """Whether Keras 3 wrote it; what names mean changed with it."""
        return self.keras_version.startswith("3")


def read_model(path: Path) -> SavedModel:
    """The description in a file. Raises WeightsError if it is missing, damaged, unsafe or holds no network."""
    kind = _kind(path)
    try:
        text, version = _from_hdf5(path) if kind == _HDF5_START else _from_archive(path)
        config = json.loads(text)
    except _DAMAGE as error:  # json raises ValueError, and RecursionError, a RuntimeError, for what is nested deeply
        raise refuse(path, f"a damaged file ({error})", "fetch the file again, or " + _FIX) from error
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise refuse(path, "a file that describes no network", _FIX)
    return SavedModel(path, config, version)


def refuse(path: Path, found: str, fix: str) -> WeightsError:
    """The WeightsError for a file that cannot be a model at all. found: what it is or holds."""
    return WeightsError(
        f"Cannot read a model from {path}.",
        expected="a whole model that Keras or tf_keras saved: .keras or .h5",
        received=found,
        fix=fix,
    )


def _kind(path: Path) -> bytes:
    """The first bytes of an HDF5 file or of a zip archive."""
    try:
        if path.is_dir():
            raise _folder(path)
        if not path.is_file():  # a pipe would be waited for
            raise refuse(path, "nothing, or no ordinary file", "check the path after file:")
        with path.open("rb") as file:
            start = file.read(len(_HDF5_START))
    except (OSError, ValueError) as error:  # ValueError: a NUL
        raise refuse(path, str(error), "check the path after file:") from error
    for kind in (_HDF5_START, _ZIP_START):
        if start.startswith(kind):
            return kind
    if start.startswith(b"version"):
        raise refuse(path, "a Git LFS pointer: the file itself was never downloaded", "git lfs pull")
    found = f"a file of another kind (it begins with {start!r})" if start else "an empty file"
    raise refuse(path, found, "check the path after file:")


def _folder(path: Path) -> WeightsError:
    if (path / "saved_model.pb").is_file():
        return refuse(path, "the folder of a SavedModel", f"tfhub/{path} reads such folders")
    inside = path / "model.keras"
    return refuse(path, "a folder", f"file:{inside}" if inside.is_file() else "name the file in it: file:PATH")


def _from_hdf5(path: Path) -> tuple[str, str]:
    check_heaps(path)
    with h5py.File(path, "r", locking=False) as file:
        if "model_config" not in file.attrs:
            what = "weights without a network" if _holds_weights(file) else "an HDF5 file without a Keras model"
            fix = f"--backbone keras/NAME --weights {path}, where NAME is the network they are for, or {_FIX}"
            raise refuse(path, what, fix if _holds_weights(file) else _FIX)
        text = _text(file.attrs["model_config"])
        if len(text) > _MOST_TEXT:
            raise ValueError(f"a description of {len(text):,} letters")
        return text, _text(file.attrs.get("keras_version", ""))


def _holds_weights(file: h5py.File) -> bool:
    return "layer_names" in file.attrs or "layer_names0" in file.attrs or "layers" in file


def _text(value: Any) -> str:
    if isinstance(value, bytes | str):
        return value.decode() if isinstance(value, bytes) else value
    raise TypeError("a description that is no text")


def _from_archive(path: Path) -> tuple[str, str]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        outside = [name for name in names if PurePosixPath(name).is_absolute() or ".." in name.split("/")]
        if outside:
            raise refuse(path, f"an archive whose files would lie outside it: {outside[0]!r}", _FIX)
        if _CONFIG not in names or _WEIGHTS not in names:
            raise refuse(path, f"a zip archive without {_CONFIG} or {_WEIGHTS}, so not a .keras file", _FIX)
        text = _member(archive, path, _CONFIG)
        metadata = json.loads(_member(archive, path, _METADATA)) if _METADATA in names else {}
    return text, str(metadata["keras_version"]) if metadata else ""


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> str:
    member = archive.getinfo(name)
    if member.file_size > min(_MOST_TEXT, _MOST_EXPANSION * max(member.compress_size, 1)):
        raise refuse(
            path, f"an archive whose {name} would grow to {member.file_size:,} bytes: a decompression bomb", _FIX
        )
    return archive.read(member).decode()
