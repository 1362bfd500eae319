"""Which contents of files were found to be images that can be decoded: they need not be decoded to be looked at again.

    <cache>/images/<key>/<hash>.safetensors

The key is a hash of what decodes. A damaged file counts as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import PIL
from PIL import features

from multitl.contracts import Decoding
from multitl.data.depths import KINDS, Look
from multitl.errors import RunError
from multitl.files.sealed_arrays import DamagedError, read_sealed, write_sealed
from multitl.system.cache import store_folder
from multitl.version import __version__, installed_versions

SUFFIX, DIGEST = ".safetensors", 32
ABOUT = b"images that can be decoded"
CODECS = ("jpg", "jpg_2000", "zlib", "libtiff", "webp", "avif")  # a build of Pillow may lack some


class ReadableImages:
    """SHA-256, as hexadecimal, of files that gave pixels, and what values those were."""

    def __init__(self, decoding: Decoding) -> None:
        codecs = {name: features.version(name) for name in CODECS if features.check(name)}
        codecs |= installed_versions(["pillow-heif", "pydicom"])
        key = {"multitl": __version__, "pillow": PIL.__version__, "codecs": codecs, "page": decoding.page}
        key |= {"channels": decoding.channels} if decoding.channels is not None else {}
        self._folder = store_folder("images", key)
        self._looks: dict[str, Look] = {}
        for path in self._folder.glob(f"*{SUFFIX}"):
            try:
                self._looks.update(_read(path))
            except DamagedError:
                with contextlib.suppress(OSError):
                    path.unlink()
            except (OSError, MemoryError):  # it went meanwhile, or cannot be read now
                continue

    def find(self, sha256: str) -> Look | None:
        return self._looks.get(sha256)

    def add(self, looks: Mapping[str, Look]) -> None:
        """Remember those that are new; where nothing can be written, they are looked at again next time."""
        fresh = sorted(set(looks) - self._looks.keys())
        if not fresh:
            return
        hashes = np.frombuffer(bytes.fromhex("".join(fresh)), np.uint8).reshape(-1, DIGEST)
        found = np.array([(KINDS.index(look.kind), *look[1:]) for look in map(looks.__getitem__, fresh)], float)
        name = hashlib.sha256(hashes.tobytes()).hexdigest()[:32]
        with contextlib.suppress(RunError):
            write_sealed(self._folder / f"{name}{SUFFIX}", {"hashes": hashes, "looks": found}, ABOUT)
        self._looks.update({sha256: looks[sha256] for sha256 in fresh})


def _read(path: Path) -> Iterator[tuple[str, Look]]:
    """Raises DamagedError for anything but hashes and as many looks."""
    arrays, _ = read_sealed(path)
    hashes, looks = arrays.get("hashes", np.empty(0)), arrays.get("looks", np.empty(0))
    if (
        hashes.dtype != np.uint8
        or hashes.shape[1:] != (DIGEST,)
        or looks.shape != (len(hashes), len(Look.__annotations__))
    ):
        raise DamagedError(f"{hashes.dtype} {hashes.shape}, {looks.dtype} {looks.shape}")
    if not (np.isfinite(looks).all() and np.isin(looks[:, 0], range(len(KINDS))).all()):
        raise DamagedError("kinds that are not known")
    for digest, (kind, low, high, pages, channels) in zip(hashes, looks.tolist(), strict=True):
        yield digest.tobytes().hex(), Look(KINDS[int(kind)], low, high, int(pages), int(channels))
