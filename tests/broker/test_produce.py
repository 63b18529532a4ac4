"""PRODUCE: what is refused before the append, what may fail after it, and when it is answered."""

from __future__ import annotations

import pytest
from crc32c import crc32c

from broker.events import Fact, Received, Reply, SyncFailed
from broker.quorum.records import TopicDeleted
from broker.wire.messages import ProducePart, ProduceRequest, ProduceResponse
from tests.replica.stage import CLIENT, OTHER_TOPIC, TOPIC, Stage, batch


def leading(**topic: object) -> Stage:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1, **topic)  # type: ignore[arg-type]
    stage.sync()
    return stage


def replicated(stage: Stage) -> None:
    """Everything is synced here, and the followers have it too."""
    stage.sync()
    end = stage.ends[0]
    for replica in (2, 3):
        stage.follower_has(replica, end)


# -- refused before the append: definite -----------------------------------------------------------


def spoiled(position: int, value: int, *, fix_crc: bool = True) -> bytearray:
    data = batch("a", "b", producer=(7, 0, 0))
    data[position] = value
    if fix_crc:
        data[17:21] = crc32c(bytes(data[21:])).to_bytes(4, "big")
    return data


@pytest.mark.parametrize(
    ("story", "data"),
    [
        ("a flipped bit", spoiled(70, 0xAA, fix_crc=False)),
        ("cut short", batch("a")[:-1]),
        ("two batches", batch("a") + batch("b")),
        ("no bytes", b""),
        ("another magic", spoiled(16, 1)),
        ("a control batch", spoiled(22, 0x20)),
        ("more offsets than records", spoiled(26, 5)),
        ("half a producer identity", spoiled(51, 0xFF)),
        ("an unknown codec", spoiled(22, 7)),
    ],
)
def test_a_batch_that_is_none_is_refused(story: str, data: bytes) -> None:
    stage = leading()
    assert stage.verdict(stage.produce(data)) == "CORRUPT_MESSAGE NO", story
    assert stage.ends[0] == 0


def test_a_batch_larger_than_the_topic_allows_is_refused() -> None:
    stage = leading()
    assert stage.verdict(stage.produce("x" * 100_000)) == "MESSAGE_TOO_LARGE NO"


@pytest.mark.parametrize(
    ("story", "asked", "expected"),
    [
        ("an older epoch", {"leader_epoch": 1}, "FENCED_LEADER_EPOCH NO"),
        ("a newer epoch", {"leader_epoch": 3}, "UNKNOWN_LEADER_EPOCH NO"),
        ("the present epoch", {"leader_epoch": 2}, "none"),
        ("no epoch known", {"leader_epoch": -1}, "none"),
        ("an unknown topic", {"topic_id": OTHER_TOPIC}, "UNKNOWN_TOPIC_ID NO"),
        ("a partition beyond the last", {"partition": 1}, "NOT_LEADER_OR_FOLLOWER NO"),
        ("a partition far beyond", {"partition": 2**60}, "NOT_LEADER_OR_FOLLOWER NO"),
        ("a negative partition", {"partition": -1}, "NOT_LEADER_OR_FOLLOWER NO"),
        ("acks of three", {"acks": 3}, "INVALID_REQUIRED_ACKS NO"),
    ],
)
def test_who_may_not_produce(story: str, asked: dict[str, int], expected: str) -> None:
    stage = leading()
    stage.change(leader=-1)
    stage.change(leader=1)
    assert stage.verdict(stage.produce("a", **asked)) == expected, story  # type: ignore[arg-type]


def test_a_follower_refuses_and_names_the_leader() -> None:
    stage = leading()
    stage.change(leader=2)
    answer = stage.result(stage.produce("a", leader_epoch=1))
    assert answer is not None
    assert (answer.error.name, answer.appended.name) == ("NOT_LEADER_OR_FOLLOWER", "NO")
    assert (answer.leader_id, answer.leader_epoch) == (2, 1)


def test_the_epoch_is_judged_before_the_leadership() -> None:
    stage = leading()
    stage.change(leader=2)
    assert stage.verdict(stage.produce("a", leader_epoch=0)) == "FENCED_LEADER_EPOCH NO"
    assert stage.verdict(stage.produce("a", leader_epoch=2)) == "UNKNOWN_LEADER_EPOCH NO"


def test_below_min_isr_only_acks_all_is_refused_and_before_the_append() -> None:
    stage = leading()
    stage.change(isr=(1,))
    assert stage.verdict(stage.produce("a")) == "NOT_ENOUGH_REPLICAS NO"
    assert stage.ends[0] == 0
    one = stage.produce("b", acks=1)
    stage.sync()
    assert stage.verdict(one) == "NONE YES"


def test_sequences_that_do_not_fit_are_refused() -> None:
    stage = leading()
    expected = {
        (7, 0, 5): "UNKNOWN_PRODUCER_ID NO",
        (7, 1, 0): "none",
        (7, 1, 3): "OUT_OF_ORDER_SEQUENCE_NUMBER NO",
        (7, 0, 1): "INVALID_PRODUCER_EPOCH NO",
        (7, 1, 1): "none",
    }
    for producer, verdict in expected.items():
        assert stage.verdict(stage.produce(batch("a", producer=producer))) == verdict, producer
    assert stage.ends[0] == 2


def test_a_write_that_certainly_failed_is_refused_and_the_node_goes_on() -> None:
    stage = leading()
    stage.disk.fail_next("append")
    assert stage.verdict(stage.produce(batch("a", producer=(7, 0, 0)))) == "STORAGE_ERROR NO"
    again = stage.produce(batch("a", producer=(7, 0, 0)))
    replicated(stage)
    answer = stage.result(again)
    assert answer is not None
    assert answer.base_offset == 0, "the failed attempt left no trace, in log or producer state"


def test_a_write_of_unknown_outcome_ends_the_node_and_all_who_wait_hear_maybe() -> None:
    stage = leading()
    waiting = stage.produce("a")
    stage.disk.fail_next("append", cut_back=False)
    unlucky = stage.produce("b")
    assert stage.verdict(waiting) == "STORAGE_ERROR MAYBE"
    assert stage.verdict(unlucky) == "none", "its connection ends with the node"
    stage.later(stage.config.controlled_shutdown_timeout_ms)
    assert stage.halts


def test_a_failed_sync_ends_the_node_and_all_who_wait_hear_maybe() -> None:
    stage = leading()
    for_all, for_one = stage.produce("a"), stage.produce("b", acks=1)
    stage.handle(SyncFailed(stage.syncs[0].token, "input/output error"))
    assert stage.verdict(for_all) == "STORAGE_ERROR MAYBE"
    assert stage.verdict(for_one) == "STORAGE_ERROR MAYBE"
    stage.later(stage.config.controlled_shutdown_timeout_ms)
    assert stage.halts


# -- answered when the acks are fulfilled ----------------------------------------------------------


def test_acks_all_waits_for_every_member_of_the_isr() -> None:
    stage = leading()
    waiting = stage.produce("a")
    stage.sync()
    stage.follower_has(2, 1)
    assert stage.verdict(waiting) == "none"
    stage.follower_has(3, 1)
    assert stage.verdict(waiting) == "NONE YES"


def test_acks_one_waits_for_the_leaders_own_disk() -> None:
    stage = leading()
    waiting = stage.produce("a", acks=1)
    assert stage.verdict(waiting) == "none"
    stage.sync()
    assert stage.verdict(waiting) == "NONE YES"


def test_acks_one_under_flush_async_waits_for_nothing() -> None:
    stage = leading(flush="async")
    assert stage.verdict(stage.produce("a", acks=1)) == "NONE YES"


def test_acks_none_is_never_answered() -> None:
    stage = leading()
    for data in (batch("a"), b"", batch("b")):
        assert not stage.replies(stage.produce(data, acks=0))
    assert stage.ends[0] == 2


def test_the_fact_of_an_ack_precedes_its_answer_and_says_who_held_it() -> None:
    stage = leading()
    waiting = stage.produce("a")
    stage.sync()
    stage.change(isr=(1, 2))
    stage.follower_has(2, 1)
    reply = stage.replies(waiting)[0]
    acked = stage.facts("Acked")
    assert len(acked) == 1
    kinds = [e for e in stage.effects if e is reply or e is acked[0]]
    assert [type(kind) for kind in kinds] == [Fact, Reply]
    details = acked[0].details
    assert (details["first"], details["last"], details["acks"]) == (0, 0, -1)
    assert (details["isr"], details["min_isr"], details["ends"]) == ((1, 2), 2, (1, 1))
    assert (acked[0].leader_epoch, acked[0].partition_epoch) == (0, 1)


def test_a_duplicate_is_answered_with_its_first_offset_after_the_watermark_covers_it() -> None:
    stage = leading()
    first = stage.produce(batch("a", "b", producer=(7, 0, 0)))
    stage.produce(batch("c", producer=(7, 0, 2)))
    again = stage.produce(batch("a", "b", producer=(7, 0, 0)))
    stage.sync()
    stage.follower_has(2, 2)
    assert stage.verdict(again) == "none"
    stage.follower_has(3, 2)
    for waiting in (first, again):
        answer = stage.result(waiting)
        assert answer is not None
        assert (answer.error.name, answer.base_offset) == ("NONE", 0)
    replicated(stage)
    late = stage.result(stage.produce(batch("c", producer=(7, 0, 2))))
    assert late is not None
    assert late.base_offset == 2, "known to be committed: answered at once"
    assert stage.ends[0] == 3, "in the log once"


def test_a_request_of_many_parts_is_answered_once_when_the_last_is_settled() -> None:
    stage = leading(partitions=2)
    request = ProduceRequest(-1, 5_000, (ProducePart(TOPIC, 0, -1), ProducePart(TOPIC, 1, 9)))
    stage.handle(Received(CLIENT, 77, request, (batch("a"), batch("b"))))
    assert not stage.replies(77)
    replicated(stage)
    replies = stage.replies(77)
    assert len(replies) == 1
    body = replies[0].body
    assert isinstance(body, ProduceResponse)
    assert [(part.partition, part.error.name) for part in body.parts] == [
        (0, "NONE"),
        (1, "UNKNOWN_LEADER_EPOCH"),
    ]


def test_an_empty_request_is_answered_at_once() -> None:
    stage = leading()
    stage.handle(Received(CLIENT, 77, ProduceRequest(-1, 5_000, ())))
    assert len(stage.replies(77)) == 1


# -- failures after the append: maybe --------------------------------------------------------------


def test_the_deadline_says_maybe_and_a_later_commit_says_nothing_more() -> None:
    stage = leading()
    waiting = stage.produce("a", timeout_ms=500)
    stage.later(499)
    assert stage.verdict(waiting) == "none"
    stage.later(1)
    assert stage.verdict(waiting) == "REQUEST_TIMED_OUT MAYBE"
    replicated(stage)
    assert not stage.facts("Acked"), "no ack, no fact of one"


def test_leadership_lost_says_maybe() -> None:
    stage = leading()
    for_all, for_one = stage.produce("a"), stage.produce("b", acks=1)
    stage.change(leader=2)
    assert stage.verdict(for_all) == "NOT_LEADER_OR_FOLLOWER MAYBE"
    assert stage.verdict(for_one) == "NOT_LEADER_OR_FOLLOWER MAYBE"
    stage.sync()
    assert not stage.facts("Acked")


def test_isr_below_min_says_maybe_at_once_to_acks_all_only() -> None:
    stage = leading()
    for_all, for_one = stage.produce("a"), stage.produce("b", acks=1)
    stage.change(isr=(1,))
    assert stage.verdict(for_all) == "NOT_ENOUGH_REPLICAS_AFTER_APPEND MAYBE"
    assert stage.verdict(for_one) == "none"
    stage.sync()
    assert stage.verdict(for_one) == "NONE YES"


def test_a_shrink_to_min_isr_fulfils_what_only_the_leaver_kept_waiting() -> None:
    stage = leading()
    waiting = stage.produce("a")
    stage.sync()
    stage.follower_has(2, 1)
    stage.change(isr=(1, 2))
    assert stage.verdict(waiting) == "NONE YES"


def test_a_deleted_topic_says_maybe() -> None:
    stage = leading()
    waiting = stage.produce("a")
    stage.metadata(TopicDeleted(TOPIC))
    assert stage.verdict(waiting) == "NOT_LEADER_OR_FOLLOWER MAYBE"
    assert stage.verdict(stage.produce("b")) == "UNKNOWN_TOPIC_ID NO"


def test_a_retry_after_the_deadline_finds_its_first_offset() -> None:
    stage = leading()
    data = batch("a", producer=(7, 0, 0))
    stage.produce("before")
    stage.produce(data, timeout_ms=100)
    stage.later(100)
    again = stage.produce(data)
    replicated(stage)
    answer = stage.result(again)
    assert answer is not None
    assert (answer.error.name, answer.base_offset) == ("NONE", 1)


# -- one turn --------------------------------------------------------------------------------------


def test_what_arrives_in_one_turn_is_written_apart_and_synced_once() -> None:
    stage = leading()
    events = [stage.produce_event(batch(value)) for value in "abc"]
    stage.handle(*events)
    assert stage.ends[0] == 3
    assert len(stage.syncs) == 1
    assert stage.syncs[0].token.end_offset == 3


def test_nothing_is_served_before_the_registration_is_applied() -> None:
    """Bytes at an offset that a follower of the last life already holds otherwise."""
    stage = Stage()
    event = stage.produce_event(batch("a"))
    stage.handle(event)
    assert not stage.replies(event.correlation_id)
    stage.start()
    stage.create_topic(leader=1)
    assert not stage.replies(event.correlation_id), "its sender asks whom the metadata names"
    assert stage.ends[0] == 0
