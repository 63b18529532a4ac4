"""Records to the bytes of one batch: the producer's hot path.

`append` only collects, `seal` encodes in one tight loop. An ordinary record has a value, no
headers, key and value below 4 KiB, and a timestamp less than 8 seconds after the first one of the
batch: each of its varints is looked up. A batch with any other record in it is encoded by a slower,
general loop.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import cast

import crc32c

from broker.wire.batch_header import (
    ATTRIBUTES_POSITION,
    CRC_POSITION,
    HEADER,
    HEADER_BYTES,
    LOG_OVERHEAD_BYTES,
    MAGIC,
    NO_LEADER_EPOCH,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    PRODUCER_ID_POSITION,
    TRANSACTIONAL_BIT,
)
from broker.wire.compression import Codec, compress
from broker.wire.varint import (
    INT64_MAX,
    TABLE_SIZE,
    VARINTS,
    encode_varint,
    end_of_width,
    entries,
    with_suffix,
)

Headers = Sequence[tuple[str, bytes | None]]

BATCH_BYTES_MAX = 2**30
"""Of a batch and of a record: half of what a signed 32-bit length can say."""
_OVERHEAD_BYTES_MAX = 5 + 1 + 10 + 5 + 5 + 5
"""Length, attributes, timestamp, offset, key length and value length of any record."""

_EMPTY_HEADER = bytes(HEADER_BYTES)
_NULL = encode_varint(-1)
_NO_HEADERS = b"\x00"
_ORDINARY_END = TABLE_SIZE // 2 - 16
"""Keys and values below this leave room for the rest in a record length below TABLE_SIZE."""

# A varint together with the constant byte that follows it in an ordinary record.
_LENGTH_ATTRIBUTES = with_suffix(b"\x00")
_OFFSET_NULL_KEY = with_suffix(_NULL)
_FIELD_BYTES = tuple([len(VARINTS[size]) + size for size in range(_ORDINARY_END)])
"""Bytes of a key or value of the given size with its length in front."""
_RECORD_BYTES = tuple([2 + 1 + 2 + 3 + 1 + field_bytes + 1 for field_bytes in _FIELD_BYTES])
"""Bytes that an ordinary record without key takes at most: its length, attributes, timestamp,
offset and null key, then the value, then the header count."""

_PRODUCER = struct.Struct(">qhi")
_CRC = struct.Struct(">I")


class BatchBuilder:
    """Collects records of one partition until the batch is full, then `seal`s it.

    `size_bytes` is what the uncompressed batch takes at most, as long as it has less than a million
    records; for ordinary records the bound is 2 to 4 bytes a record too high.
    """

    __slots__ = (
        "_headers",
        "_is_ordinary",
        "_keys",
        "_timestamp_end_ms",
        "_timestamp_start_ms",
        "_timestamps_ms",
        "_values",
        "size_bytes",
        "size_limit_bytes",
    )

    def __init__(self, size_limit_bytes: int = BATCH_BYTES_MAX) -> None:
        """`append` stops at `size_limit_bytes` (at most 1 GiB); a first record may go beyond."""
        self.size_limit_bytes = min(size_limit_bytes, BATCH_BYTES_MAX)
        self.size_bytes = HEADER_BYTES
        # The window of ordinary timestamps: empty until the first record opens it.
        self._timestamp_start_ms = 0
        self._timestamp_end_ms = 0
        self._is_ordinary = True
        self._timestamps_ms: list[int] = []
        self._values: list[bytes | None] = []
        # By record index; absent means null and none. Insertion order is index order.
        self._keys: dict[int, bytes] = {}
        self._headers: dict[int, bytes] = {}

    @property
    def record_count(self) -> int:
        return len(self._values)

    def append(
        self, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> bool:
        """Add a record; False, and nothing changed, if the batch has records and no room for it.

        Raises TypeError for what is not bytes (int, str), ValueError for a timestamp outside
        [0, 2**63) or a record beyond 1 GiB, and leaves the batch as it was.
        """
        if (
            type(value) is bytes
            and not headers
            and type(timestamp_ms) is int
            and self._timestamp_start_ms <= timestamp_ms < self._timestamp_end_ms
            and len(value) < _ORDINARY_END
        ):
            size_bytes = self.size_bytes + _RECORD_BYTES[len(value)]
            if key is not None:
                return self._append_keyed(timestamp_ms, key, value, size_bytes)
            if size_bytes > self.size_limit_bytes:
                return False
            self.size_bytes = size_bytes
            self._timestamps_ms.append(timestamp_ms)
            self._values.append(value)
            return True
        return self._append_any(timestamp_ms, key, value, headers)

    def _append_keyed(self, timestamp_ms: int, key: bytes, value: bytes, size_bytes: int) -> bool:
        if type(key) is not bytes or len(key) >= _ORDINARY_END:
            return self._append_any(timestamp_ms, key, value, ())
        size_bytes += _FIELD_BYTES[len(key)]
        if size_bytes > self.size_limit_bytes:
            return False
        self.size_bytes = size_bytes
        self._keys[len(self._values)] = key
        self._timestamps_ms.append(timestamp_ms)
        self._values.append(value)
        return True

    def _append_any(
        self, timestamp_ms: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> bool:
        _require_types(timestamp_ms, key, value)
        encoded_headers = _encode_headers(headers) if headers else _NO_HEADERS
        key_bytes = 0 if key is None else len(key)
        value_bytes = 0 if value is None else len(value)
        record_bytes = _OVERHEAD_BYTES_MAX + key_bytes + value_bytes + len(encoded_headers)
        if record_bytes > BATCH_BYTES_MAX:
            raise ValueError(f"a record of {record_bytes} bytes cannot be encoded")
        index = len(self._values)
        if index == 0:
            self._timestamp_start_ms = timestamp_ms
            self._timestamp_end_ms = min(timestamp_ms + TABLE_SIZE, INT64_MAX + 1)
        elif self.size_bytes + record_bytes > self.size_limit_bytes:
            return False
        if (
            value is None
            or headers
            or not self._timestamp_start_ms <= timestamp_ms < self._timestamp_end_ms
            or max(key_bytes, value_bytes) >= _ORDINARY_END
        ):
            self._is_ordinary = False
        if key is not None:
            self._keys[index] = key
        if headers:
            self._headers[index] = encoded_headers
        self.size_bytes += record_bytes
        self._timestamps_ms.append(timestamp_ms)
        self._values.append(value)
        return True

    def extend(self, timestamp_ms: int, values: Sequence[bytes], start: int = 0) -> int:
        """Append records without key or headers, from `values[start]` on; how many found room.

        Errors are those of `append`; the records before the offending one are in the batch.
        """
        taken = 0
        if not self._values and start < len(values):
            self.append(timestamp_ms, None, values[start])
            taken = 1
        if self._timestamp_start_ms <= timestamp_ms < self._timestamp_end_ms:
            taken += self._extend_ordinary(timestamp_ms, values, start + taken)
        # Whatever stopped the run, lack of room or a value out of the ordinary: append knows.
        for value in islice(values, start + taken, None):
            if not self.append(timestamp_ms, None, value):
                break
            taken += 1
        return taken

    def _extend_ordinary(self, timestamp_ms: int, values: Sequence[bytes], start: int) -> int:
        size_bytes = self.size_bytes
        size_limit_bytes = self.size_limit_bytes
        end = start
        for value in islice(values, start, None):
            if type(value) is not bytes or len(value) >= _ORDINARY_END:
                break
            next_size_bytes = size_bytes + _RECORD_BYTES[len(value)]
            if next_size_bytes > size_limit_bytes:
                break
            size_bytes = next_size_bytes
            end += 1
        self.size_bytes = size_bytes
        self._timestamps_ms += [timestamp_ms] * (end - start)
        self._values += values[start:end]
        return end - start

    def seal(
        self,
        codec: Codec = Codec.NONE,
        producer_id: int = NO_PRODUCER_ID,
        producer_epoch: int = NO_PRODUCER_EPOCH,
        base_sequence: int = NO_SEQUENCE,
        is_transactional: bool = False,
    ) -> bytearray:
        """The batch: base offset 0, no leader epoch; the broker puts both in their place.

        Records that `codec` would make no smaller are left uncompressed. The builder is unchanged.
        """
        assert self._values, "a batch holds at least one record"
        if self._is_ordinary and not self._keys:
            sizes = set(map(len, cast(list[bytes], self._values)))
            parts = self._alike_parts(sizes.pop()) if len(sizes) == 1 else self._keyless_parts()
        elif self._is_ordinary and len(self._keys) == len(self._values):
            parts = self._keyed_parts()
        else:
            parts = list(self._records())
        if codec is not Codec.NONE:
            plain = b"".join(parts)
            compressed = compress(codec, plain)
            if len(compressed) < len(plain):
                parts = [compressed]
            else:
                parts, codec = [plain], Codec.NONE
        parts.insert(0, _EMPTY_HEADER)
        batch = bytearray().join(parts)
        HEADER.pack_into(
            batch,
            0,
            0,
            len(batch) - LOG_OVERHEAD_BYTES,
            NO_LEADER_EPOCH,
            MAGIC,
            0,
            codec | (TRANSACTIONAL_BIT if is_transactional else 0),
            len(self._values) - 1,
            self._timestamp_start_ms,
            max(self._timestamps_ms),
            producer_id,
            producer_epoch,
            base_sequence,
            len(self._values),
        )
        _write_crc(batch)
        return batch

    def _keyless_parts(self) -> list[bytes]:
        """The fields of all records in order, when all are ordinary and none has a key."""
        start_ms = self._timestamp_start_ms
        values = cast(list[bytes], self._values)
        parts: list[bytes] = []
        offsets_keys = entries(_OFFSET_NULL_KEY, 0, len(values))
        for value, timestamp_ms, offset_key in zip(
            values, self._timestamps_ms, offsets_keys, strict=True
        ):
            timestamp = VARINTS[timestamp_ms - start_ms]
            size = VARINTS[len(value)]
            body_bytes = 2 + len(timestamp) + len(offset_key) + len(size) + len(value)
            length = _LENGTH_ATTRIBUTES[body_bytes]
            parts += (length, timestamp, offset_key, size, value, _NO_HEADERS)
        return parts

    def _alike_parts(self, value_bytes: int) -> list[bytes]:
        """The same when all values are of one size: then records differ in offset and value only,
        as long as neither the timestamp nor the width of the offset changes."""
        values = cast(list[bytes], self._values)
        size = VARINTS[value_bytes]
        parts: list[bytes] = []
        start = end = 0
        for timestamp_ms, group in groupby(self._timestamps_ms):
            end += len(list(group))
            timestamp = VARINTS[timestamp_ms - self._timestamp_start_ms]
            while start < end:
                offset = encode_varint(start)
                stop = min(end, end_of_width(start))
                body_bytes = 2 + len(timestamp) + len(offset) + 1 + len(size) + value_bytes
                count = stop - start
                run = [_NO_HEADERS + _LENGTH_ATTRIBUTES[body_bytes] + timestamp] * (4 * count)
                run[1::4] = entries(_OFFSET_NULL_KEY, start, stop)
                run[2::4] = [size] * count
                run[3::4] = values[start:stop]
                parts += run
                start = stop
        # Each record begins with the header count of the one before it.
        parts[0] = parts[0][len(_NO_HEADERS) :]
        parts.append(_NO_HEADERS)
        return parts

    def _keyed_parts(self) -> list[bytes]:
        """The same when every record has a key."""
        start_ms = self._timestamp_start_ms
        values = cast(list[bytes], self._values)
        parts: list[bytes] = []
        offsets = entries(VARINTS, 0, len(values))
        for value, key, timestamp_ms, offset in zip(
            values, self._keys.values(), self._timestamps_ms, offsets, strict=True
        ):
            timestamp = VARINTS[timestamp_ms - start_ms]
            key_size = VARINTS[len(key)]
            size = VARINTS[len(value)]
            body_bytes = 2 + len(timestamp) + len(offset) + len(key_size) + len(key)
            length = _LENGTH_ATTRIBUTES[body_bytes + len(size) + len(value)]
            parts += (length, timestamp, offset, key_size, key, size, value, _NO_HEADERS)
        return parts

    def _records(self) -> Iterator[bytes]:
        """One record after the other, whatever they are."""
        for index, (timestamp_ms, value) in enumerate(
            zip(self._timestamps_ms, self._values, strict=True)
        ):
            body = b"".join(
                (
                    b"\x00",
                    encode_varint(timestamp_ms - self._timestamp_start_ms),
                    encode_varint(index),
                    _encode_field(self._keys.get(index)),
                    _encode_field(value),
                    self._headers.get(index, _NO_HEADERS),
                )
            )
            yield encode_varint(len(body)) + body


def stamp(batch: bytearray, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
    """Put a producer's identity into a sealed batch, in place, and renew its checksum."""
    _PRODUCER.pack_into(batch, PRODUCER_ID_POSITION, producer_id, producer_epoch, base_sequence)
    _write_crc(batch)


def _write_crc(batch: bytearray) -> None:
    crc = crc32c.crc32c(memoryview(batch)[ATTRIBUTES_POSITION:])
    _CRC.pack_into(batch, CRC_POSITION, crc)


def _encode_field(field: bytes | None) -> bytes:
    return _NULL if field is None else encode_varint(len(field)) + field


def _encode_headers(headers: Headers) -> bytes:
    parts = [encode_varint(len(headers))]
    for name, value in headers:
        if not isinstance(name, str) or not (value is None or isinstance(value, bytes)):
            raise TypeError("a record header is a str and bytes or None")
        parts += (_encode_field(name.encode()), _encode_field(value))
    return b"".join(parts)


def _require_types(timestamp_ms: int, key: bytes | None, value: bytes | None) -> None:
    # Wrong types would surface only in `seal`, when the other records of the batch suffer for it.
    if type(timestamp_ms) is not int:
        raise TypeError(f"a timestamp is an int, not {type(timestamp_ms).__name__}")
    if key is not None and not isinstance(key, bytes):
        raise TypeError(f"a key is bytes or None, not {type(key).__name__}")
    if value is not None and not isinstance(value, bytes):
        raise TypeError(f"a value is bytes or None, not {type(value).__name__}")
    if not 0 <= timestamp_ms <= INT64_MAX:
        raise ValueError(f"timestamp {timestamp_ms} ms is outside [0, 2**63)")
