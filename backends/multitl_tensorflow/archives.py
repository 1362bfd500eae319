"""A module's .tar.gz, unpacked without trusting it: no path leaves the folder, no link, no device, a bounded size."""

from __future__ import annotations

import contextlib
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Self

from multitl.errors import MultitlError, WeightsError, full_disk, tells_full_disk
from multitl.system.regular_files import open_regular
from multitl.system.scratch import temporary_folder

MOST_FILES = 10_000
MOST_BYTES = 2**33  # unpacked: the largest published image modules have 4 GB
MOST_DEPTH = 16  # folders in folders; deeper ones than any module's could not be removed again
MOST_HEADER = 2**16  # bytes of a member's long name or other properties, which tarfile reads as a whole
HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
MOST_RATIO = 100  # unpacked over packed; weights hardly compress at all
FREE_BYTES = 2**24  # small archives may compress as they like


@contextlib.contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """A temporary folder with an archive's files. Raises WeightsError for what is unsafe or damaged."""
    with temporary_folder() as folder:
        try:
            with (
                open_regular(archive, MOST_BYTES) as packed,
                tarfile.open(fileobj=packed, mode="r|*", tarinfo=_Member) as file,
            ):
                _extract(file, archive, folder)
        except MultitlError:
            raise
        except Exception as error:  # tarfile meets damage with TypeError, struct.error, lzma.LZMAError, ...
            if tells_full_disk(error):
                raise full_disk(error) from error
            raise _refuse(archive, f"{type(error).__name__}: {error}".partition("\n")[0]) from error
        yield module_folder(folder)


def module_folder(folder: Path) -> Path:
    """Where saved_model.pb lies: in the folder, or in the only one inside it."""
    inner = [one for one in folder.iterdir() if one.is_dir()] if folder.is_dir() else []
    if not (folder / "saved_model.pb").is_file() and len(inner) == 1 and (inner[0] / "saved_model.pb").is_file():
        return inner[0]
    return folder


class _Member(tarfile.TarInfo):
    """A member, or a header that tarfile takes as a part of the next one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Raises ReadError for a header that would fill the memory, or a size that tarfile would look for without end.

        Sparse files say one size and are stored in another; no module has any.
        """
        found = super().frombuf(buf, encoding, errors)
        if found.type == tarfile.GNUTYPE_SPARSE or found.size > MOST_BYTES:
            raise tarfile.ReadError(f"a sparse file, or {found.size} bytes: {found.name[:200]}")
        if found.type in HEADERS and found.size > MOST_HEADER:
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found


def _extract(file: tarfile.TarFile, archive: Path, folder: Path) -> None:
    """Member after member, so that nothing is written before it has been looked at."""
    most = min(MOST_BYTES, max(FREE_BYTES, MOST_RATIO * archive.stat().st_size))
    left, count = most, 0
    for member in file:
        count += 1
        left -= member.size
        if left < 0 or count > MOST_FILES:
            raise _refuse(archive, f"more than {most} bytes or {MOST_FILES} files once unpacked")
        path = PurePosixPath(member.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member.name:
            raise _refuse(archive, f"a file outside the archive: {member.name[:200]}")
        if len(path.parts) > MOST_DEPTH:
            raise _refuse(archive, f"folders {len(path.parts)} deep: {member.name[:200]}")
        if not (member.isfile() or member.isdir()) or member.issparse():
            raise _refuse(archive, f"a link or a device: {member.name[:200]}")
        target = folder.joinpath(*path.parts)
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        content = file.extractfile(member)
        if content is not None:
            _write(content, target)


def _write(content: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("xb") as out:
        shutil.copyfileobj(content, out)


def _refuse(archive: Path, received: str) -> WeightsError:
    return WeightsError(
        f"{archive.name} cannot be unpacked safely; nothing of it was run.",
        expected="a .tar.gz with saved_model.pb and variables/, of plain files inside it",
        received=received,
        fix="download the module again, from where its authors publish it",
    )
