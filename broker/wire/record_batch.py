"""RecordBatch v2: records to bytes and back, exactly as Kafka lays them out.

A batch is the 61-byte header (`batch_header`) and its records, compressed as one block if at all:

    length varint · attributes int8 (0) · timestamp delta varint · offset delta varint
    · key length varint (-1 null) · key · value length varint (-1 null) · value
    · header count varint · (name length varint · name in UTF-8 · value length varint · value)*

This module judges and walks whole batches; `record_encoder` builds the records, `record_decoder`
reads them. The base offset and the leader epoch are not covered by the checksum: a flipped bit
there is for the log to notice. Any other flipped bit is refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import crc32c

from broker.wire.batch_header import (
    ATTRIBUTES_POSITION,
    CODEC_MASK,
    CONTROL_BIT,
    CRC_POSITION,
    HEADER_BYTES,
    LENGTH_POSITION,
    LOG_OVERHEAD_BYTES,
    MAGIC,
    MAGIC_POSITION,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_SEQUENCE,
    PRODUCER_ID_POSITION,
    TIMESTAMP_TYPE_BIT,
    TRANSACTIONAL_BIT,
    BatchHeader,
    Buffer,
    read_header,
)
from broker.wire.compression import DECOMPRESSED_BYTES_MAX, Codec, DecompressionError, decompress
from broker.wire.record_decoder import CorruptBatch, Record, Records, decode_records
from broker.wire.record_encoder import BATCH_BYTES_MAX, BatchBuilder, Headers, stamp

__all__ = [
    "BatchBuilder",
    "Codec",
    "CorruptBatch",
    "Record",
    "RecordTuple",
    "Records",
    "check_batch",
    "check_produced_batch",
    "decode_batch",
    "encode_batch",
    "iterate_batches",
    "stamp",
    "stamp_append_time",
    "verify_crc",
]

RecordTuple = tuple[int, bytes | None, bytes | None, Headers]
"""timestamp_ms, key, value, headers"""

DELETE_HORIZON_BIT = 0x40
"""Set by compaction; the base timestamp then says when tombstones may go."""
KNOWN_ATTRIBUTES = (
    CODEC_MASK | TIMESTAMP_TYPE_BIT | TRANSACTIONAL_BIT | CONTROL_BIT | DELETE_HORIZON_BIT
)
BATCH_LENGTH_MIN = HEADER_BYTES - LOG_OVERHEAD_BYTES
_LAST_OFFSET_DELTA_POSITION = 23
_BASE_TIMESTAMP_POSITION = 27
_MAX_TIMESTAMP_POSITION = 35
_RECORD_COUNT_POSITION = 57


def encode_batch(
    records: Iterable[RecordTuple],
    *,
    codec: Codec = Codec.NONE,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
    base_sequence: int = NO_SEQUENCE,
    is_transactional: bool = False,
) -> bytearray:
    """One batch of all `records` (at least one); errors as in `BatchBuilder.append`, and ValueError
    if they are more than fit a batch."""
    builder = BatchBuilder()
    for timestamp_ms, key, value, headers in records:
        if not builder.append(timestamp_ms, key, value, headers):
            raise ValueError(f"more than {BATCH_BYTES_MAX} bytes of records")
    return builder.seal(codec, producer_id, producer_epoch, base_sequence, is_transactional)


def decode_batch(
    buffer: Buffer,
    *,
    check_crc: bool = True,
    decompressed_bytes_max: int = DECOMPRESSED_BYTES_MAX,
) -> Records:
    """The records of the one batch that fills `buffer`; CorruptBatch if it is none.

    A batch stamped with the time of its append gives that time to all its records. Without the
    checksum (Kafka's check.crcs=false) malformed bytes are still refused, but flipped bits in keys
    and values are not noticed.
    """
    header = check_batch(buffer, check_crc=check_crc)
    body = memoryview(buffer)[HEADER_BYTES:]
    try:
        records_bytes = decompress(
            Codec(header.attributes & CODEC_MASK),
            body,
            decompressed_bytes_max=decompressed_bytes_max,
        )
    except DecompressionError as error:
        raise CorruptBatch(HEADER_BYTES, str(error)) from error
    records = decode_records(
        records_bytes,
        header.record_count,
        header.base_offset,
        header.base_timestamp_ms,
        header.last_offset_delta,
    )
    if header.attributes & TIMESTAMP_TYPE_BIT:
        records.timestamps_ms = [header.max_timestamp_ms] * len(records)
    return records


def check_batch(buffer: Buffer, *, check_crc: bool = True) -> BatchHeader:
    """The header of the one batch that fills `buffer`; CorruptBatch unless all but the records'
    own layout is right. Costs a checksum, about 3 us for 64 KiB."""
    header = _read_sane_header(buffer, 0)
    if header.size_bytes != len(buffer):
        raise CorruptBatch(
            LENGTH_POSITION, f"batch of {header.size_bytes} bytes in {len(buffer)} bytes"
        )
    if check_crc and not verify_crc(buffer):
        raise CorruptBatch(CRC_POSITION, "checksum mismatch")
    # What follows holds for whatever a sane writer sums up.
    if header.attributes & ~KNOWN_ATTRIBUTES or header.attributes & CODEC_MASK > Codec.ZSTD:
        raise CorruptBatch(ATTRIBUTES_POSITION, f"unknown attributes {header.attributes:#06x}")
    if header.last_offset_delta < 0:
        raise CorruptBatch(_LAST_OFFSET_DELTA_POSITION, "negative last offset delta")
    # Fewer records than offsets, even none, are what compaction leaves.
    if not 0 <= header.record_count <= header.last_offset_delta + 1:
        raise CorruptBatch(
            _RECORD_COUNT_POSITION,
            f"{header.record_count} records for {header.last_offset_delta + 1} offsets",
        )
    return header


def check_produced_batch(buffer: Buffer) -> BatchHeader:
    """As `check_batch`, with what a broker demands of a client's batch beyond that.

    Every offset has its record; neither control records nor marks that only brokers set; sane
    timestamps; a producer id with epoch and sequence, or none of the three.
    """
    header = check_batch(buffer)
    if header.record_count != header.last_offset_delta + 1:
        raise CorruptBatch(_RECORD_COUNT_POSITION, "offsets without a record")
    if header.attributes & (CONTROL_BIT | DELETE_HORIZON_BIT | TIMESTAMP_TYPE_BIT):
        raise CorruptBatch(ATTRIBUTES_POSITION, "attributes that only brokers set")
    if not 0 <= header.base_timestamp_ms <= header.max_timestamp_ms:
        raise CorruptBatch(_BASE_TIMESTAMP_POSITION, "timestamps out of order or range")
    identity = (header.producer_id, header.producer_epoch, header.base_sequence)
    if min(identity) < 0 and identity != (NO_PRODUCER_ID, NO_PRODUCER_EPOCH, NO_SEQUENCE):
        raise CorruptBatch(PRODUCER_ID_POSITION, f"half a producer identity {identity}")
    return header


def stamp_append_time(buffer: Buffer, timestamp_ms: int) -> tuple[bytearray, BatchHeader]:
    """A copy of one whole batch whose records were all made at `timestamp_ms`, as its leader says,
    and its header. (Kafka's message.timestamp.type=LogAppendTime.)"""
    batch = bytearray(buffer)
    attributes = read_header(batch).attributes | TIMESTAMP_TYPE_BIT
    batch[ATTRIBUTES_POSITION : ATTRIBUTES_POSITION + 2] = attributes.to_bytes(2, "big")
    place = slice(_MAX_TIMESTAMP_POSITION, _MAX_TIMESTAMP_POSITION + 8)
    batch[place] = timestamp_ms.to_bytes(8, "big", signed=True)
    with memoryview(batch) as view, view[ATTRIBUTES_POSITION:] as covered:
        crc = crc32c.crc32c(covered)
    batch[CRC_POSITION : CRC_POSITION + 4] = crc.to_bytes(4, "big")
    return batch, read_header(batch)


def verify_crc(buffer: Buffer) -> bool:
    """Whether the checksum in the header is that of the bytes from the attributes on.

    `buffer` is one whole batch of at least 61 bytes (CorruptBatch if shorter).
    """
    if len(buffer) < HEADER_BYTES:
        raise CorruptBatch(len(buffer), "batch header is cut short")
    with memoryview(buffer) as view, view[ATTRIBUTES_POSITION:] as covered:
        return crc32c.crc32c(covered) == read_header(buffer).crc


def iterate_batches(buffer: Buffer) -> Iterator[tuple[BatchHeader, memoryview]]:
    """Walk contiguous batches: header and bytes of each, up to a last one that is cut short.

    Only lengths and magic are judged (CorruptBatch, counted from the start of `buffer`): nothing
    after a wrong length can be trusted. The memoryviews keep `buffer` alive and unresizable.
    """
    view = memoryview(buffer)
    position = 0
    while position + HEADER_BYTES <= len(view):
        header = _read_sane_header(buffer, position)
        end = position + header.size_bytes
        if end > len(view):
            return
        yield header, view[position:end]
        position = end


def _read_sane_header(buffer: Buffer, position: int) -> BatchHeader:
    if len(buffer) - position < HEADER_BYTES:
        raise CorruptBatch(len(buffer), "batch header is cut short")
    header = read_header(buffer, position)
    if header.magic != MAGIC:
        raise CorruptBatch(position + MAGIC_POSITION, f"magic {header.magic} instead of {MAGIC}")
    if header.batch_length < BATCH_LENGTH_MIN:
        raise CorruptBatch(position + LENGTH_POSITION, f"batch length {header.batch_length}")
    return header
