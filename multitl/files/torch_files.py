"""Read files written by `torch.save` without PyTorch and without running anything in them.

Both layouts are known. Zip (since PyTorch 1.6): NAME/data.pkl, a pickle whose tensors name their storages, and one
NAME/data/KEY per storage. Legacy: five pickles (magic number, protocol, system, the object, the storage keys), then for
each key an int64 count and the raw numbers. What a pickle may name is listed in `torch_tensors.allowed`; anything else
is refused.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from multitl.errors import WeightsError
from multitl.files.plain_pickles import DamagedFileError, UnsafeFileError, read_pickle
from multitl.files.torch_tensors import SPARE_BYTES, Finisher, Storage, Tree, allowed, storage_reader
from multitl.system.regular_files import MOST_MODEL, open_regular, read_regular

_ZIP_START = b"PK\x03\x04"
_LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of 0x1950a86a20f9469cfc6c
_OTHER_STARTS = {
    b"\x89HDF": "an HDF5 file (Keras .h5)",
    b"version https://git-lfs": "a Git LFS pointer: the file itself was never downloaded (git lfs pull)",
    b"<": "a web page, as servers send it in place of a file",
    b"\x80": "a Python pickle, but not one that torch.save wrote",
    b"": "of no known kind",
}


def read_torch_file(path: str | Path) -> Tree:
    """Read a .pth or .pt file of tensors in plain containers, such as a state_dict or a checkpoint that holds some.

    Returns what `torch.load(path, weights_only=True)` does, with numpy arrays for tensors: C order, native byte order,
    their own memory (but equal views of one storage are one array). bfloat16 becomes float32, an OrderedDict a dict,
    an nn.Parameter its array, a torch.Size a tuple. An argparse.Namespace, in which training scripts keep their options
    (and which torch.load would have to be told of), becomes a dict too.

    Raises WeightsError for a file that is missing, damaged, not from torch.save, or asks for more than plain tensors.
    """
    try:
        layout = _read_zip if _beginning(Path(path)).startswith(_ZIP_START) else _read_legacy
        return layout(Path(path))
    except UnsafeFileError as error:
        raise WeightsError(
            f"{path} is not a plain file of tensors; it asks for {error}. "
            "Loading such a file can run code that its author put in, so multitl does not.",
            expected="tensors, numbers and texts in dicts, lists and tuples",
            received=str(error),
            fix="if you trust its author, load it in PyTorch once and torch.save(model.state_dict(), 'weights.pth')",
        ) from error
    except (DamagedFileError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be read as a PyTorch file: {error}.",
            expected="an undamaged file written by torch.save",
            fix="check the path, or download or save the file again",
        ) from error


def _beginning(path: Path) -> bytes:
    if not path.is_file():
        raise DamagedFileError("it is a folder" if path.is_dir() else "there is no such file")
    with open_regular(path, MOST_MODEL) as file:
        data = file.read(32)
    if not is_torch(data):
        raise DamagedFileError(f"it is {other_kind(data)}")
    return data


def is_torch(beginning: bytes) -> bool:
    """By the first 32 bytes of a file: a zip archive, or the legacy layout."""
    return beginning.startswith((_ZIP_START, _LEGACY_START))


def other_kind(beginning: bytes) -> str:
    """What a file that was not written by torch.save seems to be, by its first 32 bytes: "a web page, ..."."""
    return next(kind for start, kind in _OTHER_STARTS.items() if beginning.startswith(start)) if beginning else "empty"


def _read_legacy(path: Path) -> Tree:
    data = read_regular(path, MOST_MODEL)
    protocol, position = read_pickle(data, len(_LEGACY_START))
    if protocol != 1001:
        raise DamagedFileError("its protocol number is not 1001")
    _, position = read_pickle(data, position)  # the writing machine; numbers are little-endian whatever it was
    storages: dict[str, Storage] = {}
    value, position = read_pickle(data, position, allowed(), storage_reader(storages))
    keys, position = read_pickle(data, position)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise DamagedFileError("it has no list of storages")
    if len(keys) != len(storages) or set(keys) != set(storages):
        raise DamagedFileError("its list of storages does not fit its tensors")
    arrays = {}
    for storage in (storages[key] for key in keys):
        count, start = int.from_bytes(data[position : position + 8], "little"), position + 8
        if count != storage.count or start + storage.size > len(data):
            raise DamagedFileError("it is cut off, or a storage in it has another size than announced")
        arrays[storage.key] = np.frombuffer(data, f"<{storage.kind.stored}", storage.count, start)
        position = start + storage.size
    return Finisher(arrays, len(data)).finish(value)


def _read_zip(path: Path) -> Tree:
    try:
        with open_regular(path, MOST_MODEL) as file, zipfile.ZipFile(file) as archive:
            return _read_archive(archive, path.stat().st_size)
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError) as error:
        raise DamagedFileError(f"its zip archive is damaged ({error})") from error


def _read_archive(archive: zipfile.ZipFile, file_size: int) -> Tree:
    sizes = _entry_sizes(archive, file_size)
    folder = _archive_folder(sizes)
    order = archive.read(f"{folder}byteorder") if f"{folder}byteorder" in sizes else b"little"
    if order not in (b"little", b"big"):
        raise DamagedFileError("its byte order is neither little nor big")
    storages: dict[str, Storage] = {}
    value, _ = read_pickle(archive.read(f"{folder}data.pkl"), 0, allowed(), storage_reader(storages))
    arrays = {}
    for key, storage in storages.items():
        name = f"{folder}data/{key}"
        if sizes.get(name) != storage.size:
            raise DamagedFileError("a storage in it is missing or has another size than announced")
        arrays[key] = np.frombuffer(archive.read(name), ("<" if order == b"little" else ">") + storage.kind.stored)
    return Finisher(arrays, file_size).finish(value)


def _entry_sizes(archive: zipfile.ZipFile, file_size: int) -> dict[str, int]:
    """Unpacked size of each entry; refuses what unpacks to far more than the file (weights hardly compress)."""
    entries = archive.infolist()
    sizes = {entry.filename: entry.file_size for entry in entries}
    if len(sizes) != len(entries):
        raise DamagedFileError("its zip archive holds two entries of one name")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise DamagedFileError("its zip archive is compressed in an unusual way")
    if any(entry.compress_size > file_size for entry in entries):  # zipfile would get memory for all of it to read it
        raise DamagedFileError("an entry of its zip archive claims to be larger than the file")
    if sum(sizes.values()) > 20 * file_size + SPARE_BYTES:
        raise UnsafeFileError("far more memory than its size justifies (a zip bomb)")
    return sizes


def _archive_folder(names: Mapping[str, int]) -> str:
    """ "archive/" or whatever the file was called when it was saved."""
    folders = [name[: -len("data.pkl")] for name in names if re.fullmatch(r"[^/]*/data\.pkl", name)]
    if len(folders) != 1:
        raise DamagedFileError(f"its zip archive holds {len(folders)} data.pkl in place of one")
    if f"{folders[0]}constants.pkl" in names:
        raise UnsafeFileError("a TorchScript program to be run")
    return folders[0]
