"""Damage to the members of tar archives: paths, sizes, links, depths, headers of all kinds; checksums are right."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Sequence
from random import Random

from . import byte_edits

_BLOCK = 512
_NAMES = (
    "", ".", "..", "../left", "/tmp/multitl-fuzz-left", "a/../../left", "..\\left", "C:\\left", "a\x00b", "a//b",
    "./a", "a/.", "saved_model.pb/a",
    "variables", "variables/", "saved_model.pb", "é" * 80, "a" * 300, "\udc80", "/".join("a" * 1500),
    "/".join(["b"] * 5000), "~/a", "-rf",
)  # fmt: skip
_KINDS = (
    tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE,
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, b"Z",
)  # fmt: skip
_PAX = (
    "path",
    "linkpath",
    "size",
    "mtime",
    "uid",
    "GNU.sparse.size",
    "GNU.sparse.map",
    "GNU.sparse.major",
    "GNU.sparse.name",
    "hdrcharset",
)
_PACK: Sequence[Callable[[bytes], bytes]] = (
    lambda data: gzip.compress(data, mtime=0), lambda data: gzip.compress(data, mtime=0), bytes, bz2.compress,
    lzma.compress,
)  # fmt: skip


def edit(random: Random, data: bytes) -> bytes:
    """One archive with changed or new members, in one of four kinds of packing, whose bytes may be damaged as well."""
    plain = unpack(data)
    if plain is None or random.random() < 0.15:
        return byte_edits.edit(random, data)
    for _ in range(random.choice((1, 1, 2, 4))):
        plain = random.choice((_add, _add, _edit_header, _edit_header, _edit_any))(random, plain)
    packed = random.choice(_PACK)(plain[: byte_edits.MOST])
    return byte_edits.edit(random, packed) if random.random() < 0.2 else packed


def unpack(data: bytes) -> bytes | None:
    """The tar inside; None if it is damaged."""
    for start, open_packed in (
        (b"\x1f\x8b", gzip.decompress),
        (b"\xfd7zXZ", lzma.decompress),
        (b"BZh", bz2.decompress),
    ):
        if data.startswith(start):
            try:
                return open_packed(data)
            except (OSError, EOFError, lzma.LZMAError):
                return None
    return data


def _add(random: Random, plain: bytes) -> bytes:
    """A member in front."""
    information = tarfile.TarInfo(random.choice(_NAMES))
    information.type, information.linkname = random.choice(_KINDS), random.choice(_NAMES)
    content = random.choice((b"", b"x" * 10, b"13 path=../left\n", b"999999999999 size=1\n", bytes(600)))
    information.size = len(content) if random.random() < 0.7 else random.choice((1, 2**20, 2**33, 2**62))
    information.mode, information.mtime = random.choice((0, 0o644, 0o4777)), random.choice((0, 2**31, -1))
    if random.random() < 0.3:
        values = ("1", "-1", "99999999999999999999", "../left", "a", "0,1,2", "\x00")
        information.pax_headers = {random.choice(_PAX): random.choice(values)}
    form = random.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    try:
        header = information.tobuf(form, "utf-8", "surrogateescape")
    except ValueError:  # a number that this format cannot hold
        return _edit_any(random, plain)
    return header + content + bytes(-len(content) % _BLOCK) + plain


def _edit_header(random: Random, plain: bytes) -> bytes:
    """Bytes of a header's field; the checksum is made anew."""
    headers = [at for at in range(0, len(plain), _BLOCK) if plain[at + 257 : at + 262] == b"ustar"]
    if not headers:
        return _edit_any(random, plain)
    at = random.choice(headers)
    block = byte_edits.edit(random, plain[at : at + _BLOCK])[:_BLOCK].ljust(_BLOCK, b"\0")
    if random.random() < 0.4:
        block = (
            block[:124]
            + random.choice((b"\x80" + b"\xff" * 11, b"77777777777\0", b"\xff" * 12, b"-0000000001\0"))
            + block[136:]
        )
    blank = block[:148] + b" " * 8 + block[156:]
    return plain[:at] + blank[:148] + b"%06o\0 " % sum(blank) + blank[156:] + plain[at + _BLOCK :]


def _edit_any(random: Random, plain: bytes) -> bytes:
    return byte_edits.edit(random, plain)


def members(data: bytes) -> list[str]:
    """Names, for tests."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()
