"""Damage to bytes, whatever they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

MOST = 2**20  # bytes of a mutant's file
EDGES = (0, 1, -1, 2**7, 2**8 - 1, 2**15 - 1, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**40)
_BYTES = (0x00, 0x01, 0x0A, 0x20, 0x22, 0x2E, 0x2F, 0x7F, 0x80, 0xFE, 0xFF)
Range = tuple[int, int]


def edit(random: Random, data: bytes, others: Sequence[bytes] = (), places: Sequence[Range] = ()) -> bytes:
    """One to eight edits. others: to take pieces from.  places: the only ranges (start, end) to begin an edit in."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        kinds = [_flip, _set, _set, _integer, _integer, _delete, _double, _move, _fill, _cut, _zero]
        at = _place(random, data, places)
        if others and random.random() < 0.1:
            data = _splice(random, data, random.choice(others), at)
        elif data:
            data = random.choice(kinds)(random, data, at)
    return data[:MOST]


def _place(random: Random, data: bytes, places: Sequence[Range]) -> int:
    """Ranges count by their length; those that the data has lost do not."""
    found = [(start, min(end, len(data))) for start, end in places if start < min(end, len(data))]
    if not found:
        return random.randrange(max(1, len(data)))
    start, end = random.choices(found, [end - start for start, end in found])[0]
    return random.randrange(start, end)


def _flip(random: Random, data: bytes, at: int) -> bytes:
    return _put(data, at, bytes([data[at] ^ 1 << random.randrange(8)]))


def _set(random: Random, data: bytes, at: int) -> bytes:
    value = random.choice(_BYTES) if random.random() < 0.5 else random.randrange(256)
    return _put(data, at, bytes([value]))


def integer(random: Random) -> bytes:
    """A number of edge, or near one, of 1 to 8 bytes, of either order."""
    size = random.choice((1, 2, 4, 4, 8, 8))
    value = random.choice(EDGES) + random.choice((0, 0, 0, 1, -1, 7))
    return (value % 2 ** (8 * size)).to_bytes(size, random.choice(("little", "big")))


def _integer(random: Random, data: bytes, at: int) -> bytes:
    return _put(data, at, integer(random))


def _zero(random: Random, data: bytes, at: int) -> bytes:
    return _put(data, at, bytes(_length(random, data, at)))


def _fill(random: Random, data: bytes, at: int) -> bytes:
    return _put(data, at, bytes([random.choice(_BYTES)]) * _length(random, data, at))


def _delete(random: Random, data: bytes, at: int) -> bytes:
    return data[:at] + data[at + _length(random, data, at) :]


def _double(random: Random, data: bytes, at: int) -> bytes:
    return data[:at] + data[at : at + _length(random, data, at)] * random.choice((2, 2, 3, 50)) + data[at:]


def _move(random: Random, data: bytes, at: int) -> bytes:
    """One part over another."""
    start = random.randrange(len(data))
    return _put(data, at, data[start : start + _length(random, data, start)])


def _cut(random: Random, data: bytes, at: int) -> bytes:
    return data[:at] if random.random() < 0.3 else _flip(random, data, at)


def _splice(random: Random, data: bytes, other: bytes, at: int) -> bytes:
    """The beginning of one, the end of another."""
    return data[:at] + other[random.randrange(max(1, len(other))) :]


def _length(random: Random, data: bytes, at: int) -> int:
    return min(random.choice((1, 2, 4, 8, 16, 64, 512)), len(data) - at)


def _put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new[: len(data) - at] + data[at + len(new) :]


Edit = Callable[[Random, bytes], bytes]
