"""Whole batches: the bytes of Kafka, against an independent codec, and every way to damage them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings

from broker.wire.batch_header import HEADER, HEADER_BYTES, prefix, read_header
from broker.wire.compression import Codec
from broker.wire.record_batch import (
    CorruptBatch,
    Record,
    RecordTuple,
    check_batch,
    check_produced_batch,
    decode_batch,
    encode_batch,
    iterate_batches,
    stamp,
    verify_crc,
)
from tests.wire.oracle import (
    NOW_MS,
    kafka_decode,
    kafka_encode,
    record_lists,
    with_crc,
)

SAMPLE: list[RecordTuple] = [
    (NOW_MS, None, b"value", ()),
    (NOW_MS + 5, b"key", None, (("h", b"1"), ("ü", None))),
    (NOW_MS - 1, b"", b"", ()),
]
SAMPLE_HEX = (
    "0000000000000000"  # base offset
    "00000056"  # 86 bytes follow
    "ffffffff"  # leader epoch -1
    "02"  # magic
    "024095d4"  # checksum
    "0000"  # attributes
    "00000002"  # last offset delta
    "0000018bcfe56800"  # base timestamp 1700000000000
    "0000018bcfe56805"  # max timestamp
    "00000000000003e7"  # producer id 999
    "0007"  # producer epoch
    "0000002a"  # base sequence
    "00000003"  # record count
    "16" "00" "00" "00" "01" "0a" "76616c7565" "00"
    "22" "00" "0a" "02" "06" "6b6579" "01" "04" "02" "68" "02" "31" "04" "c3bc" "01"
    "0c" "00" "01" "04" "00" "00" "00"
)  # fmt: skip
COMPRESSIBLE: list[RecordTuple] = [
    (NOW_MS + index, b"key-%d" % index, b"the quick brown fox %d " % index * 20, ())
    for index in range(100)
]


def as_rows(records: list[RecordTuple]) -> list[tuple[object, ...]]:
    return [
        (offset, timestamp_ms, key, value, tuple(headers))
        for offset, (timestamp_ms, key, value, headers) in enumerate(records)
    ]


def test_golden_bytes() -> None:
    batch = encode_batch(SAMPLE, producer_id=999, producer_epoch=7, base_sequence=42)
    assert batch.hex() == SAMPLE_HEX
    assert list(decode_batch(bytes.fromhex(SAMPLE_HEX))) == as_rows(SAMPLE)


def test_golden_bytes_are_those_of_the_independent_codec() -> None:
    theirs = kafka_encode(SAMPLE, Codec.NONE, 999, 7, 42)
    # kafka-python writes leader epoch 0, which the leader overwrites all the same.
    assert theirs[:12].hex() + "ffffffff" + theirs[16:].hex() == SAMPLE_HEX


@pytest.mark.usefixtures("kafka_snappy")
@pytest.mark.parametrize("codec", Codec)
def test_both_directions_against_the_independent_codec(codec: Codec) -> None:
    for records in (SAMPLE, COMPRESSIBLE, [(NOW_MS, None, bytes(100_000), ())]):
        ours = encode_batch(records, codec=codec)
        assert kafka_decode(ours) == as_rows(records)
        assert list(decode_batch(kafka_encode(records, codec))) == as_rows(records)


@pytest.mark.parametrize("codec", Codec)
def test_compressed_batch_says_its_codec_and_is_smaller(codec: Codec) -> None:
    batch = encode_batch(COMPRESSIBLE, codec=codec)
    assert read_header(batch).attributes == codec
    assert codec is Codec.NONE or len(batch) < len(encode_batch(COMPRESSIBLE)) / 2


def test_records_that_do_not_shrink_stay_plain() -> None:
    for codec in Codec:
        assert encode_batch(SAMPLE[:1], codec=codec) == encode_batch(SAMPLE[:1])


@settings(max_examples=100, deadline=None)
@given(records=record_lists)
def test_any_records_come_back(records: list[RecordTuple]) -> None:
    batch = encode_batch(records)
    assert list(decode_batch(batch)) == as_rows(records)
    assert kafka_decode(batch) == as_rows(records)
    assert batch[16:] == kafka_encode(records)[16:]
    check_batch(batch)


def test_transactional_bit_and_identity() -> None:
    batch = encode_batch(
        SAMPLE, producer_id=5, producer_epoch=0, base_sequence=0, is_transactional=True
    )
    header = check_produced_batch(batch)
    assert header.attributes == 0x10
    assert batch[16:] == kafka_encode(SAMPLE, Codec.NONE, 5, 0, 0, True)[16:]


def test_stamp_equals_sealing_with_that_identity() -> None:
    batch = encode_batch(SAMPLE)
    stamp(batch, 999, 7, 42)
    assert batch.hex() == SAMPLE_HEX


def test_patched_prefix_leaves_the_checksum_valid_and_moves_the_offsets() -> None:
    batch = encode_batch(SAMPLE)
    batch[:16] = prefix(1_000, len(batch) - 12, 3)
    assert verify_crc(batch)
    assert [record.offset for record in decode_batch(batch)] == [1_000, 1_001, 1_002]
    assert check_batch(batch).leader_epoch == 3


def test_log_append_time_holds_for_all_records() -> None:
    batch = encode_batch(SAMPLE)
    struct.pack_into(">h", batch, 21, 0x08)
    struct.pack_into(">q", batch, 35, NOW_MS + 99)
    records = decode_batch(with_crc(batch))
    assert [record.timestamp_ms for record in records] == [NOW_MS + 99] * 3
    assert [row[1] for row in kafka_decode(with_crc(batch))] == [NOW_MS + 99] * 3


@pytest.mark.parametrize("codec", Codec)
def test_every_flipped_bit_after_the_prefix_or_in_the_length_is_refused(codec: Codec) -> None:
    batch = encode_batch(COMPRESSIBLE[:3], codec=codec)
    decode_batch(batch)
    for position in (*range(8, 12), *range(16, len(batch))):
        for bit in range(8):
            batch[position] ^= 1 << bit
            for judge in (check_batch, decode_batch):
                with pytest.raises(CorruptBatch):
                    judge(batch)
            batch[position] ^= 1 << bit
    decode_batch(batch)


def test_flips_in_base_offset_and_leader_epoch_are_left_to_the_log() -> None:
    batch = encode_batch(SAMPLE)
    for position in (*range(8), *range(12, 16)):
        batch[position] ^= 1
        check_batch(batch)
        batch[position] ^= 1


def test_every_cut_and_every_addition_is_refused() -> None:
    batch = bytes(encode_batch(SAMPLE))
    for size in range(len(batch)):
        with pytest.raises(CorruptBatch):
            decode_batch(batch[:size])
    with pytest.raises(CorruptBatch, match="batch of 98 bytes in 99 bytes"):
        decode_batch(batch + b"\x00")


def patched(position: int, layout: str, *values: int) -> bytearray:
    batch = encode_batch(SAMPLE)
    struct.pack_into(layout, batch, position, *values)
    return with_crc(batch)


@pytest.mark.parametrize(
    ("position", "layout", "value", "reason"),
    [
        (16, ">b", 1, "magic 1"),
        (21, ">h", 5, "unknown attributes"),
        (21, ">h", 7, "unknown attributes"),
        (21, ">h", 0x80, "unknown attributes"),
        (21, ">h", -1, "unknown attributes"),
        (23, ">i", -1, "negative last offset delta"),
        (23, ">i", 1, "3 records for 2 offsets"),
        (57, ">i", 4, "4 records for 3 offsets"),
        (57, ">i", -1, "-1 records"),
        (57, ">i", 2, "end before or after"),
        (27, ">q", 2**63 - 1, "timestamp 9223372036854775812 of record 1"),
        (27, ">q", -(2**63), "timestamp -9223372036854775809 of record 2"),
        (21, ">h", 1, "not gzip"),
        (21, ">h", 2, "not snappy"),
        (21, ">h", 3, "not an lz4 frame"),
        (21, ">h", 4, "not zstd"),
    ],
)
def test_a_header_that_lies_with_a_valid_checksum(
    position: int, layout: str, value: int, reason: str
) -> None:
    with pytest.raises(CorruptBatch, match=reason):
        decode_batch(patched(position, layout, value))


def test_hostile_record_count_is_refused_before_anything_is_allocated() -> None:
    batch = encode_batch(SAMPLE)
    struct.pack_into(">i", batch, 23, 3_000_000)
    struct.pack_into(">i", batch, 57, 3_000_000)
    with pytest.raises(CorruptBatch, match="3000000 records in 37 bytes"):
        decode_batch(with_crc(batch))


def test_decompression_bomb_is_refused_at_the_bound() -> None:
    for codec in Codec:
        batch = encode_batch([(NOW_MS, None, bytes(1_000_000), ())], codec=codec)
        assert len(decode_batch(batch, decompressed_bytes_max=1_000_100)) == 1
        with pytest.raises(CorruptBatch, match="more bytes than allowed"):
            decode_batch(batch, decompressed_bytes_max=1_000_000)


def test_without_the_checksum_malformed_bytes_are_still_refused() -> None:
    batch = encode_batch(SAMPLE)
    batch[66] ^= 1  # a byte of the first value's length
    with pytest.raises(CorruptBatch, match="checksum"):
        decode_batch(batch)
    with pytest.raises(CorruptBatch, match="record 0"):
        decode_batch(batch, check_crc=False)
    batch[66] ^= 1
    batch[68] ^= 1  # a byte of the value itself
    assert decode_batch(batch, check_crc=False)[0].value == b"v`lue"


# --- what a broker demands of a client ---------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "layout", "values", "reason"),
    [
        (23, ">i", (3,), "offsets without a record"),
        (21, ">h", (0x08,), "only brokers"),
        (21, ">h", (0x20,), "only brokers"),
        (21, ">h", (0x40,), "only brokers"),
        (27, ">q", (-1,), "timestamps"),
        (35, ">q", (NOW_MS - 1,), "timestamps"),
        (43, ">qhi", (-2, -1, -1), "half a producer identity"),
        (43, ">qhi", (7, -1, 0), "half a producer identity"),
        (43, ">qhi", (7, 0, -1), "half a producer identity"),
        (43, ">qhi", (-1, 0, 0), "half a producer identity"),
    ],
)
def test_a_clients_batch_is_judged_more_strictly(
    position: int, layout: str, values: tuple[int, ...], reason: str
) -> None:
    batch = patched(position, layout, *values)
    check_batch(batch)
    with pytest.raises(CorruptBatch, match=reason):
        check_produced_batch(batch)


def test_what_compaction_leaves_is_valid_but_not_from_a_client() -> None:
    empty = bytearray(encode_batch(SAMPLE)[:HEADER_BYTES])
    struct.pack_into(">i", empty, 57, 0)
    empty = with_crc(empty)
    assert list(decode_batch(empty)) == []
    assert check_batch(empty).next_offset == 3
    with pytest.raises(CorruptBatch, match="offsets without a record"):
        check_produced_batch(empty)


# --- several batches ----------------------------------------------------------------------------


def test_iterate_batches_stops_at_a_partial_last_one() -> None:
    one, two = encode_batch(SAMPLE), encode_batch(COMPRESSIBLE, codec=Codec.LZ4)
    whole = bytes(one + two)
    for end in range(len(one), len(whole)):
        assert [bytes(data) for _, data in iterate_batches(whole[:end])] == [bytes(one)]
    for end in range(len(one)):
        assert list(iterate_batches(whole[:end])) == []
    pairs = list(iterate_batches(whole))
    assert [header.record_count for header, _ in pairs] == [3, 100]
    assert [len(decode_batch(data)) for _, data in pairs] == [3, 100]


def test_iterate_batches_hands_out_views_not_copies() -> None:
    buffer = encode_batch(SAMPLE) + encode_batch(SAMPLE)
    views = [data for _, data in iterate_batches(buffer)]
    buffer[0] = 1
    assert views[0][0] == 1


@pytest.mark.parametrize(
    ("position", "layout", "value", "reason"),
    [
        (16, ">b", 0, "magic 0"),
        (8, ">i", 48, "batch length 48"),
        (8, ">i", 0, "batch length 0"),
        (8, ">i", -(2**31), "batch length -2147483648"),
    ],
)
def test_iterate_batches_refuses_what_no_batch_begins_with(
    position: int, layout: str, value: int, reason: str
) -> None:
    first, second = encode_batch(SAMPLE), encode_batch(SAMPLE)
    struct.pack_into(layout, second, position, value)
    walk = iterate_batches(first + second)
    next(walk)
    with pytest.raises(CorruptBatch, match=reason) as error:
        next(walk)
    assert error.value.position == len(first) + position


def test_header_layout_is_61_bytes() -> None:
    assert HEADER.size == HEADER_BYTES == 61


def test_corrupt_batch_is_a_value_error_with_position_and_reason() -> None:
    with pytest.raises(ValueError, match=r"corrupt batch: .* \(byte 5\)") as error:
        decode_batch(b"short")
    assert isinstance(error.value, CorruptBatch)
    assert (error.value.position, error.value.reason) == (5, "batch header is cut short")


def test_records_are_a_sequence_of_records() -> None:
    records = decode_batch(encode_batch(SAMPLE))
    assert len(records) == 3
    assert records[1] == Record(1, NOW_MS + 5, b"key", None, (("h", b"1"), ("ü", None)))
    assert records[-1].value == b""
    assert records[:2] == list(records)[:2]
    assert type(next(iter(records))) is Record
    with pytest.raises(IndexError):
        records[3]
