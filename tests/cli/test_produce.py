"""What becomes of lines: counts, offsets, first failures, and when reading stops."""

from __future__ import annotations

import pytest

from client.cli import produce
from client.cli.delivery_report import DeliveryReport
from client.cli.produce import Pump, Shape, exit_code
from tests.cli.fakes import FakeSender, failure


def pump_for(
    sender: FakeSender,
    shape: Shape = Shape("t"),  # noqa: B008
    *,
    keep_going: bool = False,
    value_bytes_max: int = 1_128,
) -> tuple[Pump, DeliveryReport]:
    report = DeliveryReport()
    return (
        Pump(
            sender,
            shape,
            report,
            value_bytes_max=value_bytes_max,
            keep_going=keep_going,
            wait_s=1.0,
        ),
        report,
    )


def numbered(count: int) -> list[bytes]:
    return [b"line %d" % number for number in range(1, count + 1)]


def test_every_line_is_sent_in_order_and_counted() -> None:
    sender = FakeSender(batch_records=7)
    pump, report = pump_for(sender)
    assert pump.send(numbered(50))
    assert pump.send(numbered(5))
    sender.complete_all()
    report.settle()
    assert [value for _, value, _ in sender.sent] == numbered(50) + numbered(5)
    assert report.delivered_count == 55
    assert report.pending_runs == 0
    assert exit_code(report) == 0
    assert list(report.lines("t")) == ["55 records delivered to t: offsets of partition 0 0-54"]


def test_plain_lines_go_in_bulk() -> None:
    sender = FakeSender()
    pump, _ = pump_for(sender)
    pump.send(numbered(10_000))
    assert sender.calls == 3


def test_keys_and_headers() -> None:
    sender = FakeSender()
    headers = (("source", b"x"),)
    pump, _ = pump_for(sender, Shape("t", 0, b":", headers))
    pump.send([b"k:v", b"no key", b"a:b:c"])
    assert sender.sent == [
        (b"k", b"v", headers),
        (None, b"no key", headers),
        (b"a", b"b:c", headers),
    ]


def test_a_failed_batch_names_its_first_line_and_ends_the_reading() -> None:
    sender = FakeSender(batch_records=10)
    sender.outcomes[2] = failure(definite=True)
    pump, report = pump_for(sender)
    assert pump.send(numbered(25))
    assert not pump.send(numbered(25))
    sender.complete_all()
    report.settle()
    assert (report.failed.count, report.failed.first_line) == (10, 21)
    assert report.delivered_count == 40
    assert exit_code(report) == 1
    assert "10 records failed and are not in the log, the first from line 21" in "".join(
        report.lines("t")
    )


def test_with_keep_going_the_rest_is_sent_too() -> None:
    sender = FakeSender(batch_records=10)
    sender.outcomes[0] = failure(definite=True)
    pump, report = pump_for(sender, keep_going=True)
    assert pump.send(numbered(25))
    assert pump.send(numbered(25))
    assert len(sender.sent) == 50
    sender.complete_all()
    report.settle()
    assert (report.failed.count, report.delivered_count) == (10, 40)


def test_an_unknown_outcome_outweighs_a_failure() -> None:
    sender = FakeSender(batch_records=10)
    sender.outcomes[0] = failure(definite=True)
    sender.outcomes[1] = failure(definite=False)
    pump, report = pump_for(sender, keep_going=True)
    pump.send(numbered(30))
    sender.complete_all()
    report.settle()
    assert (report.failed.first_line, report.unknown.first_line) == (1, 11)
    assert report.unknown.count == 10
    assert exit_code(report) == 2


def test_what_has_no_outcome_in_the_end_is_unknown() -> None:
    sender = FakeSender(batch_records=10)
    sender.completes = False
    pump, report = pump_for(sender)
    pump.send(numbered(30))
    sender.complete(sender.batches[1])
    report.settle()
    assert report.delivered_count == 0, "outcomes are taken in the order of lines"
    report.give_up("interrupted")
    assert report.delivered_count == 10
    assert (report.unknown.count, report.unknown.first_line) == (20, 1)
    assert report.unknown.reason == "interrupted"
    assert report.to_json("t")["unknown"] == {
        "count": 20,
        "first_line": 1,
        "reason": "interrupted",
    }


def test_a_refused_line_is_named_and_those_before_it_are_sent() -> None:
    sender = FakeSender(value_bytes_max=1_000)
    pump, report = pump_for(sender)
    assert not pump.send([b"a", b"b", b"x" * 1_001, b"never sent"])
    sender.complete_all()
    report.settle()
    assert [value for _, value, _ in sender.sent] == [b"a", b"b"]
    assert (report.delivered_count, report.failed.count, report.failed.first_line) == (2, 1, 3)


def test_lines_after_a_refused_one_keep_their_numbers() -> None:
    sender = FakeSender(batch_records=2, value_bytes_max=1_000)
    sender.outcomes[1] = failure(definite=False)
    pump, report = pump_for(sender, keep_going=True)
    pump.send([b"1", b"x" * 2_000, b"3", b"4", b"5"])
    sender.complete_all()
    report.settle()
    assert report.failed.first_line == 2
    assert report.unknown.first_line == 4


def test_offsets_are_told_per_partition() -> None:
    sender = FakeSender(batch_records=2, partitions=3)
    pump, report = pump_for(sender, Shape("t", None, b"\t"))
    pump.send(numbered(9))
    sender.complete_all()
    report.settle()
    assert [row["count"] for row in report.to_json("t")["partitions"]] == [3, 3, 3]
    assert [row["last_offset"] for row in report.to_json("t")["partitions"]] == [2, 2, 2]


def test_what_is_under_way_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce, "RUNS_MAX", 20)
    sender = FakeSender(batch_records=1_000_000, partitions=3)
    sender.completes = False
    pump, report = pump_for(sender, Shape("t", None, b"\t"))
    pump.send(numbered(9_000))
    assert report.pending_runs <= 20
    assert len(sender.sent) == 9_000
