"""When records were made: a sparse map from timestamp to offset, for reads by time.

An entry (T, offset) says: T is the largest timestamp up to and including the record at `offset`,
and is larger than any before it. So whoever looks for the first record at or after a time later
than T begins at `offset`. Producers choose timestamps, thus entries ascend although records need
not.

File (Kafka's): entries of 12 bytes, timestamp_ms int64 and relative offset int32, big-endian.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right

ENTRY = struct.Struct(">qi")


class TimeIndex:
    __slots__ = ("_offsets", "_timestamps_ms", "base_offset")

    def __init__(self, base_offset: int) -> None:
        self.base_offset = base_offset
        self._timestamps_ms: list[int] = []
        self._offsets: list[int] = []

    def __len__(self) -> int:
        return len(self._offsets)

    def maybe_add(self, timestamp_ms: int, offset: int) -> None:
        """Take the entry unless its timestamp does not exceed the last one's."""
        if not self._timestamps_ms or timestamp_ms > self._timestamps_ms[-1]:
            self._timestamps_ms.append(timestamp_ms)
            self._offsets.append(offset)

    def floor(self, timestamp_ms: int) -> int:
        """An offset before which every record is earlier than `timestamp_ms`."""
        slot = bisect_right(self._timestamps_ms, timestamp_ms) - 1
        return self._offsets[slot] if slot >= 0 else self.base_offset

    def truncate_to(self, end_offset: int) -> None:
        """Forget the records from `end_offset` on."""
        count = bisect_left(self._offsets, end_offset)
        del self._offsets[count:]
        del self._timestamps_ms[count:]

    def encode(self) -> bytes:
        base_offset = self.base_offset
        return b"".join(
            ENTRY.pack(timestamp_ms, offset - base_offset)
            for timestamp_ms, offset in zip(self._timestamps_ms, self._offsets, strict=True)
        )

    @classmethod
    def decode(cls, base_offset: int, data: bytes, end_offset: int) -> TimeIndex | None:
        """The index in `data` of offsets in [base_offset, end_offset); None if it cannot be one."""
        if len(data) % ENTRY.size:
            return None
        index = cls(base_offset)
        for timestamp_ms, relative_offset in ENTRY.iter_unpack(data):
            offset = base_offset + relative_offset
            if not base_offset <= offset < end_offset:
                return None
            if index._offsets and (
                timestamp_ms <= index._timestamps_ms[-1] or offset <= index._offsets[-1]
            ):
                return None
            index.maybe_add(timestamp_ms, offset)
        return index
