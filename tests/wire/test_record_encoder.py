"""The builder: what fits, what is refused without harm, and that sizes are bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire.batch_header import HEADER_BYTES, read_header
from broker.wire.compression import Codec
from broker.wire.record_batch import BatchBuilder, RecordTuple, decode_batch, encode_batch
from tests.wire.oracle import NOW_MS, kafka_encode, record_lists


def filled(size_limit_bytes: int, record: RecordTuple) -> BatchBuilder:
    builder = BatchBuilder(size_limit_bytes)
    while builder.append(*record):
        pass
    return builder


@pytest.mark.parametrize(
    "record",
    [
        (NOW_MS, None, b"v" * 100, ()),
        (NOW_MS, None, b"", ()),
        (NOW_MS, b"k" * 12, b"v" * 100, ()),
        (NOW_MS, None, None, ()),
        (NOW_MS, b"k", b"v" * 5_000, ()),
        (NOW_MS, None, b"v", (("name", b"value"), ("other", None))),
    ],
)
def test_a_full_batch_is_within_its_limit_and_well_used(record: RecordTuple) -> None:
    builder = filled(65_536, record)
    batch = builder.seal()
    assert len(batch) <= builder.size_bytes <= 65_536
    record_bytes = len(encode_batch([record])) - HEADER_BYTES
    overhead_bytes = (len(batch) - HEADER_BYTES) / builder.record_count - record_bytes
    # The bound wastes a few bytes a record: at most 4 where all is ordinary, 24 elsewhere.
    is_ordinary = record[2] is not None and not record[3] and len(record[2]) < 4_000
    waste_bytes = (builder.size_bytes - len(batch)) / builder.record_count
    assert 0 <= waste_bytes + overhead_bytes <= (6 if is_ordinary else 26)
    assert builder.record_count == read_header(batch).record_count == len(decode_batch(batch))


@settings(max_examples=80, deadline=None)
@given(records=record_lists, size_limit_bytes=st.integers(100, 20_000))
def test_size_bytes_is_a_bound_for_whatever_was_accepted(
    records: list[RecordTuple], size_limit_bytes: int
) -> None:
    builder = BatchBuilder(size_limit_bytes)
    accepted = []
    for record in records:
        before = (builder.size_bytes, builder.record_count)
        if builder.append(*record):
            accepted.append(record)
        else:
            assert (builder.size_bytes, builder.record_count) == before
    batch = builder.seal()
    assert len(batch) <= builder.size_bytes
    assert builder.size_bytes <= size_limit_bytes or len(accepted) == 1
    assert batch[16:] == kafka_encode(accepted)[16:]


def test_a_first_record_is_taken_whatever_its_size() -> None:
    builder = BatchBuilder(1_000)
    assert builder.append(NOW_MS, None, b"v" * 5_000, ())
    assert not builder.append(NOW_MS, None, b"", ())
    assert builder.record_count == 1
    assert builder.size_bytes >= len(builder.seal()) > 5_000


def test_beyond_the_tables_of_varints() -> None:
    records: list[RecordTuple] = [(NOW_MS + index, None, b"", ()) for index in range(9_000)]
    mixed: list[RecordTuple] = [
        (NOW_MS + index, None, b"v" * (index % 2), ()) for index in range(9_000)
    ]
    keyed: list[RecordTuple] = [(NOW_MS, b"k", b"", ()) for _ in range(9_000)]
    for wanted in (records, mixed, keyed):
        assert encode_batch(wanted)[16:] == kafka_encode(wanted)[16:]


@settings(max_examples=60, deadline=None)
@given(
    size_bytes=st.integers(0, 200),
    runs=st.lists(st.tuples(st.integers(0, 8_191), st.integers(1, 90)), min_size=1, max_size=5),
)
def test_values_of_one_size_in_runs_of_one_timestamp(
    size_bytes: int, runs: list[tuple[int, int]]
) -> None:
    records: list[RecordTuple] = [
        (NOW_MS + delay_ms, None, bytes((number % 256,)) * size_bytes, ())
        for delay_ms, count in [(0, 1), *runs]
        for number in range(count)
    ]
    assert encode_batch(records)[16:] == kafka_encode(records)[16:]


def test_seal_changes_nothing() -> None:
    builder = filled(2_000, (NOW_MS, b"k", b"v" * 50, ()))
    first = builder.seal(Codec.LZ4, 1, 2, 3)
    assert builder.seal(Codec.LZ4, 1, 2, 3) == first
    assert len(builder.seal()) > len(first)


def test_sealing_nothing_is_impossible() -> None:
    with pytest.raises(AssertionError):
        BatchBuilder(100).seal()


BAD: list[tuple[tuple[Any, ...], type[Exception], str]] = [
    ((1.5, None, b"v"), TypeError, "a timestamp is an int, not float"),
    ((NOW_MS + 0.5, None, b"v"), TypeError, "a timestamp is an int, not float"),
    ((True, None, b"v"), TypeError, "a timestamp is an int, not bool"),
    ((-1, None, b"v"), ValueError, "timestamp -1 ms is outside"),
    ((2**63, None, b"v"), ValueError, "is outside"),
    ((NOW_MS, "key", b"v"), TypeError, "a key is bytes or None, not str"),
    ((NOW_MS, None, "value"), TypeError, "a value is bytes or None, not str"),
    ((NOW_MS, None, bytearray(b"v")), TypeError, "a value is bytes or None, not bytearray"),
    ((NOW_MS, b"k", 7), TypeError, "a value is bytes or None, not int"),
    ((NOW_MS, None, b"v", ((b"name", b"v"),)), TypeError, "a record header is a str and bytes"),
    ((NOW_MS, None, b"v", (("name", "v"),)), TypeError, "a record header is a str and bytes"),
    ((NOW_MS, None, b"v", (("name",),)), ValueError, "unpack"),
    ((NOW_MS, None, b"v", (("\ud800", b"v"),)), ValueError, "surrogates"),
]


@pytest.mark.parametrize(("record", "error", "message"), BAD)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_bad_record_leaves_the_batch_as_it_was(
    record: tuple[Any, ...], error: type[Exception], message: str, is_first: bool
) -> None:
    builder = BatchBuilder(10_000)
    good: list[RecordTuple] = [] if is_first else [(NOW_MS, None, b"first", ())]
    for kept in good:
        assert builder.append(*kept)
    before = (builder.size_bytes, builder.record_count)
    with pytest.raises(error, match=message):
        builder.append(*record)
    assert (builder.size_bytes, builder.record_count) == before
    good.append((NOW_MS + 3, b"key", b"next", ()))
    assert builder.append(*good[-1])
    assert builder.seal() == encode_batch(good)


def test_a_record_beyond_a_gibibyte_is_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 2**30

    with pytest.raises(ValueError, match="cannot be encoded"):
        BatchBuilder(100).append(NOW_MS, None, Huge())


# --- extend -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [b"v" * 100] * 50,
        [b"v" * 5_000] * 3,
        [b"a", b"v" * 4_080, b"b", b"v" * 9_000, b"c"],
        [b""],
        [],
    ],
)
def test_extend_equals_append_for_each(values: list[bytes]) -> None:
    for size_limit_bytes in (200, 1_000, 5_000, 100_000):
        one, other = BatchBuilder(size_limit_bytes), BatchBuilder(size_limit_bytes)
        taken = one.extend(NOW_MS, values)
        fitting = 0
        for value in values:
            if not other.append(NOW_MS, None, value):
                break
            fitting += 1
        assert taken == fitting == one.record_count
        assert one.size_bytes == other.size_bytes
        assert not values or one.seal() == other.seal()


def test_extend_goes_on_where_it_stopped() -> None:
    values = [b"value-%d" % index for index in range(1_000)]
    start = 0
    got: list[bytes | None] = []
    while start < len(values):
        builder = BatchBuilder(1_000)
        builder.append(NOW_MS, b"key", b"before", ())
        taken = builder.extend(NOW_MS + 1, values, start)
        assert taken > 0
        start += taken
        got += [record.value for record in decode_batch(builder.seal())][1:]
    assert got == values


def test_extend_far_from_the_first_timestamp() -> None:
    builder = BatchBuilder(10_000)
    builder.append(NOW_MS, None, b"first", ())
    assert builder.extend(NOW_MS + 100_000, [b"a", b"b"]) == 2
    assert [record.timestamp_ms for record in decode_batch(builder.seal())] == [
        NOW_MS,
        NOW_MS + 100_000,
        NOW_MS + 100_000,
    ]


def test_extend_keeps_the_records_before_a_bad_one() -> None:
    values: list[Any] = [b"a", b"b", "not bytes", b"c"]
    builder = BatchBuilder(10_000)
    with pytest.raises(TypeError, match="a value is bytes or None, not str"):
        builder.extend(NOW_MS, values)
    assert [record.value for record in decode_batch(builder.seal())] == [b"a", b"b"]
