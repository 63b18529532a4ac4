"""Where reading begins and ends, and what is printed of a record."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from broker.wire.record_decoder import Records
from client.cli.consume import Printer
from client.cli.offset_spec import From, OffsetSpec, parse_offset
from client.cli.record_format import Row, compile_format, json_line

ROW = Row("t", 3, 17, 1_700_000_000_000, b"key", b"value", (("h", b"1"), ("n", None)))
NULLS = Row("t", 0, 0, 0, None, None, ())


class FakeBatch:
    """Records from `base_offset` on, value = its offset as text."""

    def __init__(
        self,
        base_offset: int,
        values: Sequence[bytes | None],
        *,
        start_offset: int | None = None,
        partition: int = 0,
        offsets: Sequence[int] | None = None,
    ) -> None:
        self.topic = "t"
        self.partition = partition
        self.start_offset = base_offset if start_offset is None else start_offset
        count = len(values)
        self._records = Records(
            offsets or range(base_offset, base_offset + count),
            [5] * count,
            [None] * count,
            values,
            [()] * count,
        )

    def records(self, *, check_crc: bool = True) -> Records:
        return self._records


def printed(
    batches: Sequence[FakeBatch], one: Callable[[Row], bytes] | None = None, **limits: object
) -> bytes:
    out: list[bytes] = []
    printer = Printer(out.append, one, **limits)  # type: ignore[arg-type]
    for batch in batches:
        printer.print(batch)
    assert printer.printed_count == b"".join(out).count(b"\n")
    return b"".join(out)


# --- offsets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("beginning", OffsetSpec(From.BEGINNING)),
        ("end", OffsetSpec(From.END)),
        ("0", OffsetSpec(From.OFFSET, 0)),
        ("17", OffsetSpec(From.OFFSET, 17)),
        ("-5", OffsetSpec(From.LAST, 5)),
        ("@1700000000000", OffsetSpec(From.TIME, 1_700_000_000_000)),
    ],
)
def test_offsets(text: str, spec: OffsetSpec) -> None:
    assert parse_offset(text) == spec


@pytest.mark.parametrize("text", ["", "-", "@", "five", "1.5", "--1", "+1", "²", str(2**63)])
def test_what_is_no_offset(text: str) -> None:
    with pytest.raises(ValueError, match="take beginning, end, N"):
        parse_offset(text)


@pytest.mark.parametrize(
    ("spec", "start"),
    [
        (OffsetSpec(From.BEGINNING), 10),
        (OffsetSpec(From.END), 50),
        (OffsetSpec(From.OFFSET, 17), 17),
        (OffsetSpec(From.LAST, 5), 45),
        (OffsetSpec(From.LAST, 500), 10),
    ],
)
def test_where_reading_begins(spec: OffsetSpec, start: int) -> None:
    assert spec.start(log_start_offset=10, high_watermark=50) == start


# --- what is printed ------------------------------------------------------------------------------


def test_by_default_the_value_and_a_line_feed() -> None:
    assert printed([FakeBatch(0, [b"a", b"", b"\x00\xff"])]) == b"a\n\n\x00\xff\n"


def test_records_before_the_start_are_left_out() -> None:
    """A fetch brings whole batches: the first may begin before the offset that was asked for."""
    assert printed([FakeBatch(10, [b"a", b"b", b"c"], start_offset=12)]) == b"c\n"


def test_nothing_at_or_beyond_the_end_is_printed() -> None:
    batches = [FakeBatch(0, [b"a", b"b"]), FakeBatch(2, [b"c", b"d"]), FakeBatch(4, [b"e"])]
    assert printed(batches, ends={("t", 0): 3}) == b"a\nb\nc\n"


def test_ends_are_per_partition() -> None:
    batches = [FakeBatch(0, [b"a", b"b"]), FakeBatch(0, [b"c", b"d"], partition=1)]
    assert printed(batches, ends={("t", 0): 0, ("t", 1): 1}) == b"c\n"


def test_a_count_ends_the_printing_within_a_batch() -> None:
    batches = [FakeBatch(0, [b"a", b"b"]), FakeBatch(2, [b"c", b"d"])]
    assert printed(batches, count_max=3) == b"a\nb\nc\n"


def test_a_batch_with_gaps_is_cut_by_offset() -> None:
    batch = FakeBatch(10, [b"a", b"b", b"c"], start_offset=11, offsets=[10, 14, 19])
    assert printed([batch], ends={("t", 0): 19}) == b"b\n"


@pytest.mark.parametrize(
    ("text", "row", "data"),
    [
        (r"%t-%p@%o %k=%s\n", ROW, b"t-3@17 key=value\n"),
        (r"%T %K %S", ROW, b"1700000000000 3 5"),
        ("%h", ROW, b"h=1,n"),
        ("100%%", ROW, b"100%"),
        (r"%%t\x00", ROW, b"%t\x00"),
        (r"[%k|%s|%K|%S|%h]", NULLS, b"[||-1|-1|]"),
        ("", ROW, b""),
        (r"\\%s", ROW, b"\\value"),
    ],
)
def test_formats(text: str, row: Row, data: bytes) -> None:
    assert compile_format(text)(row) == data


@pytest.mark.parametrize("text", ["%q", "%", "100%", r"\q", r"\%s"])
def test_what_is_no_format(text: str) -> None:
    with pytest.raises(ValueError, match="unknown"):
        compile_format(text)


def test_a_format_prints_each_record() -> None:
    batch = FakeBatch(4, [b"a", b"b"], partition=2)
    assert printed([batch], compile_format(r"%p@%o=%s\n")) == b"2@4=a\n2@5=b\n"


def test_json_lines() -> None:
    assert json.loads(json_line(ROW)) == {
        "topic": "t",
        "partition": 3,
        "offset": 17,
        "timestamp_ms": 1_700_000_000_000,
        "headers": [["h", "1"], ["n", None]],
        "key": "key",
        "value": "value",
    }


def test_json_loses_no_bytes() -> None:
    line = json_line(ROW._replace(key=None, value=b"\xff\x00"))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    shown = json.loads(line)
    assert shown["key"] is None
    assert shown["value"] == {"base64": "/wA="}
