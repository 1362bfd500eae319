"""Damage to pickles that leaves them programs: operations that go, come, repeat, or have other arguments."""

from __future__ import annotations

import pickle
import pickletools
import struct
from random import Random

from . import byte_edits

_NUMBERS = {b"K": "<B", b"M": "<H", b"J": "<i", b"h": "<B", b"q": "<B", b"j": "<I", b"r": "<I"}
_INSERTED = (
    b"(", b"0", b"1", b"2", b"N", b"\x88", b"\x89", b")", b"]", b"}", b"\x85", b"\x86", b"\x87", b"t", b"a", b"e",
    b"s", b"u",
    b"R", b"b", b"Q", b"\x81", b".", b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\ngetattr\n", b"ctorch\nSize\n",
    b"ccollections\nOrderedDict\n)R", b"ctorch._utils\n_rebuild_tensor_v2\n", b"cargparse\nNamespace\n)\x81",
    b"X\x04\x00\x00\x00left",
    b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"\x8a\xff" + b"\xff" * 255, b"J\xff\xff\xff\xff", b"G\x7f\xf8" + bytes(6),
    b"\x80\x04",
    b"\x93", b"\x92", b"\x94", b"\x95" + bytes(8), b"\x8b\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f", b"i__main__\na\n",
    b"oR", b"Pa\n",
)  # fmt: skip


def edit(random: Random, data: bytes) -> bytes:
    """One to four edits of the pickles at the beginning of the data; what follows them stays."""
    operations, rest = split(data)
    if not operations or random.random() < 0.1:
        return byte_edits.edit(random, data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(operations))
        match random.choice(("drop", "double", "swap", "insert", "insert", "number", "number", "wind")):
            case "drop":
                operations[at : at + random.choice((1, 1, 2, 8))] = []
            case "double":
                operations[at:at] = operations[at : at + random.choice((1, 4, 16))] * random.choice((1, 1, 2, 200))
            case "swap":
                other = random.randrange(len(operations))
                operations[at], operations[other] = operations[other], operations[at]
            case "insert":
                operations.insert(at, random.choice(_INSERTED))
            case "number":
                operations[at] = _other_number(random, operations[at])
            case _:  # around itself, or deep
                operations[at:at] = random.choice(
                    ([b"]"] * 3000, [b"(" * 500], [b"h\x00", b"a"], [b"\x85"] * 2000, [b"q\x01", b"h\x01"])
                )
        if not operations:
            break
    return b"".join(operations) + rest


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """The operations of the pickles that data begins with, and what follows."""
    operations: list[bytes] = []
    start = 0
    while data[start : start + 1] == pickle.PROTO:
        try:
            places = [place or 0 for _, _, place in pickletools.genops(data[start:])]
        except (ValueError, IndexError, struct.error, pickle.UnpicklingError):
            break
        ends = [*places[1:], places[-1] + 1]
        operations += [data[start + begin : start + end] for begin, end in zip(places, ends, strict=True)]
        start += ends[-1]
    return operations, data[start:]


def _other_number(random: Random, operation: bytes) -> bytes:
    """An integer of another value or size, a text with another letter."""
    layout = _NUMBERS.get(operation[:1])
    if layout and operation[:1] in b"KMJ":
        value = random.choice(byte_edits.EDGES) + random.choice((0, 1))
        size = random.choice((1, 8, 8, 9, 255))
        return b"\x8a" + bytes([size]) + (value % 2 ** (8 * size)).to_bytes(size, "little")
    if layout:
        return operation[:1] + bytes(random.randrange(256) for _ in operation[1:])
    if operation[:1] in b"XUc" and len(operation) > 5:
        at = random.randrange(5, len(operation))
        return operation[:at] + bytes([random.choice((0, 46, 47, 65, 128, 255))]) + operation[at + 1 :]
    return operation
