"""Damage to protocol buffers that leaves them so, with lengths that add up. No description of the messages is needed.

Encoding: https://protobuf.dev/programming-guides/encoding. Whether bytes are a message, a text or numbers is not
written down: what can be read as a message, is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from . import byte_edits

_VARINT, _EIGHT, _LENGTH, _FOUR = 0, 1, 2, 5
_MOST_DEPTH = 12
_WORDS = (
    b"", b"\x00", b"PyFunc", b"EagerPyFunc", b"ReadFile", b"WriteFile", b"StatefulPartitionedCall", b"Const",
    b"Placeholder",
    b"Fill", b"Tile", b"Range", b"Reshape", b"images", b"images:0", b"^images", b"serving_default", b"\xff\xfe",
    b"a" * 5000, b"/etc/passwd",
)  # fmt: skip


@dataclass(frozen=True)
class Field:
    """value: of a varint, else raw bytes, else the fields of a message."""

    number: int
    kind: int
    value: int | bytes | tuple[Field, ...]


def edit(random: Random, data: bytes) -> bytes:
    """One to four edits of fields, at any depth."""
    fields = parse(data)
    if not fields or random.random() < 0.05:
        return byte_edits.edit(random, data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        fields = _edit(random, fields or (), _sizes(fields or ()))
    return write(fields or ())[: byte_edits.MOST]


def parse(data: bytes, depth: int = 0) -> tuple[Field, ...] | None:
    """The fields of a message, None for what is none."""
    fields, at = [], 0
    try:
        while at < len(data):
            key, at = _varint(data, at)
            number, kind = key >> 3, key & 7
            if not 0 < number < 2**16:
                return None
            if kind == _VARINT:
                value, at = _varint(data, at)
                fields.append(Field(number, kind, value))
                continue
            size, at = _varint(data, at) if kind == _LENGTH else ({_EIGHT: 8, _FOUR: 4}[kind], at)
            raw, at = data[at : at + size], at + size
            if at > len(data):
                return None
            inner = parse(raw, depth + 1) if kind == _LENGTH and raw and depth < _MOST_DEPTH else None
            fields.append(Field(number, kind, raw if inner is None else inner))
    except (IndexError, KeyError):
        return None
    return tuple(fields)


def write(fields: tuple[Field, ...]) -> bytes:
    """The inverse of `parse`."""
    parts = []
    for field in fields:
        parts.append(_write_varint(field.number << 3 | field.kind))
        if isinstance(field.value, int):
            parts.append(_write_varint(field.value % 2**64))
            continue
        raw = write(field.value) if isinstance(field.value, tuple) else field.value
        parts += [_write_varint(len(raw)), raw] if field.kind == _LENGTH else [raw]
    return b"".join(parts)


def _edit(random: Random, fields: tuple[Field, ...], everywhere: list[Field]) -> tuple[Field, ...]:
    """One edit, here or further down."""
    if not fields:
        return (random.choice(everywhere),) if everywhere else ()
    at = random.randrange(len(fields))
    field = fields[at]
    if isinstance(field.value, tuple) and random.random() < 0.85:
        return (*fields[:at], replace(field, value=_edit(random, field.value, everywhere)), *fields[at + 1 :])
    match random.choice(("value", "value", "value", "value", "drop", "double", "take", "number", "deep")):
        case "value":
            new: tuple[Field, ...] = (replace(field, value=_other(random, field)),)
        case "drop":
            new = ()
        case "double":
            new = (field,) * random.choice((2, 2, 40))
        case "take":
            new = (replace(random.choice(everywhere), number=field.number),)
        case "number":
            new = (replace(field, number=random.randrange(1, 16)),)
        case _:
            new = (field,)
            for _ in range(random.choice((2, 60, 120))):
                new = (Field(field.number, _LENGTH, new),)
    return (*fields[:at], *new, *fields[at + 1 :])


def _other(random: Random, field: Field) -> int | bytes | tuple[Field, ...]:
    value = field.value
    if isinstance(value, int):
        return random.choice((random.choice(byte_edits.EDGES), random.randrange(64), value ^ 1 << random.randrange(32)))
    raw = write(value) if isinstance(value, tuple) else value
    if field.kind != _LENGTH:
        return (
            bytes(random.randrange(256) for _ in raw)
            if random.random() < 0.5
            else byte_edits.integer(random) * 0 + raw[::-1]
        )
    return random.choice(_WORDS) if random.random() < 0.4 else byte_edits.edit(random, raw)


def _sizes(fields: tuple[Field, ...]) -> list[Field]:
    """Every field, at any depth."""
    inner = [one for field in fields if isinstance(field.value, tuple) for one in _sizes(field.value)]
    return [*fields, *inner]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise IndexError


def _write_varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
