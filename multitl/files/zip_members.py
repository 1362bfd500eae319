"""Members of zip archives that may be anyone's, without trusting what an archive says of itself."""

from __future__ import annotations

import contextlib
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from multitl.system.regular_files import MOST_MODEL, open_regular

DAMAGE = (OSError, LookupError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error, struct.error, EOFError)
_MOST_EXPANSION = 100  # JSON shrinks to a twentieth, weights hardly at all
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive of plain members. Raises one of DAMAGE: ValueError for what is unsafe."""
    with open_regular(path, MOST_MODEL) as file, zipfile.ZipFile(file) as archive:
        members, size = archive.infolist(), path.stat().st_size
        outside = [one.filename for one in members if _leads_outside(one.filename)]
        if outside:
            raise ValueError(f"an archive whose files would lie outside it: {outside[0][:200]!r}")
        if len({one.filename for one in members}) != len(members):
            raise ValueError("an archive with two files of one name")
        if any(one.compress_type not in _KINDS or one.flag_bits & 1 for one in members):
            raise ValueError("an archive that is encrypted, or compressed in an unusual way")
        if any(one.compress_size > size for one in members):  # zipfile would get memory for all of it
            raise ValueError("an archive with a file larger than itself")
        yield archive


def read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A member's bytes, at most `most`. Raises one of DAMAGE, ValueError for one that would grow."""
    member = archive.getinfo(name)
    if member.file_size > most:
        raise ValueError(f"an archive whose {name} would grow to {member.file_size:,} bytes: a decompression bomb")
    _check_growth(member)
    return archive.read(member)


def copy_member(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    """Unpack one member. Raises as `read_member` does."""
    member = archive.getinfo(name)
    _check_growth(member)
    with archive.open(member) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)


def _check_growth(member: zipfile.ZipInfo) -> None:
    if member.file_size > _MOST_EXPANSION * max(member.compress_size, 1):
        raise ValueError(f"an archive whose {member.filename} would grow {_MOST_EXPANSION}-fold: a decompression bomb")


def _leads_outside(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in name
