"""FETCH: the order of its checks, what it tells of histories that part, what it counts, and when
it waits."""

from __future__ import annotations

import pytest
from crc32c import crc32c

from broker.events import Connection, Plane, Received, Reply
from broker.quorum.records import TopicDeleted
from broker.wire.messages import (
    FetchPart,
    FetchRequest,
    FetchResponse,
    Isolation,
    ListOffsetsPart,
    ListOffsetsRequest,
    ListOffsetsResponse,
)
from broker.wire.record_batch import iterate_batches
from tests.replica.stage import CLIENT, OTHER_TOPIC, TOPIC, Stage, batch

CONSUMER = -1


def leading(count: int = 0, **topic: object) -> Stage:
    """Node 1 leads and holds `count` records, synced; nobody else has them."""
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1, **topic)  # type: ignore[arg-type]
    stage.sync()
    for number in range(count):
        stage.produce(str(number))
    stage.sync()
    return stage


def answered(stage: Stage, replica: int, offset: int, **options: object) -> str:
    """The error of a fetch that does not wait; with what it brings or where it diverges."""
    event = stage.fetch_event(replica, offset, **options)  # type: ignore[arg-type]
    stage.handle(event)
    result = stage.fetched(event.correlation_id)
    assert result is not None
    if result.diverging_epoch >= 0:
        assert not result.has_batches
        return f"diverges at {result.diverging_epoch}/{result.diverging_end_offset}"
    return result.error.name + (" with bytes" if result.has_batches else "")


def offsets(stage: Stage, correlation_id: int) -> list[int]:
    reply = stage.replies(correlation_id)[0]
    return [header.base_offset for frame in reply.payload for header, _ in iterate_batches(frame)]


# -- who may fetch ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("story", "replica", "options", "expected"),
    [
        ("a follower", 2, {}, "NONE with bytes"),
        ("an older epoch", 2, {"leader_epoch": 1}, "FENCED_LEADER_EPOCH"),
        ("a newer epoch", 2, {"leader_epoch": 3}, "UNKNOWN_LEADER_EPOCH"),
        ("a follower without epoch", 2, {"leader_epoch": -1}, "INVALID_REQUEST"),
        ("no replica of this partition", 4, {}, "UNKNOWN_LEADER_EPOCH"),
        ("a dead process", 2, {"broker_epoch": 0}, "STALE_BROKER_EPOCH"),
        ("a process we have not heard of", 2, {"broker_epoch": 999}, "UNKNOWN_LEADER_EPOCH"),
        ("in the name of the leader", 1, {}, "INVALID_REQUEST"),
        ("a consumer", CONSUMER, {}, "NONE"),
        ("a consumer of an older epoch", CONSUMER, {"leader_epoch": 0}, "FENCED_LEADER_EPOCH"),
        ("a consumer of a newer epoch", CONSUMER, {"leader_epoch": 3}, "UNKNOWN_LEADER_EPOCH"),
        (
            "a read that must be linearizable",
            CONSUMER,
            {"isolation": Isolation.LINEARIZABLE},
            "INVALID_REQUEST",
        ),
    ],
)
def test_who_may_fetch(story: str, replica: int, options: dict[str, int], expected: str) -> None:
    stage = leading(1)
    stage.change(leader=-1)
    stage.change(leader=1)
    assert answered(stage, replica, 0, **options) == expected, story


def test_the_epoch_is_judged_before_leadership_and_leadership_before_membership() -> None:
    stage = leading(1)
    stage.change(leader=2)
    assert answered(stage, 3, 0, leader_epoch=0) == "FENCED_LEADER_EPOCH"
    assert answered(stage, 3, 0, leader_epoch=2) == "UNKNOWN_LEADER_EPOCH"
    assert answered(stage, 3, 0) == "NOT_LEADER_OR_FOLLOWER"
    assert answered(stage, 4, 0) == "NOT_LEADER_OR_FOLLOWER"
    assert answered(stage, CONSUMER, 0) == "NOT_LEADER_OR_FOLLOWER"


@pytest.mark.parametrize(
    ("topic_id", "partition", "expected"),
    [
        (OTHER_TOPIC, 0, "UNKNOWN_TOPIC_ID"),
        ("", 0, "UNKNOWN_TOPIC_ID"),
        (TOPIC, 1, "NOT_LEADER_OR_FOLLOWER"),
        (TOPIC, -1, "NOT_LEADER_OR_FOLLOWER"),
        (TOPIC, 2**60, "NOT_LEADER_OR_FOLLOWER"),
    ],
)
def test_names_of_nothing(topic_id: str, partition: int, expected: str) -> None:
    stage = leading(1)
    part = FetchPart(topic_id, partition, -1, -1, 0, -1, 0, 1_000)
    request = FetchRequest(-1, -1, 1, -1, 500, 1, 1_000, Isolation.READ_UNCOMMITTED, (part,))
    stage.handle(Received(CLIENT, 77, request))
    result = stage.fetched(77)
    assert result is not None
    assert result.error.name == expected


# -- where histories part --------------------------------------------------------------------------


def with_history() -> Stage:
    """Epoch 0 holds offsets 0 and 1, epoch 2 holds 2, epoch 4 begins at 3 without records."""
    stage = leading(2)
    for leader in (2, 1):
        stage.change(leader=leader)
    stage.produce("2")
    stage.sync()
    for leader in (2, 1):
        stage.change(leader=leader)
    assert stage.partition().log.epochs.entries() == ((0, 0), (2, 2), (4, 3))
    return stage


@pytest.mark.parametrize(
    ("offset", "last_epoch", "expected"),
    [
        (0, -1, "NONE with bytes"),
        (2, 0, "NONE with bytes"),
        (3, 2, "NONE"),
        (3, 0, "diverges at 0/2"),
        (2, 1, "diverges at 0/2"),
        (5, 2, "diverges at 2/3"),
        (3, 3, "diverges at 2/3"),
        (4, 4, "diverges at 4/3"),
        (3, 5, "OFFSET_OUT_OF_RANGE"),
        (4, -1, "OFFSET_OUT_OF_RANGE"),
        (-1, -1, "OFFSET_OUT_OF_RANGE"),
    ],
)
def test_where_histories_part(offset: int, last_epoch: int, expected: str) -> None:
    assert answered(with_history(), 2, offset, last_epoch=last_epoch) == expected


def test_below_the_logs_start_is_out_of_range_even_when_diverging() -> None:
    """KAFKA-12996: the cut would lie below the leader's log."""
    stage = leading()
    stage.partition().log.restart_at(5)
    assert answered(stage, 2, 4, last_epoch=0) == "OFFSET_OUT_OF_RANGE"


def test_a_diverging_fetch_counts_for_nothing() -> None:
    stage = with_history()
    assert answered(stage, 2, 3, last_epoch=0).startswith("diverges")
    assert stage.partition().counted_ends((2,)) == (-1,)


# -- what a fetch counts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("story", "options"),
    [
        ("an older epoch", {"leader_epoch": 0}),
        ("a newer epoch", {"leader_epoch": 7}),
        ("a dead process", {"broker_epoch": 0}),
        ("an unknown process", {"broker_epoch": 999}),
        ("beyond our end", {"last_epoch": -1}),
    ],
)
def test_a_refused_fetch_counts_for_nothing(story: str, options: dict[str, int]) -> None:
    stage = leading(1)
    stage.change(leader=-1)
    stage.change(leader=1)
    offset = 2 if story == "beyond our end" else 1
    answered(stage, 2, offset, **options)
    assert stage.partition().counted_ends((2,)) == (-1,), story


def test_an_older_round_counts_for_nothing() -> None:
    """It was sent before the one we know: a late message of a connection long replaced."""
    stage = leading(2)
    stage.handle(stage.fetch_event(2, 2, counted=1, fetch_round=8))
    stage.handle(stage.fetch_event(2, 2, counted=2, fetch_round=7))
    assert stage.partition().counted_ends((2,)) == (1,)
    stage.handle(stage.fetch_event(2, 2, counted=2, fetch_round=9))
    assert stage.partition().counted_ends((2,)) == (2,)


# -- what is given ---------------------------------------------------------------------------------


def test_followers_get_what_is_not_synced_and_consumers_what_is_committed() -> None:
    stage = leading()
    stage.produce("a")
    assert stage.ends == (1, 0, 0)
    assert answered(stage, 2, 0) == "NONE with bytes"
    assert answered(stage, CONSUMER, 0) == "NONE"
    stage.sync()
    stage.follower_has(2, 1)
    stage.follower_has(3, 1)
    stage.produce("b")
    event = stage.fetch_event(CONSUMER, 0)
    stage.handle(event)
    assert offsets(stage, event.correlation_id) == [0]


def test_a_consumer_that_knows_more_than_a_fresh_leader_is_told_to_wait() -> None:
    stage = leading(2)
    assert answered(stage, CONSUMER, 1) == "OFFSET_NOT_AVAILABLE"
    assert answered(stage, CONSUMER, 2) == "OFFSET_NOT_AVAILABLE"
    assert answered(stage, CONSUMER, 3) == "OFFSET_OUT_OF_RANGE"
    assert answered(stage, CONSUMER, -5) == "OFFSET_OUT_OF_RANGE"


def test_one_answer_has_a_bound_but_always_the_first_batch() -> None:
    stage = leading(5)
    event = stage.fetch_event(2, 1, max_bytes=1)
    stage.handle(event)
    assert offsets(stage, event.correlation_id) == [1]


def test_an_answer_tells_watermark_and_ends() -> None:
    stage = leading(2)
    stage.follower_has(2, 2)
    stage.follower_has(3, 1)
    result = stage.fetched(stage.follower_has(3, 1))
    assert result is not None
    assert (result.high_watermark, result.log_start_offset, result.log_end_offset) == (1, 0, 2)
    assert (result.leader_id, result.leader_epoch) == (1, 0)


# -- waiting ---------------------------------------------------------------------------------------


def parked(stage: Stage, replica: int, offset: int, name: bytes = b"x", **options: object) -> int:
    event = stage.fetch_event(
        replica,
        offset,
        wait_ms=500,
        connection=Connection(Plane.BROKER, name),
        **options,  # type: ignore[arg-type]
    )
    stage.handle(event)
    assert not stage.replies(event.correlation_id)
    return event.correlation_id


def test_a_follower_waits_for_bytes_and_gets_them_in_the_turn_they_come() -> None:
    stage = leading(1)
    waiting = parked(stage, 2, 1)
    stage.produce("b")
    result = stage.fetched(waiting)
    assert result is not None
    assert result.has_batches


def test_a_consumer_waits_for_the_watermark() -> None:
    stage = leading()
    waiting = parked(stage, CONSUMER, 0)
    stage.produce("a")
    stage.sync()
    stage.follower_has(2, 1)
    assert stage.fetched(waiting) is None
    stage.follower_has(3, 1)
    assert offsets(stage, waiting) == [0]


def test_waiting_ends_with_the_time() -> None:
    stage = leading()
    waiting = parked(stage, 2, 0)
    stage.later(499)
    assert stage.fetched(waiting) is None
    stage.later(1)
    result = stage.fetched(waiting)
    assert result is not None
    assert not result.has_batches


@pytest.mark.parametrize("change", ["leader", "delete"])
def test_waiting_ends_when_the_partition_is_no_longer_ours(change: str) -> None:
    stage = leading()
    waiting = parked(stage, 2, 0)
    if change == "leader":
        stage.change(leader=2)
        expected = "FENCED_LEADER_EPOCH"
    else:
        stage.metadata(TopicDeleted(TOPIC))
        expected = "UNKNOWN_TOPIC_ID"
    result = stage.fetched(waiting)
    assert result is not None
    assert result.error.name == expected


def test_a_newer_round_replaces_the_parked_one_on_whatever_connection() -> None:
    stage = leading()
    older = parked(stage, 2, 0, b"before")
    newer = parked(stage, 2, 0, b"after")
    assert len(stage.replies(older)) == 1
    assert stage.fetched(older) is None, "answered with nothing"
    stage.produce("a")
    assert offsets(stage, newer) == [0]


def test_another_fetch_of_the_same_connection_replaces_the_parked_one() -> None:
    stage = leading()
    older = parked(stage, CONSUMER, 0, b"same")
    parked(stage, CONSUMER, 0, b"same")
    assert len(stage.replies(older)) == 1
    parked(stage, CONSUMER, 0, b"other")
    assert len(stage.replies(older)) == 1


def test_answers_of_one_leader_are_counted() -> None:
    stage = leading(1)
    counters = []
    for _ in range(3):
        event = stage.fetch_event(2, 0)
        stage.handle(event)
        reply = stage.replies(event.correlation_id)[0]
        assert isinstance(reply, Reply)
        assert isinstance(reply.body, FetchResponse)
        counters.append(reply.body.counter)
    assert counters == sorted(set(counters))


# -- offsets ---------------------------------------------------------------------------------------


def listed(stage: Stage, timestamp_ms: int, leader_epoch: int = -1) -> tuple[str, int]:
    correlation_id = stage.next_correlation_id()
    request = ListOffsetsRequest((ListOffsetsPart(TOPIC, 0, leader_epoch, timestamp_ms),))
    stage.handle(Received(CLIENT, correlation_id, request))
    body = stage.replies(correlation_id)[0].body
    assert isinstance(body, ListOffsetsResponse)
    return body.parts[0].error.name, body.parts[0].offset


def test_the_latest_offset_is_the_watermark_and_never_goes_back() -> None:
    """KIP-207: a fresh leader may know less as committed than its predecessor told."""
    stage = leading(2)
    stage.follower_has(2, 2)
    stage.follower_has(3, 1)
    assert listed(stage, -1) == ("NONE", 1)
    assert listed(stage, -2) == ("NONE", 0)
    stage.change(leader=2)
    stage.change(leader=1)
    assert listed(stage, -1) == ("OFFSET_NOT_AVAILABLE", -1)
    assert listed(stage, 5) == ("OFFSET_NOT_AVAILABLE", -1)
    assert listed(stage, -2) == ("NONE", 0)
    stage.follower_has(2, 2)
    stage.follower_has(3, 2)
    assert listed(stage, -1) == ("NONE", 2)


def test_offsets_by_time_end_at_the_watermark() -> None:
    stage = leading(2)
    stage.follower_has(2, 1)
    stage.follower_has(3, 1)
    assert listed(stage, 1_000) == ("NONE", 0)
    assert listed(stage, 1_001) == ("NONE", -1)
    assert listed(stage, -7)[0] == "INVALID_TIMESTAMP"
    assert listed(stage, 1_000, leader_epoch=5)[0] == "UNKNOWN_LEADER_EPOCH"


def test_records_that_do_not_decode_are_the_readers_trouble() -> None:
    """Records are not looked at when they are produced; looking at them may not end the node."""
    stage = leading(replicas=(1,), min_isr=1)
    data = batch("hello")
    data[61:] = b"\xff" * (len(data) - 61)
    data[17:21] = crc32c(bytes(data[21:])).to_bytes(4, "big")
    assert stage.verdict(stage.produce(data)) == "none"
    stage.sync()
    assert listed(stage, 5) == ("CORRUPT_MESSAGE", -1)
    assert listed(stage, -1) == ("NONE", 1)
