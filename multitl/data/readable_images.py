"""Which contents of files were found to be images that can be decoded: they need not be decoded to be looked at again.

    <cache>/images/<key>/<hash>.safetensors

The key is a hash of what decodes. A damaged file counts as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection

import numpy as np
import PIL
from PIL import features

from multitl.errors import RunError
from multitl.files.sealed_arrays import DamagedError, read_sealed, write_sealed
from multitl.system.cache import store_folder
from multitl.version import __version__

SUFFIX, DIGEST = ".safetensors", 32
CODECS = ("jpg", "jpg_2000", "zlib", "libtiff", "webp", "avif")  # a build of Pillow may lack some


class ReadableImages:
    """SHA-256, as hexadecimal, of files that gave pixels."""

    def __init__(self) -> None:
        codecs = {name: features.version(name) for name in CODECS if features.check(name)}
        self._folder = store_folder("images", {"multitl": __version__, "pillow": PIL.__version__, "codecs": codecs})
        self._hashes: set[str] = set()
        for path in self._folder.glob(f"*{SUFFIX}"):
            try:
                rows = read_sealed(path)[0]["hashes"]
                if rows.dtype != np.uint8 or rows.shape[1:] != (DIGEST,):
                    raise DamagedError(f"{rows.dtype} {rows.shape}")
            except (DamagedError, KeyError):
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            self._hashes.update(row.tobytes().hex() for row in rows)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._hashes

    def add(self, hashes: Collection[str]) -> None:
        """Remember those that are new; where nothing can be written, they are looked at again next time."""
        fresh = sorted(set(hashes) - self._hashes)
        if not fresh:
            return
        rows = np.frombuffer(bytes.fromhex("".join(fresh)), np.uint8).reshape(-1, DIGEST)
        name = hashlib.sha256(rows.tobytes()).hexdigest()[:32]
        with contextlib.suppress(RunError):
            write_sealed(self._folder / f"{name}{SUFFIX}", {"hashes": rows}, b"images that can be decoded")
        self._hashes.update(fresh)
