"""Source `tfhub`: image modules of TF Hub and Kaggle Models, or any SavedModel on this machine that is like one.

A module is translated when it is first asked for and kept in the cache. TensorFlow is needed for that first time only,
tensorflow_hub only to fetch a module by its handle.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multitl.contracts import BackboneInfo, Head, Job, Origin, Pretrained
from multitl.errors import BackboneError, WeightsError
from multitl.system.hashes import file_sha256
from multitl.system.paths import expanded
from multitl.system.regular_files import MOST_MODEL, open_regular

if TYPE_CHECKING:
    from multitl.sources.translated import Network

MODULES = Path(__file__).parent / "tfhub_modules.json"
UNPACK: Mapping[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
BACKGROUND = "background"  # the first of 1001 classes of networks that TF-Slim trained


def backbones() -> list[BackboneInfo]:
    """The image modules whose names are known; any other handle or path works as well."""
    listed = json.loads(MODULES.read_text(encoding="utf-8"))
    return [BackboneInfo(f"tfhub/{name}", size, "Apache-2.0", "downloaded by tensorflow_hub") for name, size in listed]


def check(name: str, weights: str) -> None:
    """See `contracts.Source`."""
    _located(name)


def at_hand(image_size: int) -> list[str]:
    """Modules by their handle that are translated already. See `contracts.Source`."""
    from multitl.translation.entries import official_entries

    found = [job for job in official_entries("tfhub") if not job.content]
    return [f"tfhub/{job.name}" for job in found if job.image_size == (image_size or _own_sizes().get(job.name, 0))]


def load(name: str, weights: str, image_size: int, head: Head = "cut") -> Pretrained:
    """Translate a module, or take it from the cache. See `contracts.Source`.

    name: the path of a folder with saved_model.pb or of a .tar.gz with one, or a handle that `tensorflow_hub` resolves:
    "google/imagenet/mobilenet_v2_100_224/feature_vector/5", "https://...", or "OWNER/MODEL/tensorFlow2/VARIATION" of
    Kaggle Models.  weights: "default" (the module's), "none" (random) or a file that holds tensors by the names of the
    module's variables.

    A SavedModel of the user's own gets pixels in [0, 1], and the whole image squashed where Keras exported it; where
    nothing in it says what it wants, that is said.

    Raises BackboneError where there is no classifier to keep; BackendError without TensorFlow or, for a handle, without
    a working tensorflow_hub; TranslationError with the list of what is missing for a module that cannot be translated;
    WeightsError for one that is missing, damaged or unsafe.
    """
    from multitl.sources.translated import Network, as_pretrained, of_features, say
    from multitl.translation.cutting import classifier_logits
    from multitl.translation.store import translated

    place, content = find(name)
    size = image_size or _own_sizes().get(name, 0)
    asked: Head = "keep" if weights in ("default", "none") else head  # the same translation serves both
    entry = translated(Job("tfhub", place, weights, size, asked, content))
    say(entry.card.weights_note)
    sha256 = None if weights == "none" else entry.card.weights_sha256
    network = Network(
        name=f"tfhub/{name}",
        translation=entry.translation,
        preprocess=entry.card.preprocess,
        origin=Origin("tfhub", weights, sha256, entry.card.licence, entry.card.url),
        parity=entry.card.parity,
        class_names=_class_names(entry.translation.model.output_shape[-1]),
    )
    if content:  # of a handle, the hub's conventions are known
        _note_pixels(network)
    logits = classifier_logits(network.translation.model)
    if logits is not None:
        return as_pretrained(replace(network, translation=replace(network.translation, model=logits)), head)
    if head == "keep":
        raise BackboneError(
            f"The module {name} has no classifier to keep: it gives a feature vector.",
            expected="a module for classification",
            received=f"features of {network.translation.model.output_shape[1:]}",
            fix="--head cut, or the classification module of the same network",
        )
    return of_features(network)


def _own_sizes() -> dict[str, int]:
    """Of the modules whose names are known."""
    return dict(json.loads(MODULES.read_text(encoding="utf-8")))


def _note_pixels(network: Network) -> None:
    """Say what a SavedModel of the user's own gets where it does not tell what it wants."""
    from multitl.sources.translated import note_values

    preprocess = network.preprocess
    if preprocess.scale != (1.0, 1.0, 1.0):  # else its first operation told
        seen = "the whole image squashed" if preprocess.resize == "squash" else "its centre cut out"
        note_values(network.translation.model, network.name, f"pixels in [0, 1] ({seen})")


def find(name: str) -> tuple[str, str]:
    """Where a module lies, and a hash of what lies there: an absolute path, or a handle as it is and "".

    Raises WeightsError for what looks like a path and is none.
    """
    path = _located(name)
    if path is None:
        return name, ""
    try:
        return str(path), _folder_sha256(path) if path.is_dir() else file_sha256(path)
    except (OSError, RecursionError) as error:  # RecursionError: folders without end
        raise _no_module(name, str(error)) from error


def _located(name: str) -> Path | None:
    """The folder or archive, or None for a handle. Raises WeightsError for what looks like a path and is none."""
    try:
        path = expanded(name)
        if name and path.is_dir():
            return path.resolve()
        if path.is_file():
            if not _is_archive(path):
                raise _no_module(name, "a file that is no tar archive, or a damaged one")
            return path.resolve()
    except (OSError, ValueError) as error:  # ValueError: a NUL
        raise _no_module(name, str(error)) from error
    if not name or path.is_absolute() or name.startswith((".", "~")):
        raise _no_module(name, "no such file or folder")
    return None


def _is_archive(path: Path) -> bool:
    """Whether a file begins with a member of a tar archive, packed or not: seen before TensorFlow is waited for."""
    with open_regular(path, MOST_MODEL) as packed:
        start = packed.read(6)
    unpack = next((unpack for magic, unpack in UNPACK.items() if start.startswith(magic)), open)
    try:
        with unpack(path, "rb") as file:
            tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        return False
    return True


def _folder_sha256(folder: Path) -> str:
    """Over the paths and contents of all files that a SavedModel may consist of."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    lines = [f"{file.relative_to(folder).as_posix()} {file_sha256(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _no_module(name: str, received: str) -> WeightsError:
    return WeightsError(
        f"There is no module {name!r}.",
        expected="the folder of a SavedModel, a .tar.gz with one, or a handle of tfhub.dev or Kaggle Models",
        received=received,
        fix="check the path after tfhub/, or see: multitl backbones tfhub/",
    )


def _class_names(count: int) -> tuple[str, ...]:
    """ImageNet's, after "background" where there are 1001."""
    from multitl.sources.imagenet import class_names

    return (BACKGROUND, *class_names(1000)) if count == 1001 else class_names(count)
