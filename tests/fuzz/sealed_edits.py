"""Damage to files of safetensors, and to those that end in a checksum, which is right then: see sealed_arrays.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from random import Random

from . import byte_edits, json_edits

_SEAL = 32
_ABOUT = "about"


def edit(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """A sealed file: its header, the text in it, its numbers; now and then bytes, under the old seal."""
    if random.random() < 0.1:
        return byte_edits.edit(random, data, others)
    match random.choice(("header", "header", "text", "text", "numbers")):
        case "header":
            changed = edit_header(random, data[:-_SEAL], others)
        case "text":
            changed = _edit_text(random, data[:-_SEAL])
        case _:
            changed = byte_edits.edit(random, data[:-_SEAL], others, [(_end(data), len(data) - _SEAL)])
    return changed + hashlib.sha256(changed).digest()


def edit_header(random: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """The JSON at the beginning of a safetensors file, after its length; often as bytes, length included."""
    if random.random() < 0.4:
        return byte_edits.edit(random, data, others, [(0, _end(data))])
    return _with_header(json_edits.edit(random, data[8 : _end(data)]), data[_end(data) :])


def _edit_text(random: Random, data: bytes) -> bytes:
    """The first array, which is JSON; its place in the header is made to fit, nearly always."""
    header = json.loads(data[8 : _end(data)])
    start, end = (at + _end(data) for at in header[_ABOUT]["data_offsets"])
    text = json_edits.edit(random, data[start:end])[: byte_edits.MOST]
    more = len(text) - (end - start)
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        entry["data_offsets"] = [first + more * (name != _ABOUT), last + more]
    header[_ABOUT]["shape"] = [len(text)]
    return _with_header(json.dumps(header).encode(), data[_end(data) : start] + text + data[end:])


def _with_header(header: bytes, rest: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + rest


def _end(data: bytes) -> int:
    """Where the header ends."""
    return 8 + int.from_bytes(data[:8], "little")
