"""Where batches begin in a segment: a sparse map from base offset to byte position.

Not every batch has an entry, but every entry is the beginning of a batch, so a lookup ends with a
short walk over headers and never in the middle of one. The file is derived: it is written once the
segment takes no more bytes, and rebuilt from the batches when it is missing or wrong.

File (Kafka's): entries of 8 bytes, relative offset int32 and position int32, big-endian.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from itertools import pairwise

ENTRY_BYTES = 8


class OffsetIndex:
    """Entries ascend in offset and position. The beginning of the segment needs none."""

    __slots__ = ("_offsets", "_positions", "base_offset")

    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self._offsets = array("q")
        self._positions = array("q")

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, offset: int, position: int) -> None:
        self._offsets.append(offset)
        self._positions.append(position)

    def floor(self, offset: int) -> tuple[int, int]:
        """(offset, position) of the last known batch that begins at or below `offset`."""
        slot = bisect_right(self._offsets, offset) - 1
        if slot < 0:
            return self.base_offset, 0
        return self._offsets[slot], self._positions[slot]

    def floor_of_position(self, position: int) -> tuple[int, int]:
        """(offset, position) of the last known batch that begins at or below `position`."""
        slot = bisect_right(self._positions, position) - 1
        if slot < 0:
            return self.base_offset, 0
        return self._offsets[slot], self._positions[slot]

    def truncate_to(self, end_offset: int) -> None:
        """Forget the batches from `end_offset` on."""
        count = bisect_left(self._offsets, end_offset)
        del self._offsets[count:]
        del self._positions[count:]

    def encode(self) -> bytes:
        entries = array("i", bytes(ENTRY_BYTES * len(self)))
        base_offset = self.base_offset
        entries[0::2] = array("i", [offset - base_offset for offset in self._offsets])
        entries[1::2] = array("i", self._positions)
        return big_endian(entries).tobytes()

    @classmethod
    def decode(cls, base_offset: int, data: bytes, size_bytes: int) -> OffsetIndex | None:
        """The index in `data` for a segment of `size_bytes`; None if it cannot be one.

        What looks right may still be wrong: who uses an entry checks the header it leads to.
        """
        if len(data) % ENTRY_BYTES:
            return None
        entries = big_endian(array("i", data))
        offsets, positions = entries[0::2], entries[1::2]
        if not ascends(offsets) or not ascends(positions):
            return None
        if offsets and (offsets[0] <= 0 or positions[0] <= 0 or positions[-1] >= size_bytes):
            return None
        index = cls(base_offset)
        index._offsets = array("q", [base_offset + offset for offset in offsets])
        index._positions = array("q", positions)
        return index


def ascends(numbers: array[int]) -> bool:
    """True when each number is above the one before."""
    return all(one < other for one, other in pairwise(numbers))


def big_endian(numbers: array[int]) -> array[int]:
    """`numbers` with their bytes turned to, or from, the order of the file."""
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
