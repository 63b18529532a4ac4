"""What hostile msgpack may claim, and what it may cost."""

from __future__ import annotations

import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.wire import bounded_msgpack
from broker.wire.bounded_msgpack import (
    ARRAY_LENGTH_MAX,
    DEPTH_MAX,
    MalformedMessage,
    pack,
    unpack,
)

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(max_size=40),
        st.binary(max_size=300),
    ),
    lambda inner: st.lists(inner, max_size=20).map(tuple),
    max_leaves=20,
)


@given(value=VALUES)
def test_plain_values_come_back(value: object) -> None:
    assert unpack(pack(value)) == value
    assert unpack(memoryview(bytearray(pack(value)))) == value


HOSTILE = [
    b"",
    b"\xc1",
    b"\x01\x02",
    b"\x91",
    b"\xa5abc",
    b"\xa1\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdc\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xda\xff\xff",
    b"\xd9\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc5\xff\xff",
    b"\xc4\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xde\x00\x01\x01\x02",
    b"\x81\x01\x02",
    b"\x81\x90\x01",
    b"\x81\xa1a\x01",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xc7\x01\x05\x00",
    b"\xd4\x05\x00",
    b"\xd6\xff\x00\x00\x00\x00",
    b"\xd7\xff" + b"\xff" * 8,
    b"\x91" * 5_000 + b"\x01",
    b"\x9f" * 5_000,
    b"\xdd\x00\x01\x00\x01" + b"\xc0" * (ARRAY_LENGTH_MAX + 1),
    b"\xce\x00",
    b"\xcf",
]


@pytest.mark.parametrize("data", HOSTILE, ids=lambda data: f"{data[:6].hex()}-{len(data)}")
def test_hostile_bytes(data: bytes) -> None:
    with pytest.raises(MalformedMessage, match="not msgpack"):
        unpack(data)


@pytest.mark.parametrize("header", [b"\xdc\xff\xff", b"\xdd\x00\x00\xff\xff", b"\xdc\x27\x0f"])
@pytest.mark.parametrize("depth", [40, 200, 1_000])
@pytest.mark.parametrize("filler_bytes", [0, 100_000, 1_000_000])
def test_nested_arrays_that_claim_much_cost_little(
    header: bytes, depth: int, filler_bytes: int
) -> None:
    bomb = header * depth + b"\xc0" * filler_bytes
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage):
            unpack(bomb)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < bounded_msgpack.UNWALKED_BYTES_MAX + 4 * len(bomb)


def walked(value: object) -> None:
    bounded_msgpack._require_shallow(pack(value))


@given(value=VALUES)
def test_the_walk_passes_every_plain_value(value: object) -> None:
    walked(value)


def test_the_walk_passes_long_items() -> None:
    walked(["x" * 300, "x" * 70_000, b"x" * 300, b"x" * 70_000, [1] * 300, [[None]] * 40_000])


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_the_walk_stops_at_the_depth() -> None:
    walked(nested(DEPTH_MAX))
    with pytest.raises(MalformedMessage, match=f"{DEPTH_MAX} deep"):
        walked(nested(DEPTH_MAX + 1))


@pytest.mark.parametrize(
    "data",
    [
        b"\x92\xdd\x00\x00\xff\xff\xc0",
        b"\x92\xdc\x00\x09\xc0",
        b"\x91\x81\x01\x02",
        b"\x91\xd4\x05\x00",
        b"\x91\xc7\x01\x05\x00",
        b"\x91\xc1",
    ],
)
def test_the_walk_refuses_claims_maps_and_extensions(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        bounded_msgpack._require_shallow(data)


def test_a_large_honest_message_is_walked_and_read() -> None:
    """Numbers may contain the bytes that begin arrays."""
    value = tuple((0xDCDCDCDCDCDC, 0xDDDD, index) for index in range(3_000))
    assert unpack(pack(value)) == value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded_msgpack, "UNWALKED_BYTES_MAX", 0)
        assert unpack(pack(value)) == value


def test_errors_say_where() -> None:
    fault = MalformedMessage("bad", "")
    assert str(fault) == "bad"
    assert str(fault.inside("[3]").inside("parts")) == "parts[3]: bad"
    assert str(fault.inside("name").inside("[3]").inside("parts")) == "parts[3].name: bad"


def test_the_library_is_asked_for_tuples_because_messages_are_frozen() -> None:
    assert unpack(msgpack.packb([1, [2]])) == (1, (2,))
