"""CRC-32C of long data by NumPy: pieces side by side, then put together.

A CRC is linear: that of two pieces is the first one's, moved on by as many zero bytes as the second has, plus the
second one's (Mark Adler, https://stackoverflow.com/q/23122312). Registers are uint32; a move is given as the 32 words
that the single bits become.
"""

from __future__ import annotations

import numpy as np

_POLYNOMIAL = 0x82F63B78  # of Castagnoli, reflected
_MOST_PIECES = 2**16
_LEAST_PIECE = 64  # bytes


def masked_crc32c(data: bytes) -> int:
    """As TensorFlow and LevelDB store it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """https://www.rfc-editor.org/rfc/rfc3720#appendix-B.4"""
    pieces = min(_MOST_PIECES, 2 ** (len(data) // _LEAST_PIECE).bit_length())
    length = -(-len(data) // pieces)
    padded = np.zeros(pieces * length, np.uint8)  # zeros in front change nothing of a register that is zero
    padded[pieces * length - len(data) :] = np.frombuffer(data, np.uint8)
    registers = np.zeros(pieces, np.uint32)
    for column in np.ascontiguousarray(padded.reshape(pieces, length).T):
        registers = _TABLE[(registers ^ column) & 0xFF] ^ registers >> np.uint32(8)
    move = _moved_by(length)
    while len(registers) > 1:
        registers, move = _apply(move, registers[::2]) ^ registers[1::2], _apply(move, move)
    begun = _apply(_moved_by(len(data)), np.array([0xFFFFFFFF], np.uint32))
    return int((registers ^ begun)[0]) ^ 0xFFFFFFFF


def _moved_by(count: int) -> np.ndarray:
    """What `count` zero bytes make of each bit of a register."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    move, step = bits, _TABLE[bits & 0xFF] ^ bits >> np.uint32(8)
    while count:
        move = _apply(step, move) if count & 1 else move
        step, count = _apply(step, step), count >> 1
    return move


def _apply(move: np.ndarray, registers: np.ndarray) -> np.ndarray:
    moved = np.zeros_like(registers)
    for bit, word in enumerate(move):
        moved ^= word * (registers >> np.uint32(bit) & np.uint32(1))
    return moved


def _table() -> np.ndarray:
    """What a register's last byte becomes as it is shifted out."""
    words = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        words = words >> np.uint32(1) ^ np.uint32(_POLYNOMIAL) * (words & np.uint32(1))
    return words


_TABLE = _table()
