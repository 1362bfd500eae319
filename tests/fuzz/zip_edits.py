"""Damage to the files in a zip archive, which stays one, with the right sizes and checksums, or nearly."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from random import Random

from . import byte_edits

EditFile = Callable[[Random, str, bytes], bytes]
_TIME = (1980, 1, 1, 0, 0, 0)


def edit(random: Random, data: bytes, others: Sequence[bytes], edit_file: EditFile) -> bytes:
    """edit_file: for the content of a file in the archive, by its name. What is no archive is edited as bytes."""
    try:
        files = members(data)
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return byte_edits.edit(random, data, others)
    if random.random() < 0.8 and files:
        at = random.randrange(len(files))
        files[at] = (files[at][0], edit_file(random, *files[at]))
    else:
        files = _edit_list(random, files, others)
    method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    written = pack(files, method)
    return byte_edits.edit(random, written) if random.random() < 0.05 else written


def members(data: bytes) -> list[tuple[str, bytes]]:
    """Names and contents."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(one.filename, archive.read(one)) for one in archive.infolist()]


def pack(files: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """The archive of these files; names may be there twice, or be of any kind."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files:
            information = zipfile.ZipInfo("placeholder", _TIME)
            information.filename, information.compress_type = name, method
            with archive.open(information, "w") as file:
                file.write(content)
            archive.NameToInfo.clear()  # no warning of names that are there twice
    return target.getvalue()


def _edit_list(random: Random, files: list[tuple[str, bytes]], others: Sequence[bytes]) -> list[tuple[str, bytes]]:
    at = random.randrange(max(1, len(files)))
    name, content = files[at] if files else ("a", b"")
    other = files[random.randrange(len(files))][0] if files else "b"
    match random.choice(("drop", "double", "swap", "rename", "bomb", "add", "splice")):
        case "drop":
            return files[:at] + files[at + 1 :]
        case "double":
            return [*files, (name, byte_edits.edit(random, content))]
        case "swap":
            return [(other if one == name else name if one == other else one, data) for one, data in files]
        case "rename":
            changed = random.choice(
                (f"../{name}", f"/{name}", name.upper(), f"{name}\x00", f"{name}/", "", name[:-1], f"a/{name}")
            )
            return [*files[:at], (changed, content), *files[at + 1 :]]
        case "bomb":
            return [*files[:at], (name, content + bytes(random.choice((2**16, 2**20, 2**24)))), *files[at + 1 :]]
        case "splice" if others:
            try:
                return files + members(random.choice(others))[: random.randrange(1, 5)]
            except (zipfile.BadZipFile, NotImplementedError, ValueError):
                return files
    return [*files, (random.choice((f"{name}0", "a", "constants.pkl")), content)]
