"""The independent codec: kafka-python's RecordBatch v2, and what to feed to both."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import crc32c
from hypothesis import strategies as st

from broker.wire.compression import Codec
from broker.wire.record_batch import RecordTuple

with warnings.catch_warnings():
    # Its package reads its schemas by a function of importlib that is going away.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

NOW_MS = 1_700_000_000_000


def kafka_encode(
    records: Sequence[RecordTuple],
    codec: Codec = Codec.NONE,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    is_transactional: bool = False,
) -> bytes:
    builder: Any = DefaultRecordBatchBuilder(
        2, int(codec), is_transactional, producer_id, producer_epoch, base_sequence, 1 << 30
    )
    for offset, (timestamp_ms, key, value, headers) in enumerate(records):
        assert builder.append(offset, timestamp_ms, key, value, list(headers)) is not None
    return bytes(builder.build())


def kafka_decode(batch: bytes | bytearray) -> list[tuple[Any, ...]]:
    """(offset, timestamp_ms, key, value, headers) of each record; the checksum is verified."""
    reader: Any = DefaultRecordBatch(batch)
    assert reader.validate_crc()
    return [
        (record.offset, record.timestamp, record.key, record.value, tuple(record.headers))
        for record in reader
    ]


def with_crc(batch: bytes | bytearray) -> bytearray:
    """A copy whose length and checksum are right, whatever else is wrong with it."""
    fixed = bytearray(batch)
    fixed[8:12] = (len(fixed) - 12).to_bytes(4, "big")
    fixed[17:21] = crc32c.crc32c(bytes(fixed[21:])).to_bytes(4, "big")
    return fixed


_SMALL = st.one_of(st.none(), st.binary(max_size=80))
_LARGE = st.sampled_from([4_079, 4_080, 8_191, 8_192, 20_000]).map(lambda size: b"\x5a" * size)
_HEADERS = st.lists(st.tuples(st.text(max_size=8), _SMALL), max_size=3).map(tuple)
_TIMESTAMPS = st.one_of(
    st.integers(NOW_MS - 70, NOW_MS + 70),
    st.sampled_from([NOW_MS, NOW_MS + 8_191, NOW_MS + 8_192, NOW_MS - 8_192, 0, 2**63 - 1]),
)
_MIXED = st.lists(
    st.tuples(
        _TIMESTAMPS,
        st.one_of(_SMALL, _LARGE),
        st.one_of(_SMALL, _LARGE),
        st.one_of(st.just(()), _HEADERS),
    ),
    min_size=1,
    max_size=12,
)


@st.composite
def _runs(draw: st.DrawFn) -> list[RecordTuple]:
    """Many records alike, as real traffic is, perhaps with a strange one among them."""
    count = draw(st.integers(1, 150))
    value_bytes = draw(st.sampled_from([0, 1, 63, 64, 100]))
    key_bytes = draw(st.sampled_from([None, 0, 12, 64]))
    step = draw(st.sampled_from([1, 3, 50, 1_000_000]))
    records: list[RecordTuple] = [
        (
            NOW_MS + index // step,
            None if key_bytes is None else bytes([index & 255]) * key_bytes,
            bytes([index * 7 & 255]) * value_bytes,
            (),
        )
        for index in range(count)
    ]
    if draw(st.booleans()):
        strange = draw(_MIXED)
        place = draw(st.integers(0, count))
        records[place:place] = strange[:1]
    return records


record_lists: st.SearchStrategy[list[RecordTuple]] = st.one_of(_MIXED, _runs())
"""Records as (timestamp_ms, key, value, headers); their deltas fit 64 bits."""
