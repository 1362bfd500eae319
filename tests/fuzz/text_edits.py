"""Damage to tables and settings: lines, cells and values."""

from __future__ import annotations

from random import Random

from . import byte_edits

_CELLS = (
    b"", b"nan", b"inf", b"-1", b"1e999", b"0x10", b"1_0", b"\xff\xfe", b'"', b'"a\nb"', b"a" * 200_000, b"test",
    b"p:", b"'", b"\r", b"\x00", b"[" * 5000,
    b"true", b"'''", b"1979-05-27T07:32:00Z", b"=1+1", b"/dev/zero", b"../../etc/passwd", b"{a=1}", b"9" * 5000,
)  # fmt: skip


def edit(random: Random, data: bytes) -> bytes:
    """One to four edits."""
    for _ in range(random.choice((1, 1, 2, 4))):
        lines = data.split(b"\n")
        at = random.randrange(len(lines))
        match random.choice(("cell", "cell", "cell", "drop", "double", "swap", "bytes")):
            case "cell":
                mark = b"," if b"," in lines[at] else b"="
                cells = lines[at].split(mark)
                cells[random.randrange(len(cells))] = random.choice(_CELLS)
                lines[at] = mark.join(cells + [b"x"] * (random.random() < 0.1))
            case "drop":
                del lines[at]
            case "double":
                lines[at:at] = [lines[at]] * random.choice((1, 1, 300))
            case "swap":
                other = random.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case _:
                lines[at] = byte_edits.edit(random, lines[at] or b" ")
        data = b"\n".join(lines)
    return data[: byte_edits.MOST]
