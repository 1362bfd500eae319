"""Damage to the index of TensorFlow's checkpoints, a table of LevelDB, with checksums that are right.

Format: https://github.com/google/leveldb/blob/main/doc/table_format.md; each block is followed by a byte for its
compression and the masked CRC-32C of both. The values are protocol buffers (tensor_bundle.proto of TensorFlow).
"""

from __future__ import annotations

from random import Random

from . import byte_edits

_FOOTER = 48
_TRAILER = 5
_POLYNOMIAL = 0x82F63B78


def edit(random: Random, data: bytes) -> bytes:
    """Edits of bytes in one block, whose checksum is made anew; of anything, now and then."""
    blocks = _blocks(data)
    if not blocks or random.random() < 0.15:
        return byte_edits.edit(random, data)
    start, size = random.choice(blocks)
    block = data[start : start + size]
    edited = byte_edits.edit(random, block)[:size].ljust(size, b"\0") + data[start + size : start + size + 1]
    return data[:start] + edited + checksum(edited).to_bytes(4, "little") + data[start + size + _TRAILER :]


def _blocks(data: bytes) -> list[tuple[int, int]]:
    """Start and size of each block: those that the footer names, and the one before them with the values."""
    footer = data[-_FOOTER:]
    if len(footer) < _FOOTER:
        return []
    numbers, at = [], 0
    for _ in range(4):
        number, at = _varint(footer, at)
        numbers.append(number)
    found = [(numbers[0], numbers[1]), (numbers[2], numbers[3]), (0, numbers[0] - _TRAILER)]
    return [(start, size) for start, size in found if size > 0 and start + size + _TRAILER <= len(data)]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value, shift, at = value | (data[at] & 0x7F) << shift, shift + 7, at + 1
        if not data[at - 1] & 0x80:
            break
    return value, at


def checksum(data: bytes) -> int:
    """LevelDB's: the CRC-32C, turned by 15 bits, plus a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ _POLYNOMIAL * (crc & 1)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
