"""Log starts, retention, settings that change and time stamps of leaders, on one node."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.events import Received
from broker.quorum.records import PartitionCreated, TopicConfigured
from broker.wire.batch_header import TIMESTAMP_TYPE_BIT, read_header
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    UP_TO_HIGH_WATERMARK,
    DeleteRecordsPart,
    DeleteRecordsPartResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    FetchRequest,
)
from broker.wire.record_batch import decode_batch
from tests.replica.stage import CLIENT, OTHER_TOPIC, TOPIC, Stage, batch


def leading(count: int = 4, segment_bytes: int = 1_024) -> Stage:
    """Leader of `count` committed batches, one a segment or so."""
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1, segment_bytes=segment_bytes)
    for number in range(count):
        stage.produce("v" * 900)
        stage.sync()
        for follower in (2, 3):
            stage.follower_has(follower, number + 1)
    return stage


def delete(stage: Stage, before: int, topic_id: str = TOPIC, timeout_ms: int = 1_000) -> int:
    request = DeleteRecordsRequest((DeleteRecordsPart(topic_id, 0, before),), timeout_ms)
    event = Received(CLIENT, stage.next_correlation_id(), request)
    stage.handle(event)
    return event.correlation_id


def answer(stage: Stage, correlation_id: int) -> DeleteRecordsPartResult | None:
    replies = stage.replies(correlation_id)
    if not replies:
        return None
    (reply,) = replies
    assert isinstance(reply.body, DeleteRecordsResponse)
    return reply.body.parts[0]


def follower_begins(stage: Stage, replica: int, start: int) -> None:
    """A fetch that tells where this follower's log begins."""
    event = stage.fetch_event(replica, stage.ends[0])
    request = event.body
    assert isinstance(request, FetchRequest)
    (part,) = request.parts
    moved = replace(request, parts=(replace(part, log_start_offset=start),))
    stage.handle(replace(event, body=moved))


# --- deleting records -----------------------------------------------------------------------------


def test_it_is_answered_when_nobody_in_the_isr_can_bring_them_back() -> None:
    stage = leading()
    asked = delete(stage, 2)
    assert stage.partition().log.log_start_offset == 2
    follower_begins(stage, 2, 2)
    follower_begins(stage, 3, 2)
    assert answer(stage, asked) is None, "our own beginning is not on disk"
    stage.sync()
    assert answer(stage, asked) == DeleteRecordsPartResult(TOPIC, 0, ErrorCode.NONE, 2)


def test_it_waits_for_every_member_of_the_isr() -> None:
    stage = leading()
    asked = delete(stage, UP_TO_HIGH_WATERMARK)
    stage.sync()
    follower_begins(stage, 2, 4)
    follower_begins(stage, 3, 3)
    assert answer(stage, asked) is None
    stage.change(isr=(1, 2))
    assert answer(stage, asked) == DeleteRecordsPartResult(TOPIC, 0, ErrorCode.NONE, 4)


def test_it_ends_in_time() -> None:
    stage = leading()
    asked = delete(stage, 2)
    stage.sync()
    stage.later(999)
    assert answer(stage, asked) is None
    stage.later(1)
    assert answer(stage, asked) == DeleteRecordsPartResult(
        TOPIC, 0, ErrorCode.REQUEST_TIMED_OUT, -1
    )


def test_who_leads_no_longer_says_so() -> None:
    stage = leading()
    asked = delete(stage, 2)
    stage.change(leader=2)
    result = answer(stage, asked)
    assert result is not None
    assert result.error is ErrorCode.NOT_LEADER_OR_FOLLOWER


@pytest.mark.parametrize(
    ("before", "topic_id", "error"),
    [
        (5, TOPIC, ErrorCode.OFFSET_OUT_OF_RANGE),
        (-2, TOPIC, ErrorCode.OFFSET_OUT_OF_RANGE),
        (0, OTHER_TOPIC, ErrorCode.UNKNOWN_TOPIC_ID),
    ],
)
def test_what_is_refused(before: int, topic_id: str, error: ErrorCode) -> None:
    stage = leading()
    result = answer(stage, delete(stage, before, topic_id))
    assert result is not None
    assert (result.error, stage.partition().log.log_start_offset) == (error, 0)


def test_a_consumer_below_the_beginning_is_told() -> None:
    stage = leading()
    delete(stage, 2)
    event = stage.fetch_event(-1, 1)
    stage.handle(event)
    result = stage.fetched(event.correlation_id)
    assert result is not None
    assert (result.error, result.log_start_offset) == (ErrorCode.OFFSET_OUT_OF_RANGE, 2)


def test_a_follower_gets_the_whole_batch_in_which_the_log_begins() -> None:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1, replicas=(1, 2), min_isr=1)
    stage.produce(batch("a", "b", "c", "d"))
    stage.sync()
    stage.follower_has(2, 4)
    delete(stage, 2)
    for replica, offset, error in (
        (2, 0, ErrorCode.NONE),
        (-1, 0, ErrorCode.OFFSET_OUT_OF_RANGE),
        (-1, 2, ErrorCode.NONE),
    ):
        event = stage.fetch_event(replica, offset)
        stage.handle(event)
        result = stage.fetched(event.correlation_id)
        assert result is not None
        assert (result.error, result.has_batches) == (error, error is ErrorCode.NONE)


def test_a_follower_that_waits_hears_of_it_at_once() -> None:
    stage = leading()
    parked = stage.fetch_event(2, 4, wait_ms=500)
    stage.handle(parked)
    assert stage.fetched(parked.correlation_id) is None
    delete(stage, 2)
    result = stage.fetched(parked.correlation_id)
    assert result is not None
    assert result.log_start_offset == 2


def test_a_follower_begins_where_its_leader_does_as_far_as_it_knows_it_committed() -> None:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=2)
    data = batch("a", "b", "c", leader_epoch=0)
    stage.handle(stage.answer_event(data, end=3, start=2, high_watermark=3))
    assert stage.partition().log.log_start_offset == 0
    stage.sync()
    stage.handle(stage.answer_event(end=3, start=2, high_watermark=3))
    assert stage.partition().log.log_start_offset == 2
    stage.sync()
    assert stage.last_round[1].parts[0].log_start_offset == 2


def test_a_log_that_begins_in_the_middle_of_a_batch_can_be_copied() -> None:
    """What the simulator found: the first batch begins before the offset that was asked for."""
    stage = Stage()
    stage.start()
    stage.create_topic(leader=2)
    out = ErrorCode.OFFSET_OUT_OF_RANGE
    stage.handle(stage.answer_event(error=out, start=4, end=6, high_watermark=6))
    stage.sync()
    stage.later(stage.config.replica_fetch_backoff_ms)
    assert stage.last_round[1].parts[0].fetch_offset == 4
    data = batch("a", "b", "c", "d", leader_epoch=0, base=2)
    stage.handle(stage.answer_event(data, start=4, end=6, high_watermark=6))
    stage.sync()
    stage.later(stage.config.replica_fetch_backoff_ms)
    assert stage.last_round[1].parts[0].fetch_offset == 2, "where that batch begins"
    stage.handle(stage.answer_event(data, start=4, end=6, high_watermark=6))
    stage.sync()
    assert stage.ends == (6, 6, 6)
    stage.handle(stage.answer_event(start=4, end=6, high_watermark=6))
    assert stage.partition().log.log_start_offset == 4


def test_a_watermark_never_lies_below_the_beginning() -> None:
    stage = leading()
    delete(stage, 3)
    stage.sync()
    stage.disk.process_crash()
    again = Stage(stage.disk, "second")
    again.entries, again.epochs = stage.entries, dict(stage.epochs)
    again.sync()
    again.metadata()
    again.register()
    again.metadata()
    assert again.partition().high_watermark >= again.partition().log.log_start_offset == 3


# --- retention ------------------------------------------------------------------------------------


def check_retention(stage: Stage) -> None:
    """Let the next look at what is too old come."""
    stage.later(0)
    stage.later(stage.config.log_retention_check_interval_ms)


def test_a_leader_deletes_what_is_too_old_whole_files_and_the_last_too() -> None:
    stage = leading()
    check_retention(stage)
    assert stage.partition().log.log_start_offset == 0
    stage.metadata(TopicConfigured(TOPIC, "retention_ms", "500"))
    check_retention(stage)
    assert stage.partition().log.log_start_offset == 4, "records of a second ago"
    stage.sync()
    assert len(stage.partition().log.segments) == 1


def test_a_leader_deletes_what_is_too_much() -> None:
    stage = leading()
    stage.metadata(TopicConfigured(TOPIC, "retention_bytes", "1500"))
    check_retention(stage)
    assert stage.partition().log.log_start_offset == 2


def test_a_follower_leaves_that_to_its_leader() -> None:
    stage = leading()
    stage.change(leader=2)
    stage.metadata(TopicConfigured(TOPIC, "retention_ms", "500"))
    check_retention(stage)
    assert stage.partition().log.log_start_offset == 0


# --- settings and partitions ----------------------------------------------------------------------


def test_settings_reach_the_log_and_the_leader() -> None:
    stage = leading()
    stage.metadata(
        TopicConfigured(TOPIC, "segment_bytes", "2000"),
        TopicConfigured(TOPIC, "message_max_bytes", "128"),
        TopicConfigured(TOPIC, "min_insync_replicas", "3"),
        stage.changed(),
    )
    assert stage.partition().log.segment_bytes == 2_000
    assert stage.partition().min_isr == 3
    assert stage.verdict(stage.produce("x" * 200)) == "MESSAGE_TOO_LARGE NO"
    stage.change(isr=(1, 2))
    assert stage.verdict(stage.produce("x")) == "NOT_ENOUGH_REPLICAS NO"


def test_a_new_partition_is_led_at_once() -> None:
    stage = leading()
    stage.metadata(PartitionCreated(TOPIC, 1, (1, 2), (1, 2), 1))
    assert stage.partition(1).log.log_end_offset == 0
    stage.produce("a", partition=1)
    assert stage.partition(1).log.log_end_offset == 1


# --- unclean elections ------------------------------------------------------------------------


def test_a_follower_of_an_unclean_leader_cuts_what_was_committed_and_says_so() -> None:
    stage = leading(3)
    assert stage.ends == (3, 3, 3)
    stage.metadata(TopicConfigured(TOPIC, "unclean_leader_election_enable", "true"))
    stage.change(leader=2, isr=(2,))
    stage.handle(stage.answer_event(leader_epoch=1, diverging=(0, 1), end=1, high_watermark=1))
    assert stage.ends == (1, 1, 1)
    [lost] = stage.facts("CommittedLost")
    assert lost.details == {"first": 1, "last": 2}


def test_without_that_it_is_an_impossible_state() -> None:
    stage = leading(3)
    stage.change(leader=2, isr=(2,))
    with pytest.raises(AssertionError, match="below the high watermark"):
        stage.handle(stage.answer_event(leader_epoch=1, diverging=(0, 1), end=1))


# --- time stamps ----------------------------------------------------------------------------------


def test_a_leader_says_when_it_appended_where_the_topic_wants_it() -> None:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1, replicas=(1,), min_isr=1)
    stage.metadata(TopicConfigured(TOPIC, "message_timestamp_type", "LogAppendTime"))
    stage.wall_ms = 77_000
    stage.produce(batch("a", "b", producer=(7, 0, 0)))
    stage.sync()
    data = stage.partition().log.read(0, 10_000, 2)
    header = read_header(data)
    assert header.attributes & TIMESTAMP_TYPE_BIT
    assert header.max_timestamp_ms == 77_000
    records = decode_batch(data)
    assert list(records.timestamps_ms) == [77_000, 77_000]
    assert stage.partition().log.offset_for_timestamp(77_000, 2) == (77_000, 0)
    again = stage.produce(batch("a", "b", producer=(7, 0, 0)))
    result = stage.result(again)
    assert result is not None
    assert result.base_offset == 0, "a retry is still recognised"
