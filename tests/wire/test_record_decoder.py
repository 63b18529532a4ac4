"""Bytes to records: both ways of parsing accept the same bytes, and damage never gets further."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire import record_decoder
from broker.wire.batch_header import HEADER_BYTES, read_header
from broker.wire.record_batch import CorruptBatch, Record, RecordTuple, encode_batch
from broker.wire.record_decoder import decode_records
from broker.wire.varint import encode_varint
from tests.wire.oracle import NOW_MS, kafka_decode, record_lists, with_crc

Outcome = list[Record] | str


def outcome(body: bytes, count: int, last_offset_delta: int | None = None) -> Outcome:
    """The records, or the reason why there are none."""
    last = count - 1 if last_offset_delta is None else last_offset_delta
    try:
        return list(decode_records(body, count, 100, NOW_MS, last))
    except CorruptBatch as error:
        return error.reason


def outcome_field_by_field(body: bytes, count: int) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_decoder, "RUN_RECORDS_MIN", 1 << 40)
        return outcome(body, count)


def body_of(records: list[RecordTuple]) -> bytes:
    return bytes(encode_batch(records)[HEADER_BYTES:])


def alike(count: int, key: bytes | None = None, value: bytes = b"0123456789") -> list[RecordTuple]:
    return [(NOW_MS + index // 40, key, value, ()) for index in range(count)]


def a_record(
    offset_delta: int,
    *,
    length: bytes | None = None,
    attributes: bytes = b"\x00",
    timestamp: bytes = b"\x00",
    offset: bytes | None = None,
    key: bytes = b"\x01",
    value: bytes = b"\x02v",
    headers: bytes = b"\x00",
) -> bytes:
    """A record with any field replaced by raw bytes."""
    offset = encode_varint(offset_delta) if offset is None else offset
    rest = attributes + timestamp + offset + key + value + headers
    return (encode_varint(len(rest)) if length is None else length) + rest


class CountingParser(record_decoder._Parser):
    """Notes how many records were parsed at once."""

    run_records: list[int]

    def parse_run(self, first: int, position: int, start: int, end: int) -> int | None:
        result = super().parse_run(first, position, start, end)
        if result is not None:
            self.run_records.append(end - start)
        return result


@pytest.fixture
def run_records(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    CountingParser.run_records = []
    monkeypatch.setattr(record_decoder, "_Parser", CountingParser)
    return CountingParser.run_records


@pytest.mark.parametrize("key", [None, b"", b"k" * 12, b"k" * 100])
@pytest.mark.parametrize("value", [b"", b"v" * 63, b"v" * 64, b"v" * 9_000])
def test_records_alike_are_parsed_at_once(
    run_records: list[int], key: bytes | None, value: bytes
) -> None:
    records = alike(200, key, value)
    parsed = outcome(body_of(records), 200)
    assert parsed == [
        Record(100 + index, timestamp_ms, key, value, ())
        for index, (timestamp_ms, *_) in enumerate(records)
    ]
    assert run_records == [63, 135]  # the first of each range shows what the others are like


def test_runs_beyond_two_byte_offsets(run_records: list[int]) -> None:
    records: list[RecordTuple] = [(NOW_MS, None, b"", ())] * 9_000
    assert len(outcome(body_of(records), 9_000)) == 9_000
    assert run_records == [63, 8_127, 807]


@pytest.mark.parametrize(
    "strange",
    [
        (NOW_MS, None, b"012345678", ()),
        (NOW_MS, None, None, ()),
        (NOW_MS, b"", b"0123456789", ()),
        (NOW_MS, b"0123456789", b"", ()),
        (NOW_MS + 64, None, b"012345678", ()),
        (NOW_MS, None, b"01234567", (("", b""),)),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 30, 59])
def test_a_record_unlike_the_others_is_not_taken_for_one(strange: RecordTuple, place: int) -> None:
    # Some of these have the length of the others and differ only inside.
    records: list[RecordTuple] = [(NOW_MS, None, b"0123456789", ())] * 60
    records[place] = strange
    first_ms = records[0][0]
    parsed = decode_records(body_of(records), 60, 100, first_ms, 59)
    assert [record[1:] for record in parsed] == records


@settings(max_examples=100, deadline=None)
@given(records=record_lists, data=st.data())
def test_both_ways_of_parsing_agree_on_damaged_bytes(
    records: list[RecordTuple], data: st.DataObject
) -> None:
    body = bytearray(body_of(records))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(body)
    assert outcome(damaged, len(records)) == outcome_field_by_field(damaged, len(records))


@pytest.mark.parametrize("key", [None, b"key"])
def test_both_ways_of_parsing_agree_on_every_flipped_bit_of_a_run(key: bytes | None) -> None:
    body = bytearray(body_of(alike(24, key, b"v")))
    for position in range(len(body)):
        for bit in range(8):
            body[position] ^= 1 << bit
            damaged = bytes(body)
            assert outcome(damaged, 24) == outcome_field_by_field(damaged, 24)
            body[position] ^= 1 << bit


@pytest.mark.parametrize(
    ("which", "fields"),
    [
        (which, fields)
        for which in ("first", "all", "others")
        for fields in (
            {"offset": b"\x80\x00"},
            {"offset": b"\x80\x80\x00"},
            {"timestamp": b"\x80\x00"},
            {"timestamp": b"\x01"},
            {"timestamp": b"\x7f"},
            {"key": b"\x82\x00k"},
            {"key": b"\x81\x00"},
            {"value": b"\x82\x00v"},
            {"headers": b"\x80\x00"},
            {"attributes": b"\x01"},
            {"length": b"\x8e\x00"},
            {"length": b"\x8e\x80\x00"},
        )
    ],
)
def test_both_ways_of_parsing_agree_on_varints_longer_than_needed(
    which: str, fields: dict[str, bytes]
) -> None:
    """A Kafka client never writes them, so the shape of a run must not be guessed from one."""
    records = []
    for index in range(20):
        is_odd = which == "all" or (which == "first") == (index == 0)
        odd_fields = fields if is_odd and ("offset" not in fields or index == 0) else {}
        records.append(a_record(index, **odd_fields))
    body = b"".join(records)
    assert outcome(body, 20) == outcome_field_by_field(body, 20)


@pytest.mark.parametrize(
    "misleading",
    [
        a_record(0, offset=b"\x80\x00", key=b"\x02\xff"),
        a_record(0, timestamp=b"\x80\x00", key=b"\x02\xff"),
    ],
)
def test_a_first_record_made_to_mislead_about_the_others(misleading: bytes) -> None:
    """Read one byte off, its key ends in the value's length, and the others look like it."""
    other = [a_record(index, key=b"\x00", value=b"\x06\xff\x02v") for index in range(1, 20)]
    assert len(other[0]) == len(misleading)
    body = misleading + b"".join(other)
    parsed = outcome(body, 20)
    assert parsed == outcome_field_by_field(body, 20)
    assert parsed[1] == Record(101, NOW_MS, b"", b"\xff\x02v", ())


@pytest.mark.parametrize(("base_ms", "delta"), [(2**63 - 1, b"\x02"), (-(2**63), b"\x01")])
def test_a_run_does_not_leave_the_range_of_timestamps(base_ms: int, delta: bytes) -> None:
    body = a_record(0) + b"".join(a_record(index, timestamp=delta) for index in range(1, 20))
    with pytest.raises(CorruptBatch, match="of record 1"):
        decode_records(body, 20, 100, base_ms, 19)


# --- what no decoder may accept -----------------------------------------------------------------

HUGE = encode_varint(2**62)
OVERLONG = b"\xff" * 10 + b"\x01"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"attributes": b"\x01"}, "unknown attributes of record 0"),
        ({"length": b"\x0c"}, "record 0 has another length"),
        ({"length": b"\x10"}, "record 0 has another length"),
        ({"length": b"\x0f"}, "record 0 has another length"),
        ({"length": HUGE}, "record 0 has another length"),
        ({"length": OVERLONG}, "varint longer than 10 bytes"),
        ({"timestamp": encode_varint(2**63 - 1)}, "timestamp 9223373\\d+ of record 0"),
        ({"timestamp": b"\xff" * 9 + b"\x03"}, "varint beyond 64 bits"),
        ({"timestamp": OVERLONG}, "varint longer than 10 bytes"),
        ({"offset": b"\x01"}, "offset deltas"),
        ({"offset": b"\x02"}, "offset deltas"),
        ({"offset": OVERLONG}, "varint longer than 10 bytes"),
        ({"key": b"\x03"}, "length -2"),
        ({"key": HUGE}, "record 0 is cut short"),
        ({"key": OVERLONG}, "varint longer than 10 bytes"),
        ({"value": b"\x03"}, "negative value length of record 0"),
        ({"value": HUGE}, "record 0 is cut short"),
        ({"value": encode_varint(-(2**62))}, "negative value length"),
        ({"value": b"\x04v"}, "record 0 is cut short|another length"),
        ({"headers": b"\x01"}, "-1 headers in record 0"),
        ({"headers": HUGE}, "\\d+ headers in record 0"),
        ({"headers": b"\x02"}, "1 headers in record 0"),
        ({"headers": b"\x02\x01\x00"}, "null header name in record 0"),
        ({"headers": b"\x02\x03\x00"}, "length -2"),
        ({"headers": b"\x02\x02\xff\x00"}, "header name in record 0"),
        ({"headers": b"\x02\x02h\x03"}, "length -2"),
        ({"headers": b"\x02\x02h" + HUGE}, "another length"),
        ({"headers": b"\x02\x02h" + OVERLONG}, "varint longer than 10 bytes"),
        ({"headers": b"\x00\x00"}, "another length"),
    ],
)
def test_hostile_records(fields: dict[str, bytes], reason: str) -> None:
    length = None if "length" in fields else encode_varint(len(a_record(0, **fields)) - 1)
    body = a_record(0, **{**fields, **({"length": length} if length else {})})
    said = outcome(body, 1)
    assert isinstance(said, str)
    assert re.search(reason, said), said


def test_every_cut_of_the_records_is_refused() -> None:
    for records in (alike(40), [(NOW_MS, b"k", b"v" * 70, (("name", b"value"),))] * 3):
        body = body_of(records)
        for end in range(len(body)):
            assert isinstance(outcome(body[:end], len(records)), str)
        assert "before or after" in str(outcome(body + b"\x00", len(records)))


def test_record_count_is_bounded_by_the_bytes() -> None:
    assert outcome(a_record(0, value=b"\x01"), 3_000_000) == "3000000 records in 7 bytes"
    assert isinstance(outcome(a_record(0, value=b"\x01"), 1), list)


def test_no_records_is_a_batch_that_compaction_emptied() -> None:
    assert outcome(b"", 0, 5) == []


def test_gaps_of_compaction_are_read_and_growing_offsets_demanded() -> None:
    def of(deltas: list[int], last: int) -> Outcome:
        return outcome(b"".join(map(a_record, deltas)), len(deltas), last)

    kept = of([0, 3, 4, 9], 9)
    assert [record.offset for record in kept] == [100, 103, 104, 109]  # type: ignore[union-attr]
    assert [record.offset for record in of([5, 70, 8_200], 9_000)] == [105, 170, 8_300]  # type: ignore[union-attr]
    for deltas in ([0, 3, 4, 10], [0, 3, 3], [1, 0], [-1, 0], [0, 2, 1], [2, 1, 2]):
        assert of(deltas, 9) == "offset deltas do not grow, or pass the last one"
    assert of([0, 1, 2], 1) == "more records than 2 offsets"


@settings(max_examples=100, deadline=None)
@given(records=record_lists, data=st.data())
def test_what_is_accepted_is_what_the_independent_codec_reads(
    records: list[RecordTuple], data: st.DataObject
) -> None:
    batch = encode_batch(records)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(HEADER_BYTES, len(batch) - 1))
        batch[position] = data.draw(st.integers(0, 255))
    batch = with_crc(batch)
    header = read_header(batch)
    body = bytes(batch[HEADER_BYTES:])
    try:
        ours = decode_records(body, len(records), 0, header.base_timestamp_ms, len(records) - 1)
    except CorruptBatch:
        return
    assert [tuple(record) for record in ours] == kafka_decode(batch)


def test_random_bytes_raise_nothing_but_corrupt_batch() -> None:
    draw = random.Random(7)
    for _ in range(2_000):
        body = draw.randbytes(draw.randrange(120))
        outcome(body, draw.randrange(1, 18), draw.randrange(20))
