from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.wire.varint import (
    INT64_MAX,
    INT64_MIN,
    ONE_BYTE_END,
    TABLE_SIZE,
    VARINTS,
    VarintError,
    decode_varint,
    encode_varint,
    end_of_width,
    entries,
    with_suffix,
)


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, "00"),
        (-1, "01"),
        (1, "02"),
        (63, "7e"),
        (-64, "7f"),
        (64, "8001"),
        (-65, "8101"),
        (8191, "fe7f"),
        (8192, "808001"),
        (2**31 - 1, "feffffff0f"),
        (-(2**31), "ffffffff0f"),
        (INT64_MAX, "feffffffffffffffff01"),
        (INT64_MIN, "ffffffffffffffffff01"),
    ],
)
def test_the_bytes_of_kafkas_varints(number: int, encoded: str) -> None:
    assert encode_varint(number).hex() == encoded
    assert decode_varint(bytes.fromhex("ff" + encoded), 1) == (number, 1 + len(encoded) // 2)


@given(number=st.integers(INT64_MIN, INT64_MAX))
@example(number=INT64_MIN)
def test_every_64_bit_number_comes_back(number: int) -> None:
    encoded = encode_varint(number)
    assert decode_varint(encoded, 0) == (number, len(encoded))


@pytest.mark.parametrize("number", [INT64_MIN - 1, INT64_MAX + 1])
def test_beyond_64_bits(number: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        encode_varint(number)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        ("", "cut short"),
        ("80", "cut short"),
        ("ff" * 9, "cut short"),
        ("ff" * 10, "longer than 10"),
        ("ff" * 9 + "02", "beyond 64 bits"),
        ("ff" * 9 + "7f", "beyond 64 bits"),
    ],
)
def test_what_is_no_varint(encoded: str, reason: str) -> None:
    with pytest.raises(VarintError, match=reason) as error:
        decode_varint(b"\x00\x00" + bytes.fromhex(encoded), 2)
    assert error.value.position == 2


@pytest.mark.parametrize(
    ("number", "end"), [(0, 64), (63, 64), (64, 8_192), (8_191, 8_192), (8_192, 1_048_576)]
)
def test_where_varints_get_longer(number: int, end: int) -> None:
    assert end_of_width(number) == end
    assert len(encode_varint(end - 1)) == len(encode_varint(number)) == len(encode_varint(end)) - 1


def test_tables_hold_what_encoding_yields_and_go_on_beyond_their_end() -> None:
    def computed(number: int) -> bytes:
        zigzag = number << 1
        encoded = bytearray()
        while zigzag > 0x7F:
            encoded.append(zigzag & 0x7F | 0x80)
            zigzag >>= 7
        return bytes([*encoded, zigzag])

    assert list(VARINTS) == [computed(number) for number in range(TABLE_SIZE)]
    assert [len(varint) for varint in VARINTS].count(1) == ONE_BYTE_END
    table = with_suffix(b"!")
    for start, end in ((0, 3), (8_000, 8_192), (8_190, 8_195), (9_000, 9_002), (5, 5)):
        assert list(entries(table, start, end)) == [
            computed(number) + b"!" for number in range(start, end)
        ]
