"""Official weight files from the network, kept where PyTorch keeps them, so that nobody fetches one twice.

A file is known by its SHA-256, whether it was fetched just now or lay there before. torchvision's and timm's file names
carry the first 8 hex digits, resnet50-11ad3fa6.pth, and PyTorch checks these too.
"""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from multitl.errors import RunError, WeightsError
from multitl.system.hashes import file_sha256
from multitl.system.paths import expanded
from multitl.system.progress import progress_bar
from multitl.system.writing import atomic_write

_CHUNK = 2**18  # bytes
_PATIENCE = 30  # seconds without an answer


def download(url: str, sha256_prefix: str, megabytes: float) -> Path:
    """The file behind `url` in PyTorch's own cache; it is fetched if it is not there. Two processes at once do no harm.

    sha256_prefix: of the file's SHA-256 in hex, 8 digits or more.  megabytes: the file's size, for people.

    Raises WeightsError if the file cannot be fetched or kept, or is not the right one; a wrong file that lay there is
    left as it is.
    """
    path = kept_at(url)
    try:
        if path.exists():
            _check(path, sha256_prefix, f"The file {path}", f"rm '{path}', and run the same command again")
            return path
        with atomic_write(path) as temporary:
            with temporary.open("wb") as file:
                for chunk in _fetch(url, path, megabytes):
                    file.write(chunk)
            _check(temporary, sha256_prefix, f"What {url} sent", f"try again later, or {_by_hand(path)}")
    except (OSError, RunError) as error:
        raise WeightsError(
            f"Cannot keep the file {path}.",
            expected=f"a folder with {megabytes:.0f} MB of room that this user may write to",
            received=str(error.__cause__ or error),
            fix=f"let the variable TORCH_HOME name another folder, or {_by_hand(path)}",
        ) from error
    return path


def kept_at(url: str) -> Path:
    """Where PyTorch keeps the file behind an address, or will."""
    return checkpoint_folder() / Path(urllib.parse.urlsplit(url).path).name


def checkpoint_folder() -> Path:
    """Where torch.hub puts files of weights: $TORCH_HOME/hub/checkpoints, by default in ~/.cache/torch."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return expanded(home) / "hub" / "checkpoints"


def _fetch(url: str, path: Path, megabytes: float) -> Iterator[bytes]:
    """The file's bytes as they arrive. Raises WeightsError if they do not, or not all of them."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "multitl"})
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer, progress_bar() as bar:
            task = bar.add_task(f"{path.name}, MB", total=max(1, round(megabytes)), note="")
            while chunk := answer.read(_CHUNK):
                bar.advance(task, len(chunk) / 1e6)
                yield chunk
            if answer.length:
                raise ConnectionError(f"the connection ended {answer.length:,} bytes too early")
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the server's answer too
        raise WeightsError(
            f"Cannot download {path.name} ({megabytes:.0f} MB).",
            expected=url,
            received=str(error),
            fix=f"check the network and try again, or {_by_hand(path)}",
        ) from error


def _check(path: Path, sha256_prefix: str, subject: str, fix: str) -> None:
    sha256 = file_sha256(path)
    if not sha256.startswith(sha256_prefix.lower()):
        raise WeightsError(
            f"{subject} is damaged, or is not the official file.",
            expected=f"a SHA-256 that begins with {sha256_prefix}",
            received=f"{sha256}, of {path.stat().st_size:,} bytes",
            fix=fix,
        )


def _by_hand(path: Path) -> str:
    return f"fetch the file elsewhere and put it at {path}, or anywhere, and add: --weights PATH/{path.name}"
