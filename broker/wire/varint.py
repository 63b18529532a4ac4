"""Zig-zag varints as Kafka's records use them, and the tables that make them cheap.

Seven bits a byte, least significant group first, the high bit set on every byte but the last; the
sign is folded into the lowest bit (0, -1, 1, -2 become 0, 1, 2, 3). Lengths, counts and deltas of
ordinary records fit two bytes, so encoders look these up instead of computing them.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

VARINT_BYTES_MAX = 10
"""A 64-bit number never needs more; a longer one is an attack or damage."""
TABLE_SIZE = 8192
"""The non-negative numbers whose varints have one byte (below 64) or two."""
ONE_BYTE_END = 64

INT64_MIN = -(1 << 63)
INT64_MAX = (1 << 63) - 1


class VarintError(ValueError):
    """The bytes at `position` are not a varint of at most 64 bits."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"{reason} at byte {position}")
        self.position = position
        self.reason = reason


def encode_varint(number: int) -> bytes:
    """`number` (signed, 64 bits) as 1 to 10 bytes; ValueError beyond 64 bits."""
    if 0 <= number < TABLE_SIZE:
        return VARINTS[number]
    if not INT64_MIN <= number <= INT64_MAX:
        raise ValueError(f"{number} does not fit 64 bits")
    rest = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


def end_of_width(number: int) -> int:
    """The first number above `number`, which is not negative, whose varint is longer."""
    return int(1 << 7 * len(encode_varint(number)) - 1)


def decode_varint(buffer: bytes, position: int) -> tuple[int, int]:
    """The signed number at `position` and the position after it; VarintError if there is none."""
    if position < len(buffer) and (byte := buffer[position]) < 0x80:
        return (byte >> 1) ^ -(byte & 1), position + 1
    zigzag, end = decode_zigzag(buffer, position)
    return (zigzag >> 1) ^ -(zigzag & 1), end


def decode_zigzag(buffer: bytes, position: int) -> tuple[int, int]:
    """As `decode_varint`, with the sign still folded into the lowest bit."""
    zigzag = shift = 0
    for end in range(position, position + VARINT_BYTES_MAX):
        if end >= len(buffer):
            raise VarintError(position, "varint cut short")
        byte = buffer[end]
        zigzag |= (byte & 0x7F) << shift
        if byte < 0x80:
            if zigzag >> 64:
                raise VarintError(position, "varint beyond 64 bits")
            return zigzag, end + 1
        shift += 7
    raise VarintError(position, f"varint longer than {VARINT_BYTES_MAX} bytes")


def _table() -> tuple[bytes, ...]:
    one_byte = [bytes((number << 1,)) for number in range(ONE_BYTE_END)]
    two_bytes = [
        bytes((number << 1 & 0x7F | 0x80, number >> 6))
        for number in range(ONE_BYTE_END, TABLE_SIZE)
    ]
    return tuple(one_byte + two_bytes)


VARINTS = _table()
"""VARINTS[n] is the varint of n for n in [0, TABLE_SIZE)."""


def with_suffix(suffix: bytes) -> tuple[bytes, ...]:
    """VARINTS, each followed by `suffix`."""
    return tuple([varint + suffix for varint in VARINTS])


def entries(table: tuple[bytes, ...], start: int, end: int) -> Iterable[bytes]:
    """The entries [start, end) of a table made by `with_suffix`, as if it had no end."""
    known = table[start:end]
    if end <= TABLE_SIZE:
        return known
    suffix = table[0][1:]
    beyond = range(max(start, TABLE_SIZE), end)
    return chain(known, (encode_varint(number) + suffix for number in beyond))
