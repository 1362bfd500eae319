"""The network in a whole-model file of Keras, as data: Keras 2's and tf_keras' `.h5` and `.keras`, and Keras 3's own.

Both formats, told apart by content, hold a description of the network as JSON: an attribute of the HDF5 file, or
config.json in the zip archive. Only that text is read here, and nothing is built from it. The weights beside it are
read by hdf5_files.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multitl.errors import WeightsError
from multitl.files.hdf5_contents import ask_for_model
from multitl.files.hdf5_files import HDF5_START, ZIP_START
from multitl.files.zip_members import DAMAGE, open_archive, read_member
from multitl.system.regular_files import MOST_MODEL, open_regular

_NUMBER_TYPES = {
    "bfloat16", "bool", "float16", "float32", "float64", "int16", "int32", "int64", "int8", "uint16", "uint32",
    "uint64", "uint8",
}  # fmt: skip
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MOST_TEXT = 2**23  # bytes of one description; that of NASNetLarge has one million
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


def parse_config(text: str) -> Any:
    """JSON that may be anyone's -> its value. Raises ValueError, RecursionError for what is nested deeply."""
    config = json.loads(text)
    json.dumps(config, ensure_ascii=False).encode()  # UnicodeEncodeError: halves of characters cannot be printed
    return config


def check_array(value: Any) -> None:
    """Raise ValueError unless an array of a description ({"value": [...], "dtype": "float32"}) is of numbers."""
    if not isinstance(value, dict) or value.keys() != {"value", "dtype"}:
        raise ValueError("an array without numbers or their type")
    if not isinstance(value["dtype"], str) or value["dtype"] not in _NUMBER_TYPES:
        raise ValueError(f"an array of type {value['dtype']!r}"[:80])


def read_model(path: Path) -> SavedModel:
    """The description in a file. Raises WeightsError if it is missing, damaged, unsafe or holds no network."""
    kind = _kind(path)
    try:
        text, version = _from_hdf5(path) if kind == HDF5_START else _from_archive(path)
        config = parse_config(text)
    except DAMAGE as error:  # json raises ValueError, and RecursionError, a RuntimeError, for what is nested deeply
        raise refuse(path, f"a damaged file ({error})", "fetch the file again, or " + _FIX) from error
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict | list):
        raise refuse(path, "a file that describes no network", _FIX)
    return SavedModel(path, config, version)


def read_text(path: Path) -> str:
    """The description in a `.keras` file, as it is. Raises as `read_model` does."""
    if _kind(path) != ZIP_START:
        raise refuse(path, "an HDF5 file", "name a .keras file")
    try:
        return _from_archive(path)[0]
    except DAMAGE as error:
        raise refuse(path, f"a damaged file ({error})", "fetch the file again, or " + _FIX) from error


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
        with open_regular(path, MOST_MODEL) as file:
            start = file.read(len(HDF5_START))
    except (OSError, ValueError) as error:  # ValueError: a NUL
        raise refuse(path, str(error), "check the path after file:") from error
    for kind in (HDF5_START, ZIP_START):
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
    found = ask_for_model(path)
    if found.config is None:
        what = "weights without a network" if found.holds_weights else "an HDF5 file without a Keras model"
        fix = f"--backbone keras/NAME --weights {path}, where NAME is the network they are for, or {_FIX}"
        raise refuse(path, what, fix if found.holds_weights else _FIX)
    return found.config, found.keras_version


def _from_archive(path: Path) -> tuple[str, str]:
    with open_archive(path) as archive:
        names = archive.namelist()
        if _CONFIG not in names or _WEIGHTS not in names:
            raise refuse(path, f"a zip archive without {_CONFIG} or {_WEIGHTS}, so not a .keras file", _FIX)
        text = read_member(archive, _CONFIG, _MOST_TEXT).decode()
        metadata = json.loads(read_member(archive, _METADATA, _MOST_TEXT)) if _METADATA in names else {}
    return text, str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""
