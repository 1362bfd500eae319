"""The folder of a port: whose place it may take, and how it gets there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multitl.errors import PortError
from multitl.runs.cards import is_port
from multitl.system.scratch import temporary_folder
from multitl.system.writing import cannot_write, umask


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raises PortError where something lies at `output` that may not be replaced: an older port may be, if asked."""
    if not os.path.lexists(output):
        return
    replaceable = is_port(output)
    if replaceable and overwrite:
        return
    raise PortError(
        f"{output} exists already.",
        expected="a new folder" + (", or permission" if replaceable else ""),
        received=f"{output}: {'a port' if replaceable else 'something else, which is left alone'}",
        fix="add --overwrite to replace it, or choose another --out" if replaceable else "choose another --out",
    )


@contextmanager
def folder_in_the_making(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder beside `output`, which takes its place if all goes well and leaves no trace if not."""
    try:
        with temporary_folder(output.parent) as work:
            yield work
            _open_to_others(work)
            if overwrite and output.exists():  # the older port goes only once the new one stands in its place
                output.rename(_older(output))
            work.rename(output)
            put_back(output)
    except OSError as error:
        raise cannot_write(output, error) from error


def _older(output: Path) -> Path:
    """Where an older port waits until the new one stands in its place."""
    return output.parent / f".{output.name}.older"


def put_back(output: Path) -> None:
    """An older port goes back to its place if a process was killed between taking it away and filling the place."""
    older = _older(output)
    if not (older / "card.json").is_file():
        return
    if os.path.lexists(output):
        shutil.rmtree(older, ignore_errors=True)
    else:
        older.rename(output)


def _open_to_others(folder: Path) -> None:
    """What a user's own programs would be allowed: temporary folders, and safetensors' files, are for their owner."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask())


def size_of(folder: Path, files: tuple[str, ...]) -> int:
    """Bytes of files and folders in a folder."""
    places = [place for name in files for place in folder.glob(name)]
    return sum(
        file.stat().st_size
        for place in places
        for file in ([place] if place.is_file() else place.rglob("*"))
        if file.is_file()
    )
