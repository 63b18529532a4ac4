"""msgpack of plain values, read with bounds: no claim in the bytes costs more than the bytes do.

The library allocates an array before its elements are there. Nested a thousand deep, a few
kilobytes of array headers would cost hundreds of megabytes; therefore a message with enough of them
is walked first and refused if it nests deeper than any real one.
"""

from __future__ import annotations

from typing import cast

import msgpack

from broker.wire.batch_header import Buffer

ARRAY_LENGTH_MAX = 65_536
"""Elements of one array: partitions of a request, entries of an answer."""
DEPTH_MAX = 32
"""Arrays within arrays; the deepest message of the protocol has half a dozen."""
UNWALKED_BYTES_MAX = 64 * 1024 * 1024
"""What the arrays of a message may claim at worst before it is walked."""
SMALL_BYTES = 2048
"""Too short for arrays that could claim that much."""
_POINTER_BYTES = 8
_ARRAY_16, _ARRAY_32 = 0xDC, 0xDD


class MalformedMessage(ValueError):
    """Bytes that are not the message they should be. `path` names the field, as in
    `parts[2].topic_id`; it is empty for the message as a whole."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path

    def inside(self, step: str) -> MalformedMessage:
        """The same fault as seen from the value that holds this one as `step`."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        return MalformedMessage(self.reason, f"{step}{joint}{self.path}")


def pack(value: object) -> bytes:
    """msgpack of None, bool, int, str, bytes and sequences of these."""
    return cast(bytes, msgpack.packb(value))


def unpack(data: Buffer) -> object:
    """The one value that `data` holds, its arrays as tuples; MalformedMessage if there is none.

    Maps and extension types are refused unless they are empty; integers may reach from -2**63 to
    2**64 - 1.
    """
    array_length_max = min(len(data), ARRAY_LENGTH_MAX)
    if len(data) > SMALL_BYTES:
        data = bytes(data)
        long_arrays = data.count(_ARRAY_16) + data.count(_ARRAY_32)
        if long_arrays * array_length_max * _POINTER_BYTES > UNWALKED_BYTES_MAX:
            _require_shallow(data)
    try:
        value: object = msgpack.unpackb(
            data, use_list=False, max_array_len=array_length_max, max_map_len=0, max_ext_len=0
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise MalformedMessage(f"not msgpack: {error}") from error
    return value


def _item_sizes() -> tuple[int, ...]:
    """Bytes of an item by its first byte; 0 where more than that byte decides."""
    sizes = [0] * 256
    for byte in (*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3):
        sizes[byte] = 1
    for byte in range(0xA0, 0xC0):
        sizes[byte] = 1 + (byte & 0x1F)
    number_sizes = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}
    number_sizes |= {0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
    for byte, size in number_sizes.items():
        sizes[byte] = size
    return tuple(sizes)


_ITEM_SIZES = _item_sizes()
_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, _ARRAY_16: 2, _ARRAY_32: 4}
"""Of bin 8, 16, 32; str 8, 16, 32; array 16, 32."""


def _require_shallow(data: bytes) -> None:
    """MalformedMessage unless `data` is one item of numbers, strings and arrays, nested at most
    DEPTH_MAX deep, whose arrays claim no more elements than there are bytes."""
    open_arrays: list[int] = []  # elements still to come, outermost first
    position = 0
    while position < len(data):
        byte = data[position]
        size = _ITEM_SIZES[byte]
        elements = 0
        if size:
            position += size
        elif byte & 0xF0 == 0x90:
            position += 1
            elements = byte & 0x0F
        elif byte in _LENGTH_BYTES:
            length_end = position + 1 + _LENGTH_BYTES[byte]
            length = int.from_bytes(data[position + 1 : length_end], "big")
            position = length_end
            if byte in (_ARRAY_16, _ARRAY_32):
                elements = length
            else:
                position += length
        else:
            raise MalformedMessage(f"type {byte:#04x} at byte {position}")
        if elements > len(data) - position or (elements and len(open_arrays) == DEPTH_MAX):
            raise MalformedMessage(
                f"array of {elements} at byte {position}, {len(open_arrays)} deep"
            )
        if elements:
            open_arrays.append(elements)
            continue
        # The item is complete, and with it every array whose last element it was.
        while open_arrays:
            open_arrays[-1] -= 1
            if open_arrays[-1]:
                break
            open_arrays.pop()
        if not open_arrays:
            return
