"""The consumer's core in memory: positions, prefetch, resets."""

from __future__ import annotations

import pytest

from broker.wire.errors import ApiError, ErrorCode
from broker.wire.messages import (
    EARLIEST_TIMESTAMP,
    LATEST_TIMESTAMP,
    FetchRequest,
    ListOffsetsRequest,
)
from client.errors import CorruptRecords, NoOffset, NotAssigned
from client.fetcher import PositionChanged
from tests.client.harness import TOPIC, FetcherHarness, World, stored

E = ErrorCode


def reading(*positions: int, **settings: object) -> FetcherHarness:
    """A consumer of partitions 0, 1, … at these positions, its fetches on their way."""
    consumer = FetcherHarness(World(len(positions)), **settings)
    consumer.core.assign([(TOPIC, partition) for partition in range(len(positions))])
    for partition, position in enumerate(positions):
        consumer.core.seek(TOPIC, partition, position)
    consumer.tick()
    consumer.advance(100)
    consumer.other_effects.clear()
    return consumer


def values(consumer: FetcherHarness, count: int = 500) -> list[bytes | None]:
    return [record.value for record in consumer.core.take(count)]


# --- reading --------------------------------------------------------------------------------------


def test_records_come_with_all_they_have() -> None:
    consumer = reading(4)
    consumer.give({0: stored(4, b"a", b"b", leader_epoch=3)})
    first, second = consumer.core.take(10)
    assert first == (TOPIC, 0, 4, 1_000, None, b"a", (), 3)
    assert (second.offset, consumer.core.position(TOPIC, 0)) == (5, 6)


def test_records_before_the_position_are_passed_over() -> None:
    consumer = reading(6)
    consumer.give({0: stored(4, b"a", b"b", b"c") + stored(7, b"d")})
    assert values(consumer) == [b"c", b"d"]


def test_a_limit_stops_in_the_middle_of_a_batch() -> None:
    consumer = reading(0)
    consumer.give({0: stored(0, b"a", b"b", b"c") + stored(3, b"d")})
    assert values(consumer, 2) == [b"a", b"b"]
    assert consumer.core.position(TOPIC, 0) == 2
    assert values(consumer, 2) == [b"c", b"d"]
    assert consumer.core.position(TOPIC, 0) == 4
    assert values(consumer, 2) == []


def test_batches_undecoded() -> None:
    consumer = reading(1)
    consumer.give({0: stored(0, b"a", b"b") + stored(2, b"c")})
    first, second = consumer.core.take_batches(10)
    assert (first.header.base_offset, first.start_offset) == (0, 1)
    assert second.records().values == [b"c"]
    assert consumer.core.position(TOPIC, 0) == 3


def test_partitions_take_turns() -> None:
    consumer = reading(0, 0)
    consumer.give({0: stored(0, *[b"a"] * 4), 1: stored(0, *[b"b"] * 4)})
    firsts = {values(consumer, 2)[0] for _ in range(2)}
    assert firsts == {b"a", b"b"}


# --- fetching ahead -------------------------------------------------------------------------------


def test_the_next_chunk_is_asked_for_when_the_last_is_begun() -> None:
    consumer = reading(0)
    consumer.give({0: stored(0, b"a", b"b")})
    assert consumer.asked() == [], "a whole chunk waits"
    assert values(consumer, 1) == [b"a"]
    consumer.tick()
    assert consumer.asked() == [(0, 2)]
    consumer.give({0: stored(2, b"c")})
    consumer.tick()
    assert consumer.asked() == [], "one ahead is enough"
    assert values(consumer) == [b"b", b"c"]
    consumer.tick()
    assert consumer.asked() == [(0, 3)]


def test_one_fetch_per_node() -> None:
    world = World(3)
    world.move(2, partition=2)
    consumer = FetcherHarness(world)
    consumer.assign(0, 1, 2)
    for send in consumer.take(ListOffsetsRequest, 2):
        consumer.sent.append(send)
        consumer.give_offsets(5)
    assert {send.peer: len(send.body.parts) for send in consumer.fetches()} == {1: 2, 2: 1}  # type: ignore[attr-defined]


def test_a_silent_node_is_given_up_after_its_wait_and_the_request_time_out() -> None:
    consumer = reading(0)
    consumer.advance(3_399)
    assert consumer.closed.count(1) == 0
    consumer.advance(1)
    assert consumer.closed.count(1) == 1
    consumer.advance(100)
    assert consumer.asked() == [(0, 0)]


def test_a_paused_partition_keeps_its_records_and_fetches_nothing() -> None:
    consumer = reading(0, 0)
    consumer.give({0: stored(0, b"a"), 1: stored(0, b"b")})
    consumer.core.pause(TOPIC, 0)
    assert values(consumer) == [b"b"]
    consumer.tick()
    assert consumer.asked() == [(1, 1)]
    consumer.core.resume(TOPIC, 0)
    assert values(consumer) == [b"a"]


def test_a_leader_change_is_followed() -> None:
    consumer = reading(3)
    consumer.world.move(2)
    consumer.give({}, E.NOT_LEADER_OR_FOLLOWER)
    consumer.advance(100)
    (send,) = consumer.fetches()
    assert send.peer == 2
    assert send.body.parts[0].leader_epoch == 1  # type: ignore[attr-defined]
    assert consumer.asked() == [(0, 3)]


@pytest.mark.parametrize(
    "code", [E.OFFSET_NOT_AVAILABLE, E.UNKNOWN_LEADER_EPOCH, E.UNKNOWN_TOPIC_ID, E.BUSY]
)
def test_passing_errors_leave_the_position_alone(code: ErrorCode) -> None:
    consumer = reading(3)
    consumer.give({}, code)
    consumer.advance(100)
    assert consumer.asked() == [(0, 3)]
    assert consumer.changes() == []


def test_a_final_error_is_raised_to_the_reader() -> None:
    consumer = reading(3)
    consumer.give({}, E.INVALID_REQUEST)
    with pytest.raises(ApiError, match="INVALID_REQUEST"):
        consumer.core.take(1)


# --- positions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "timestamp_ms"), [("earliest", EARLIEST_TIMESTAMP), ("latest", LATEST_TIMESTAMP)]
)
def test_without_a_position_the_policy_decides(policy: str, timestamp_ms: int) -> None:
    consumer = FetcherHarness(auto_offset_reset=policy)
    consumer.assign(0)
    assert consumer.sent[0].body.parts[0].timestamp_ms == timestamp_ms  # type: ignore[attr-defined]
    consumer.give_offsets(9)
    assert consumer.asked() == [(0, 9)]
    assert consumer.changes() == [PositionChanged(TOPIC, 0, -1, 9, "initial")]


def test_without_a_policy_the_reader_is_told() -> None:
    consumer = FetcherHarness(auto_offset_reset="none")
    consumer.assign(0)
    for _ in range(2):
        with pytest.raises(NoOffset, match="t-0"):
            consumer.core.take(1)
    consumer.core.seek(TOPIC, 0, 2)
    consumer.tick()
    assert consumer.asked() == [(0, 2)]


def test_a_fresh_leader_that_does_not_know_the_end_is_asked_again() -> None:
    consumer = FetcherHarness(auto_offset_reset="latest")
    consumer.assign(0)
    consumer.give_offsets(-1, E.OFFSET_NOT_AVAILABLE)
    consumer.advance(60)
    consumer.give_offsets(12)
    assert consumer.asked() == [(0, 12)]


def test_out_of_range_resets_by_the_policy_and_says_so() -> None:
    consumer = reading(30)
    consumer.give({}, E.OFFSET_OUT_OF_RANGE)
    consumer.tick()
    consumer.give_offsets(10)
    assert consumer.changes() == [PositionChanged(TOPIC, 0, 30, 10, "out of range")]
    assert consumer.asked() == [(0, 10)]


def test_out_of_range_ahead_of_the_reader_waits_for_the_reader() -> None:
    consumer = reading(0)
    consumer.give({0: stored(0, b"a", b"b")})
    assert values(consumer, 1) == [b"a"]
    consumer.tick()
    consumer.give({}, E.OFFSET_OUT_OF_RANGE)
    consumer.advance(30)
    assert consumer.changes() == []
    assert values(consumer) == [b"b"]
    consumer.advance(60)
    consumer.give({}, E.OFFSET_OUT_OF_RANGE)
    consumer.tick()
    consumer.give_offsets(7)
    assert consumer.changes() == [PositionChanged(TOPIC, 0, 2, 7, "out of range")]


def test_out_of_range_without_a_policy_is_raised() -> None:
    consumer = reading(30, auto_offset_reset="none")
    consumer.give({}, E.OFFSET_OUT_OF_RANGE)
    with pytest.raises(NoOffset, match="out of range"):
        consumer.core.take(1)


def test_a_seek_drops_what_is_on_its_way() -> None:
    consumer = reading(0)
    consumer.core.seek(TOPIC, 0, 50)
    consumer.tick()
    assert consumer.asked() == [(0, 0), (0, 50)], "the new fetch does not wait for the parked one"
    consumer.give({0: stored(0, b"stale")})
    assert values(consumer) == []
    assert consumer.asked() == [(0, 50)]
    assert consumer.changes() == [PositionChanged(TOPIC, 0, 0, 50, "seek")]


def test_a_third_fetch_waits_for_one_of_two() -> None:
    consumer = reading(0)
    for offset in (50, 60):
        consumer.core.seek(TOPIC, 0, offset)
        consumer.tick()
    assert consumer.asked() == [(0, 0), (0, 50)]
    consumer.give({})
    assert consumer.asked() == [(0, 50), (0, 60)]
    consumer.give({})
    consumer.give({})
    assert consumer.asked() == [(0, 60)]


def test_the_same_bytes_twice_are_taken_once() -> None:
    consumer = reading(0, 0)
    consumer.core.seek(TOPIC, 1, 9)
    consumer.tick()
    assert sorted(consumer.asked()) == [(0, 0), (0, 0), (1, 0), (1, 9)]
    consumer.give({0: stored(0, b"a")})
    consumer.give({0: stored(0, b"a")})
    assert values(consumer) == [b"a"]
    assert values(consumer) == []


def test_an_error_for_an_offset_left_behind_is_ignored() -> None:
    consumer = reading(0, 0)
    consumer.core.seek(TOPIC, 1, 9)
    consumer.tick()
    consumer.give({0: stored(0, b"a")})
    assert values(consumer) == [b"a"]
    consumer.other_effects.clear()
    consumer.give({}, E.OFFSET_OUT_OF_RANGE)
    consumer.tick()
    assert [change.partition for change in consumer.changes()] == []
    assert consumer.core.position(TOPIC, 0) == 1


def test_a_late_out_of_range_after_a_seek_resets_nothing() -> None:
    consumer = reading(30)
    consumer.core.seek(TOPIC, 0, 5)
    consumer.tick()
    consumer.give({}, E.OFFSET_OUT_OF_RANGE)
    assert consumer.asked() == [(0, 5)]
    assert consumer.core.position(TOPIC, 0) == 5


def test_seek_by_time_falls_back_to_the_end() -> None:
    consumer = reading(3)
    consumer.core.seek_to(TOPIC, 0, 5_000)
    consumer.tick()
    consumer.give_offsets(-1)
    consumer.tick()
    (send,) = [send for send in consumer.sent if isinstance(send.body, ListOffsetsRequest)]
    assert send.body.parts[0].timestamp_ms == LATEST_TIMESTAMP
    consumer.give_offsets(8)
    assert consumer.changes() == [PositionChanged(TOPIC, 0, 3, 8, "seek")]


def test_assigning_anew_keeps_positions_of_those_that_stay() -> None:
    consumer = reading(3, 4)
    consumer.core.assign([(TOPIC, 1)])
    assert consumer.core.assignment() == [(TOPIC, 1)]
    assert consumer.core.position(TOPIC, 1) == 4
    with pytest.raises(NotAssigned):
        consumer.core.position(TOPIC, 0)


def test_a_recreated_topic_is_not_read_on() -> None:
    consumer = reading(3)
    consumer.world.index += 1
    consumer.world.topic_id = "id-2"
    consumer.give({}, E.UNKNOWN_TOPIC_ID)
    consumer.advance(200)
    assert consumer.asked() == []
    with pytest.raises(ApiError, match="made anew"):
        consumer.core.take(1)
    consumer.core.seek(TOPIC, 0, 0)
    consumer.tick()
    assert consumer.asked() == [(0, 0)]


# --- damage ---------------------------------------------------------------------------------------


def test_a_flipped_bit_is_raised_and_fetched_again() -> None:
    consumer = reading(0)
    damaged = bytearray(stored(1, b"b"))
    damaged[-2] ^= 1
    consumer.give({0: stored(0, b"a") + bytes(damaged)})
    assert values(consumer) == [b"a"]
    consumer.tick()
    assert consumer.asked() == [(0, 1)]
    consumer.give({0: bytes(damaged)})
    with pytest.raises(CorruptRecords, match="t-0 at offset 1"):
        consumer.core.take(1)
    consumer.tick()
    assert consumer.asked() == [(0, 1)]
    consumer.give({0: stored(1, b"b")})
    assert values(consumer) == [b"b"]


@pytest.mark.parametrize(
    "chunk",
    [
        stored(4, b"a", b"b"),  # ends before the position
        stored(7, b"a", b"b"),  # begins behind it
        stored(5, b"a", b"b") + stored(9, b"c"),  # the second begins too late
        stored(5, b"a", b"b") + stored(3, b"c", b"d"),  # or too early, as if it had been read
    ],
)
def test_wrong_base_offsets_are_damage(chunk: bytes) -> None:
    """They are not covered by the checksum; believed, they would skip records in silence."""
    consumer = reading(6)
    consumer.give({0: chunk})
    with pytest.raises(CorruptRecords, match="t-0 from offset 6"):
        consumer.core.take(5)
    consumer.tick()
    assert consumer.asked() == [(0, 6)]


def test_only_the_first_batch_may_begin_before_the_position() -> None:
    consumer = reading(6)
    consumer.give({0: stored(5, b"a", b"b")})
    assert values(consumer) == [b"b"]
    consumer.tick()
    consumer.give({0: stored(6, b"b", b"c")})
    with pytest.raises(CorruptRecords):
        consumer.core.take(5)


def test_damage_is_let_through_if_asked() -> None:
    consumer = reading(0, check_crcs=False)
    damaged = bytearray(stored(0, b"b"))
    damaged[-2] ^= 1
    consumer.give({0: bytes(damaged)})
    assert values(consumer) == [b"c"]


def test_bytes_that_are_no_batches_are_raised_and_fetched_again() -> None:
    consumer = reading(0)
    consumer.give({0: bytes(100)})
    with pytest.raises(CorruptRecords):
        consumer.core.take(1)
    consumer.tick()
    assert consumer.asked() == [(0, 0)]


def test_damage_in_one_partition_does_not_lose_records_of_another() -> None:
    consumer = reading(0, 0)
    consumer.give({0: stored(0, b"a"), 1: bytes(100)})
    got: list[bytes | None] = []
    raised = 0
    for _ in range(4):
        try:
            got += values(consumer)
        except CorruptRecords:
            raised += 1
    assert got == [b"a"]
    assert raised == 1


def test_an_answer_to_nothing_is_ignored() -> None:
    consumer = reading(0)
    (send,) = consumer.take(FetchRequest)
    consumer.sent.append(send)
    consumer.disconnect(1)
    consumer.sent.append(send)
    consumer.give({0: stored(0, b"late")})
    assert values(consumer) == []
