"""The 61-byte header of a RecordBatch v2: all that a broker reads or patches of a batch.

Owns the layout (Kafka, DefaultRecordBatch) and nothing else; records live in `record_batch`.
Big-endian. The CRC-32C covers everything from the attributes on, so the base offset and the leader
epoch can be patched by the broker without touching it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER_BYTES = 61
LOG_OVERHEAD_BYTES = 12
"""Base offset and length: what must be read before the size of a batch is known."""
LENGTH_POSITION = 8
LEADER_EPOCH_POSITION = 12
MAGIC_POSITION = 16
CRC_POSITION = 17
ATTRIBUTES_POSITION = 21
PRODUCER_ID_POSITION = 43
MAGIC = 2

CODEC_MASK = 0x07
TIMESTAMP_TYPE_BIT = 0x08
TRANSACTIONAL_BIT = 0x10
CONTROL_BIT = 0x20

NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1
NO_SEQUENCE = -1
NO_LEADER_EPOCH = -1

HEADER = struct.Struct(">qiibIhiqqqhii")
PREFIX = struct.Struct(">qii")
"""The 16 bytes a leader writes anew: base offset, length, leader epoch."""

Buffer = bytes | bytearray | memoryview


class BatchHeader(NamedTuple):
    base_offset: int
    batch_length: int
    """Bytes after this field: total size minus 12."""
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size_bytes(self) -> int:
        return self.batch_length + LOG_OVERHEAD_BYTES

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def has_producer(self) -> bool:
        return self.producer_id >= 0


def read_header(buffer: Buffer, position: int = 0) -> BatchHeader:
    """The header at `position`. The buffer must hold 61 bytes from there (struct.error otherwise).

    Nothing is checked: `record_batch.check_batch` judges.
    """
    return BatchHeader._make(HEADER.unpack_from(buffer, position))


def prefix(base_offset: int, batch_length: int, leader_epoch: int) -> bytes:
    """The 16 bytes that a leader puts in place of the client's."""
    return PREFIX.pack(base_offset, batch_length, leader_epoch)
