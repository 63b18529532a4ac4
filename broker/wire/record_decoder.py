"""The bytes of a batch back to records: the consumer's hot path.

Records come out as columns (`Records`), since building an object per record costs as much as the
parsing and only the caller knows which object it wants. Runs of records that differ in nothing but
offset, timestamp and content are recognised by comparing whole columns of bytes; everything else is
parsed field by field. Lengths and counts are compared with the bytes present before they are used,
so nothing a hostile batch claims is ever allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, overload

from broker.wire.varint import (
    INT64_MAX,
    INT64_MIN,
    ONE_BYTE_END,
    TABLE_SIZE,
    VARINTS,
    VarintError,
    decode_varint,
    decode_zigzag,
    encode_varint,
    entries,
)

RECORD_BYTES_MIN = 7
"""Length, attributes, timestamp, offset, key length, value length and header count."""

RUN_RECORDS_MIN = 8
"""Below this, comparing columns is not worth its set-up."""

_ONE_BYTE_DELTAS = tuple([(byte >> 1) ^ -(byte & 1) for byte in range(0x80)])

RecordHeaders = tuple[tuple[str, bytes | None], ...]


class CorruptBatch(ValueError):
    """Bytes that are no batch. `position` counts from the start of the batch; for a field of a
    compressed record, from the start of the decompressed records."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"corrupt batch: {reason} (byte {position})")
        self.position = position
        self.reason = reason


class Record(NamedTuple):
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: RecordHeaders


class Records(Sequence[Record]):
    """The records of one batch, column by column; all columns have the same length.

    Iterating builds a `Record` each; who wants another shape takes the columns.
    """

    __slots__ = ("headers", "keys", "offsets", "timestamps_ms", "values")

    def __init__(
        self,
        offsets: Sequence[int],
        timestamps_ms: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[RecordHeaders],
    ) -> None:
        self.offsets = offsets
        self.timestamps_ms = timestamps_ms
        self.keys = keys
        self.values = values
        self.headers = headers

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Record]:
        # Record._make spends most of its time on getting to tuple.__new__.
        rows = zip(
            self.offsets, self.timestamps_ms, self.keys, self.values, self.headers, strict=True
        )
        return map(_NEW_RECORD, rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        return Record(
            self.offsets[index],
            self.timestamps_ms[index],
            self.keys[index],
            self.values[index],
            self.headers[index],
        )


_NEW_RECORD: Callable[[tuple[Any, ...]], Record] = partial(tuple.__new__, Record)


def decode_records(
    body: bytes, record_count: int, base_offset: int, base_timestamp_ms: int, last_offset_delta: int
) -> Records:
    """The `record_count` records that `body` (decompressed) holds and nothing else.

    Offsets grow by one, or by more where compaction has removed records, up to
    `last_offset_delta`. CorruptBatch otherwise.
    """
    if record_count * RECORD_BYTES_MIN > len(body):
        raise CorruptBatch(0, f"{record_count} records in {len(body)} bytes")
    parser = _Parser(body, record_count, base_timestamp_ms)
    position = start = 0
    # Within each of these ranges every offset delta has the same number of bytes.
    for range_end in (ONE_BYTE_END, TABLE_SIZE, record_count):
        end = min(range_end, record_count)
        if start < end:
            first = position
            position = parser.parse(position, start, start + 1)
            run_end = parser.parse_run(first, position, start + 1, end)
            position = run_end or parser.parse(position, start + 1, end)
            start = end
    if position != len(body):
        raise CorruptBatch(min(position, len(body)), "the records end before or after the batch")
    offsets = parser.offsets(base_offset, last_offset_delta)
    return Records(offsets, parser.timestamps_ms, parser.keys, parser.values, parser.headers)


class _Shape(NamedTuple):
    """Where the fields of a record lie, counted from its start; attributes precede the timestamp,
    the header count follows the value."""

    timestamp_at: int
    offset_at: int
    key_length_at: int
    key_at: int
    value_length_at: int
    value_at: int

    @property
    def offset_bytes(self) -> int:
        return self.key_length_at - self.offset_at


class _Parser:
    """Fills the columns from `body`. Positions are those of the bytes to be read next."""

    def __init__(self, body: bytes, record_count: int, base_timestamp_ms: int) -> None:
        self.body = body
        self.base_timestamp_ms = base_timestamp_ms
        # What most records have is there from the start.
        self.timestamps_ms = [base_timestamp_ms] * record_count
        self.keys: list[bytes | None] = [None] * record_count
        self.values: list[bytes | None] = [None] * record_count
        self.headers: list[RecordHeaders] = [()] * record_count
        # Offset deltas of the records where it is not the index.
        self.gaps: dict[int, int] = {}

    def parse(self, position: int, start: int, end: int) -> int:
        """Parse the records [start, end) field by field; the position after them.

        A record that claims more bytes than there are leads to a position beyond the body, which
        the next access or the caller notices: slices never reach further than the body.
        """
        body = self.body
        keys, values = self.keys, self.values
        index = start
        try:
            for index, offset in enumerate(entries(VARINTS, start, end), start):
                # Numbers of one or two bytes are read in place: a call each would double the time.
                if (length := body[position]) < 0x80:
                    position += 1
                elif (high := body[position + 1]) < 0x80:
                    length += (high << 7) - 0x80
                    position += 2
                else:
                    length, position = decode_zigzag(body, position)
                # Twice, since the length is still in zig-zag: an odd, negative one fits no end.
                twice_the_end = position + position + length
                if body[position]:
                    raise CorruptBatch(position, f"unknown attributes of record {index}")
                if body[position + 1] == 0:
                    position += 2
                else:
                    position = self._parse_timestamp(position + 1, index)
                offset_end = position + len(offset)
                if body[position:offset_end] == offset:
                    position = offset_end
                else:
                    position = self._parse_offset(position, index)
                if (size := body[position]) == 1:
                    position += 1
                elif size < 0x80 and not size & 1:
                    position += 1
                    keys[index] = body[position : (position := position + (size >> 1))]
                else:
                    keys[index], position = self._parse_bytes(position)
                if (size := body[position]) < 0x80:
                    position += 1
                elif (high := body[position + 1]) < 0x80:
                    size += (high << 7) - 0x80
                    position += 2
                else:
                    size, position = decode_zigzag(body, position)
                if not size & 1:
                    values[index] = body[position : (position := position + (size >> 1))]
                elif size != 1:
                    raise CorruptBatch(position, f"negative value length of record {index}")
                if body[position] == 0:
                    position += 1
                else:
                    position = self._parse_headers(position, index)
                if position + position != twice_the_end:
                    raise CorruptBatch(position, f"record {index} has another length than it says")
        except IndexError:
            raise CorruptBatch(len(body), f"record {index} is cut short") from None
        except VarintError as error:
            raise CorruptBatch(error.position, error.reason) from None
        return position

    def _parse_timestamp(self, position: int, index: int) -> int:
        delta_ms, position = decode_varint(self.body, position)
        timestamp_ms = self.base_timestamp_ms + delta_ms
        if not INT64_MIN <= timestamp_ms <= INT64_MAX:
            raise CorruptBatch(position, f"timestamp {timestamp_ms} of record {index}")
        self.timestamps_ms[index] = timestamp_ms
        return position

    def _parse_offset(self, position: int, index: int) -> int:
        offset_delta, position = decode_varint(self.body, position)
        if offset_delta != index:
            self.gaps[index] = offset_delta
        return position

    def _parse_bytes(self, position: int) -> tuple[bytes | None, int]:
        if (size := self.body[position]) < 0x80 and not size & 1:
            end = position + 1 + (size >> 1)
            return self.body[position + 1 : end], end
        size, position = decode_varint(self.body, position)
        if size < -1:
            raise CorruptBatch(position, f"length {size}")
        if size == -1:
            return None, position
        return self.body[position : position + size], position + size

    def _parse_headers(self, position: int, index: int) -> int:
        count, position = decode_varint(self.body, position)
        # Each takes at least two bytes.
        if not 0 <= count <= (len(self.body) - position) // 2:
            raise CorruptBatch(position, f"{count} headers in record {index}")
        headers: list[tuple[str, bytes | None]] = []
        for _ in range(count):
            name, position = self._parse_bytes(position)
            if name is None:
                raise CorruptBatch(position, f"null header name in record {index}")
            value, position = self._parse_bytes(position)
            try:
                headers.append((name.decode(), value))
            except UnicodeDecodeError:
                raise CorruptBatch(position, f"header name in record {index}") from None
        self.headers[index] = tuple(headers)
        return position

    def parse_run(self, first: int, position: int, start: int, end: int) -> int | None:
        """Parse the records [start, end) at once, if they are built like the one before them.

        That one lies at [first, position) and is parsed. "Like": neither headers nor null value,
        the same lengths of key and value, the index as offset delta, a timestamp delta of one
        byte. The position after them; None, and nothing changed, if any of them differs.
        """
        body = self.body
        count = end - start
        stride = position - first
        run_end = position + stride * count
        if count < RUN_RECORDS_MIN or run_end > len(body):
            return None
        shape = self._shape(first, position, start - 1)
        if shape is None:
            return None
        timestamp_at, offset_at, key_length_at, key_at, value_length_at, value_at = shape
        fixed = (
            *range(timestamp_at),
            *range(key_length_at, key_at),
            *range(value_length_at, value_at),
            stride - 1,
        )
        for at in fixed:
            byte = body[first + at : first + at + 1]
            if body[position + at : run_end : stride] != byte * count:
                return None
        offsets = b"".join(entries(VARINTS, start, end))
        for index in range(shape.offset_bytes):
            column = body[position + offset_at + index : run_end : stride]
            if column != offsets[index :: shape.offset_bytes]:
                return None
        deltas = body[position + timestamp_at : run_end : stride]
        if not deltas.isascii():
            return None
        self._set_timestamps(deltas, start, end)
        if self.keys[start - 1] is not None:
            keys = _column(body, position + key_at, run_end, stride, value_length_at - key_at)
            self.keys[start:end] = keys
        values = _column(body, position + value_at, run_end, stride, stride - 1 - value_at)
        self.values[start:end] = values
        return run_end

    def _shape(self, first: int, end: int, index: int) -> _Shape | None:
        """Where the fields of the parsed record at [first, end) lie; None if no run has such."""
        body = self.body
        key, value = self.keys[index], self.values[index]
        offset = encode_varint(index)
        timestamp_at = self._varint_end(first) + 1
        offset_at = timestamp_at + 1
        key_length_at = offset_at + len(offset)
        # Each of these is known to lie in the record once those before it were where they should.
        if (
            body[timestamp_at] >= 0x80
            or body[offset_at:key_length_at] != offset
            or not INT64_MIN + 64 <= self.base_timestamp_ms <= INT64_MAX - 64
        ):
            return None
        key_at = self._varint_end(key_length_at)
        value_length_at = key_at + len(key or b"")
        value_at = self._varint_end(value_length_at)
        if value is None or value_at + len(value) + 1 != end:  # the header count is one byte, 0
            return None
        places = (timestamp_at, offset_at, key_length_at, key_at, value_length_at, value_at)
        return _Shape._make([place - first for place in places])

    def _varint_end(self, position: int) -> int:
        while self.body[position] >= 0x80:
            position += 1
        return position + 1

    def _set_timestamps(self, deltas: bytes, start: int, end: int) -> None:
        """`deltas`: one byte per record, in zig-zag."""
        if deltas.count(deltas[0]) == len(deltas):
            delta_ms = (deltas[0] >> 1) ^ -(deltas[0] & 1)
            self.timestamps_ms[start:end] = [self.base_timestamp_ms + delta_ms] * len(deltas)
        else:
            base_ms = self.base_timestamp_ms
            self.timestamps_ms[start:end] = [base_ms + _ONE_BYTE_DELTAS[byte] for byte in deltas]

    def offsets(self, base_offset: int, last_offset_delta: int) -> Sequence[int]:
        """The offsets of all records, once they are parsed."""
        count = len(self.values)
        if not self.gaps:
            if count - 1 > last_offset_delta:
                raise CorruptBatch(0, f"more records than {last_offset_delta + 1} offsets")
            return range(base_offset, base_offset + count)
        deltas = [self.gaps.get(index, index) for index in range(count)]
        if any(delta >= after for delta, after in pairwise([-1, *deltas, last_offset_delta + 1])):
            raise CorruptBatch(0, "offset deltas do not grow, or pass the last one")
        return [base_offset + delta for delta in deltas]


def _column(body: bytes, position: int, end: int, stride: int, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(position, end, stride)]
