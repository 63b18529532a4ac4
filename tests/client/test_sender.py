"""The producer's core in memory: order, retries, outcomes, time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from broker.wire.errors import ApiError, ErrorCode
from broker.wire.messages import (
    Appended,
    InitProducerIdRequest,
    InitProducerIdResponse,
    ProducePartResult,
    ProduceRequest,
    ProduceResponse,
)
from broker.wire.record_batch import decode_batch
from client.errors import RecordTooLarge
from client.events import Disconnected
from client.retry import SendFailed
from tests.client.harness import TOPIC, ProducerHarness, World

E = ErrorCode
FIVE = [b"a", b"b", b"c", b"d", b"e"]


def failure(handle: object) -> SendFailed:
    failed = handle.exception()  # type: ignore[attr-defined]
    assert failed is not None
    return failed


def deliver_all(producer: ProducerHarness, first_offset: int = 0) -> list[bytes]:
    """Acknowledge whatever comes, in order, until nothing is left; the values as they came."""
    came = []
    offset = first_offset
    for _ in range(100):
        if not producer.produces():
            producer.advance(50)
        if not producer.produces():
            return came
        (payload,) = producer.produces()[0].payload
        came += [value for value in decode_batch(payload).values if value is not None]
        producer.reply(base_offset=offset)
        offset += 1
    raise AssertionError("it goes on for ever")


# --- the ordinary way -----------------------------------------------------------------------------


def test_a_batch_is_acknowledged_record_by_record() -> None:
    producer = ProducerHarness()
    handles = [
        producer.core.send(TOPIC, b"v", now_ms=producer.now_ms, timestamp_ms=t) for t in (7, 8)
    ]
    producer.core.intake.seal_all()
    producer.tick()
    producer.reply(base_offset=40)
    assert [handle.result() for handle in handles] == [
        (TOPIC, 0, 40, 0, 7),
        (TOPIC, 0, 41, 0, 8),
    ]
    assert handles[1].identity == (7, 0, 1)
    assert handles[0].attempts == ((1, 0, E.NONE, Appended.YES, False),)


def test_an_open_batch_lingers() -> None:
    producer = ProducerHarness(linger_ms=20)
    producer.core.send(TOPIC, b"v", now_ms=producer.now_ms)
    producer.advance(19)
    assert not producer.produces()
    producer.advance(1)
    assert len(producer.produces()) == 1


def test_a_full_batch_leaves_at_once() -> None:
    producer = ProducerHarness(linger_ms=1_000, batch_size=500)
    for _ in range(6):
        producer.core.send(TOPIC, bytes(100), now_ms=producer.now_ms)
    producer.tick()
    (send,) = producer.produces()
    assert len(decode_batch(send.payload[0])) == 3


def test_nothing_is_sent_without_a_producer_id() -> None:
    producer = ProducerHarness(answers_producer_ids=False)
    (handle,) = producer.send_each(b"a")
    producer.advance(2_000)
    assert not producer.produces()
    (asked,) = producer.take(InitProducerIdRequest)
    producer.feed(producer.answer_to(asked, InitProducerIdResponse(E.NONE, 77, 3)))
    producer.advance(1)
    producer.reply()
    assert handle.identity == (77, 3, 0)


def test_without_idempotence_batches_carry_no_sequence() -> None:
    producer = ProducerHarness(enable_idempotence=False)
    producer.send_each(b"a")
    assert producer.sequences() == [-1]


def test_acks_0_is_done_when_handed_over() -> None:
    producer = ProducerHarness(enable_idempotence=False, acks=0)
    (handle,) = producer.send_each(b"a")
    (send,) = producer.produces()
    assert send.one_way
    assert handle.result().offset == -1


def test_at_most_five_requests_are_in_flight_per_node() -> None:
    producer = ProducerHarness()
    producer.send_each(*FIVE, b"f", b"g")
    assert producer.payload_values() == FIVE
    assert producer.sequences() == [0, 1, 2, 3, 4]
    producer.reply()
    assert producer.payload_values() == [*FIVE[1:], b"f"]


def test_sequences_grow_by_records_and_wrap() -> None:
    producer = ProducerHarness()
    producer.send_each(b"a")
    producer.reply()
    queue = producer.core.intake._topics[TOPIC].queues[0]
    queue.next_sequence = 2**31 - 2
    for _ in range(3):
        producer.core.send(TOPIC, b"v", now_ms=producer.now_ms)
    last = producer.core.send(TOPIC, b"w", now_ms=producer.now_ms)
    producer.core.intake.seal_all()
    producer.send_each(b"next")
    assert producer.sequences() == [2**31 - 2, 2]
    assert last.identity == (7, 0, 1)


def test_one_request_carries_one_batch_of_each_partition_of_its_node() -> None:
    world = World(3)
    world.move(2, partition=1)
    producer = ProducerHarness(world)
    for partition in (0, 1, 2):
        producer.send(b"v", partition)
    producer.tick()
    by_node = {
        send.peer: sorted(part.partition for part in send.body.parts)  # type: ignore[attr-defined]
        for send in producer.produces()
    }
    assert by_node == {1: [0, 2], 2: [1]}


def test_a_request_stays_below_its_largest_size() -> None:
    producer = ProducerHarness(World(3), max_request_size=2_500, batch_size=2_000)
    for partition in (0, 1, 2):
        producer.send(bytes(1_000), partition)
    producer.tick()
    assert sorted(len(send.payload) for send in producer.produces()) == [1, 2]


# --- lost answers, time-outs, broken connections --------------------------------------------------


def test_a_lost_ack_then_the_duplicates_answer() -> None:
    producer = ProducerHarness()
    (handle,) = producer.send_each(b"a")
    first = bytes(producer.produces()[0].payload[0])
    producer.disconnect(1)
    producer.advance(100)
    assert bytes(producer.produces()[0].payload[0]) == first, "identical bytes"
    producer.reply(base_offset=9)
    assert handle.result().offset == 9
    assert [attempt.appended for attempt in handle.attempts] == [Appended.MAYBE, Appended.YES]


def test_a_request_without_answer_closes_its_connection() -> None:
    producer = ProducerHarness()
    (handle,) = producer.send_each(b"a")
    producer.advance(2_999)
    assert producer.closed.count(1) == 0
    producer.advance(1)
    assert producer.closed.count(1) == 1
    assert handle.attempts[0].error is None
    assert handle.attempts[0].appended is Appended.MAYBE
    producer.advance(100)
    producer.reply()
    assert handle.result().offset == 0


def test_what_never_left_is_definite() -> None:
    producer = ProducerHarness(retries=1)
    (handle,) = producer.send_each(b"a")
    producer.disconnect(1, unsent=True)
    producer.advance(100)
    producer.disconnect(1, unsent=True)
    assert failure(handle).definite
    assert failure(handle).code is E.REQUEST_TIMED_OUT


def test_all_in_flight_on_a_broken_connection_are_sent_again_in_order() -> None:
    producer = ProducerHarness()
    handles = producer.send_each(*FIVE, b"f")
    producer.disconnect(1)
    assert deliver_all(producer) == [*FIVE, b"f"]
    assert [handle.result().offset for handle in handles] == [0, 1, 2, 3, 4, 5]


def test_while_one_is_sent_again_nothing_else_is() -> None:
    producer = ProducerHarness()
    producer.send_each(*FIVE)
    producer.disconnect(1)
    producer.advance(100)
    assert producer.payload_values() == [b"a"]
    producer.send_each(b"f")
    assert producer.payload_values() == [b"a"]


def test_an_answer_that_is_lost_holds_up_what_the_broker_would_forget_it_over() -> None:
    """The first answer is lost, later ones come: the first batch must stay among the broker's last
    five (found by tla/Idempotent.tla: in-flight-from-the-oldest)."""
    producer = ProducerHarness()
    producer.send_each(*FIVE, b"f", b"g")
    (lost, *later) = producer.take(ProduceRequest, 5)
    producer.sent += later
    for offset in range(1, 5):
        producer.reply(base_offset=offset)
    assert producer.payload_values() == [], "a sixth would push the first out"
    producer.sent.append(lost)
    producer.disconnect(1)
    producer.advance(100)
    assert producer.payload_values() == [b"a"]


def test_a_stopped_client_takes_the_answers_first() -> None:
    producer = ProducerHarness()
    (handle,) = producer.send_each(b"a")
    producer.now_ms += 10_000
    producer.reply(base_offset=3)
    assert handle.result().offset == 3
    assert producer.closed.count(1) == 0


# --- leader changes -------------------------------------------------------------------------------


def test_a_leader_change_with_five_in_flight_keeps_the_order() -> None:
    world = World()
    producer = ProducerHarness(world)
    handles = producer.send_each(*FIVE, b"f", b"g")
    world.move(2)
    for _ in range(5):
        producer.reply(E.NOT_LEADER_OR_FOLLOWER)
    assert deliver_all(producer) == [*FIVE, b"f", b"g"]
    assert all(handle.attempts[-1].node_id == 2 for handle in handles)


def test_the_first_is_appended_its_ack_lost_and_the_rest_refused() -> None:
    world = World()
    producer = ProducerHarness(world)
    handles = producer.send_each(*FIVE)
    (lost,) = producer.take(ProduceRequest)
    world.move(2)
    for _ in range(4):
        producer.reply(E.NOT_LEADER_OR_FOLLOWER)
    producer.sent.append(lost)
    producer.advance(200)
    assert producer.payload_values() == [b"a"], "others wait for the first"
    producer.disconnect(1)
    assert deliver_all(producer) == FIVE
    assert handles[0].attempts[0].appended is Appended.MAYBE
    assert all(handle.done() and handle.exception() is None for handle in handles)


def test_gaps_behind_a_refused_batch_are_no_reason_to_give_up() -> None:
    producer = ProducerHarness()
    handles = producer.send_each(*FIVE)
    producer.reply(E.NOT_ENOUGH_REPLICAS)
    for _ in range(2):
        producer.reply(E.UNKNOWN_PRODUCER_ID)
    for _ in range(2):
        producer.reply(E.OUT_OF_ORDER_SEQUENCE_NUMBER)
    assert deliver_all(producer) == FIVE
    assert all(handle.exception() is None for handle in handles)


def test_a_new_leader_cuts_the_back_off_short() -> None:
    world = World()
    producer = ProducerHarness(world, retry_backoff_ms=400)
    producer.advance(400)
    producer.send_each(b"a")
    world.move(2)
    producer.reply(E.NOT_LEADER_OR_FOLLOWER)
    assert [send.peer for send in producer.produces()] == [2]


def test_the_answer_names_the_new_leader() -> None:
    world = World()
    producer = ProducerHarness(world, retry_backoff_ms=400)
    producer.send_each(b"a")
    producer.answers_metadata = False
    producer.reply(E.NOT_LEADER_OR_FOLLOWER, hint=(3, 4))
    assert [send.peer for send in producer.produces()] == [3]
    assert producer.produces()[0].body.parts[0].leader_epoch == 4  # type: ignore[attr-defined]


def test_not_enough_replicas_is_tried_until_it_ends() -> None:
    producer = ProducerHarness()
    (handle,) = producer.send_each(b"a")
    for _ in range(6):
        producer.reply(E.NOT_ENOUGH_REPLICAS)
        producer.advance(500)
    producer.reply()
    assert [attempt.error for attempt in handle.attempts] == [E.NOT_ENOUGH_REPLICAS] * 6 + [E.NONE]


def test_back_off_grows() -> None:
    producer = ProducerHarness()
    producer.send_each(b"a")
    waits = []
    for _ in range(5):
        producer.reply(E.BUSY)
        start_ms = producer.now_ms
        while not producer.produces():
            producer.advance(1)
        waits.append(producer.now_ms - start_ms)
    assert waits == [25, 50, 100, 200, 250]


def test_without_a_leader_batches_wait_for_one() -> None:
    world = World()
    producer = ProducerHarness(world)
    world.move(-1)
    (handle,) = producer.send_each(b"a")
    producer.reply(E.NOT_LEADER_OR_FOLLOWER)
    producer.advance(1_000)
    assert not producer.produces()
    assert 10 <= producer.metadata_requests <= 25, "asked for every 50 ms"
    world.move(3)
    producer.advance(60)
    assert [send.peer for send in producer.produces()] == [3]
    producer.reply()
    assert handle.result().offset == 0


def test_a_dead_leader_is_left_for_the_new_one_without_its_time_out() -> None:
    world = World()
    producer = ProducerHarness(world)
    producer.send_each(b"a")
    producer.disconnect(1)
    producer.advance(200)
    for _ in range(3):
        producer.disconnect(1, unsent=True)
        producer.advance(300)
    world.move(2)
    producer.disconnect(1, unsent=True)
    producer.advance(60)
    assert [send.peer for send in producer.produces()] == [2]


# --- giving up ------------------------------------------------------------------------------------


def test_delivery_time_out_without_an_attempt_is_definite() -> None:
    world = World()
    world.move(-1)
    producer = ProducerHarness(world, delivery_timeout_ms=5_000)
    (handle,) = producer.send_each(b"a")
    producer.advance(4_999)
    assert not handle.done()
    producer.advance(1)
    assert failure(handle).definite
    assert failure(handle).attempts == ()
    assert "no leader" in str(failure(handle))


def test_delivery_time_out_after_refusals_is_definite_with_their_code() -> None:
    producer = ProducerHarness(delivery_timeout_ms=5_000)
    (handle,) = producer.send_each(b"a")
    while not handle.done():
        if producer.produces():
            producer.reply(E.NOT_ENOUGH_REPLICAS)
        producer.advance(100)
    assert (failure(handle).definite, failure(handle).code) == (True, E.NOT_ENOUGH_REPLICAS)
    assert producer.now_ms <= 1_100 + 5_000 + 100


def test_delivery_time_out_after_a_lost_answer_is_unknown() -> None:
    producer = ProducerHarness(delivery_timeout_ms=5_000)
    (handle,) = producer.send_each(b"a")
    producer.advance(8_001)
    assert not failure(handle).definite
    assert handle.attempts


def test_an_answer_on_the_way_is_waited_for() -> None:
    producer = ProducerHarness(delivery_timeout_ms=3_100)
    (handle,) = producer.send_each(b"a")
    producer.advance(2_900)
    producer.reply(E.BUSY)
    producer.advance(250)
    assert producer.now_ms > 1_100 + 3_100, "expired by now, but under way"
    producer.reply(base_offset=5)
    assert handle.result().offset == 5


def test_a_refused_batch_takes_those_behind_it_along_and_the_next_have_a_new_id() -> None:
    producer = ProducerHarness()
    first, second, third = producer.send_each(b"a", b"b", b"c")
    producer.reply(E.MESSAGE_TOO_LARGE)
    assert failure(first).definite
    late = producer.send(b"late")
    producer.reply(E.OUT_OF_ORDER_SEQUENCE_NUMBER)
    producer.advance(100)
    assert len(producer.produces()) == 1, "nothing new before the old session is over"
    producer.reply(E.OUT_OF_ORDER_SEQUENCE_NUMBER)
    assert failure(second).definite
    assert failure(third).definite
    producer.advance(100)
    producer.reply(base_offset=0)
    assert late.identity == (8, 0, 0)
    assert late.result().offset == 0


def test_unknown_producer_on_the_first_attempt_is_definite() -> None:
    producer = ProducerHarness()
    (first,) = producer.send_each(b"a")
    producer.reply()
    (second,) = producer.send_each(b"b")
    producer.reply(E.UNKNOWN_PRODUCER_ID)
    assert (failure(second).definite, failure(second).code) == (True, E.UNKNOWN_PRODUCER_ID)
    assert first.result().offset == 0


@pytest.mark.parametrize("code", [E.UNKNOWN_PRODUCER_ID, E.OUT_OF_ORDER_SEQUENCE_NUMBER])
def test_a_gap_after_an_unknown_attempt_ends_the_session_and_is_never_sent_as_another(
    code: ErrorCode,
) -> None:
    producer = ProducerHarness()
    producer.send_each(b"a")
    producer.reply()
    second, third = producer.send_each(b"b", b"c")
    producer.disconnect(1)
    producer.advance(100)
    producer.reply(code)
    assert (failure(second).definite, failure(second).code) == (False, code)
    assert not failure(third).definite, "it was under way too"
    assert "session" in str(failure(third))
    producer.advance(10_000)
    assert producer.payload_values() == []
    (fresh,) = producer.send_each(b"d")
    producer.advance(1)
    producer.reply()
    assert fresh.identity == (8, 0, 0)


def test_an_acknowledgement_behind_the_end_of_a_session_counts() -> None:
    producer = ProducerHarness()
    first, second = producer.send_each(b"a", b"b")
    producer.reply(E.STALE_BROKER_EPOCH)
    producer.reply(base_offset=4)
    assert failure(first).definite
    assert second.result().offset == 4


def test_other_partitions_keep_their_session() -> None:
    producer = ProducerHarness(World(2))
    bad, good = producer.send(b"a", 0), producer.send(b"a", 1)
    producer.tick()
    (send,) = producer.take(ProduceRequest)
    refused = producer_answers(send, {0: E.MESSAGE_TOO_LARGE, 1: E.NONE})
    producer.feed(producer.answer_to(send, refused))
    again_bad, again_good = producer.send(b"b", 0), producer.send(b"b", 1)
    producer.tick()
    producer.advance(100)
    assert (again_bad.identity, again_good.identity) == ((8, 0, 0), (7, 0, 1))
    assert bad.exception() is not None
    assert good.exception() is None


def producer_answers(send, errors):  # type: ignore[no-untyped-def]
    return ProduceResponse(
        tuple(
            ProducePartResult(
                part.topic_id,
                part.partition,
                errors[part.partition],
                Appended.NO if errors[part.partition] else Appended.YES,
                0,
                0,
                1,
                0,
            )
            for part in send.body.parts
        )
    )


def test_an_answer_that_leaves_a_part_out_is_no_answer_for_it() -> None:
    producer = ProducerHarness(World(2))
    left_out, told = producer.send(b"a", 0), producer.send(b"a", 1)
    producer.tick()
    (send,) = producer.take(ProduceRequest)
    answer = producer_answers(send, {0: E.NONE, 1: E.NONE})
    kept = tuple(part for part in answer.parts if part.partition == 1)
    producer.feed(producer.answer_to(send, type(answer)(kept)))
    assert told.done()
    assert left_out.attempts[0].appended is Appended.MAYBE


def test_a_recreated_topic_gets_nothing_of_the_old_one() -> None:
    world = World()
    producer = ProducerHarness(world)
    (first,) = producer.send_each(b"a")
    second = producer.send(b"b")
    world.index += 1
    world.topic_id = "id-2"
    producer.reply(E.UNKNOWN_TOPIC_ID)
    producer.advance(100)
    assert failure(first).code is E.UNKNOWN_TOPIC_ID
    assert failure(second).definite
    (third,) = producer.send_each(b"c")
    assert producer.produces()[0].body.parts[0].topic_id == "id-2"  # type: ignore[attr-defined]
    producer.reply()
    assert third.result().offset == 0


def test_closing_tells_the_fate_of_everything() -> None:
    producer = ProducerHarness()
    handles = producer.send_each(*FIVE, b"f")
    effects = producer.core.abort(producer.now_ms)
    assert [failure(handle).definite for handle in handles] == [False] * 5 + [True]
    assert any(type(effect).__name__ == "CloseConnection" for effect in effects)


def test_retries_are_limited_if_asked() -> None:
    producer = ProducerHarness(retries=2)
    (handle,) = producer.send_each(b"a")
    for _ in range(3):
        producer.reply(E.BUSY)
        producer.advance(600)
    assert failure(handle).definite
    assert len(failure(handle).attempts) == 3


# --- records that are refused ---------------------------------------------------------------------


def test_a_record_beyond_the_topics_limit_is_refused_and_leaves_no_trace() -> None:
    world = World()
    world.message_max_bytes = 1_000
    producer = ProducerHarness(world)
    with pytest.raises(RecordTooLarge, match="1000"):
        producer.send(bytes(1_000))
    assert producer.core.accumulator.buffered_bytes == 0
    assert not producer.core.accumulator.active
    (handle,) = producer.send_each(bytes(900))
    producer.reply()
    assert handle.result().offset == 0


def test_batches_respect_the_topics_limit() -> None:
    world = World()
    world.message_max_bytes = 1_000
    producer = ProducerHarness(world, linger_ms=1)
    for _ in range(20):
        producer.core.send(TOPIC, bytes(100), now_ms=producer.now_ms)
    producer.core.intake.seal_all()
    producer.tick()
    assert all(len(send.payload[0]) <= 1_000 for send in producer.produces())


def test_a_partition_that_is_not_there() -> None:
    producer = ProducerHarness(World(3))
    with pytest.raises(ApiError, match="0 to 2, not 3"):
        producer.send(b"v", 3)


@pytest.mark.parametrize("value", ["text", 7, bytearray(b"x")])
def test_what_is_no_record_is_refused_and_leaves_no_trace(value: object) -> None:
    producer = ProducerHarness()
    with pytest.raises(TypeError):
        producer.send(value)  # type: ignore[arg-type]
    assert not producer.core.accumulator.active
    assert producer.core.accumulator.buffered_bytes == 0


def test_full_memory_refuses_until_there_is_room() -> None:
    producer = ProducerHarness(
        batch_size=10_000, max_request_size=10_000, buffer_memory=10_000, linger_ms=1_000
    )
    (handle,) = producer.send_each(bytes(3_000))
    assert producer.core.send(TOPIC, b"v", now_ms=producer.now_ms) is None
    producer.reply()
    assert handle.done()
    assert producer.core.send(TOPIC, b"v", now_ms=producer.now_ms) is not None


def test_full_memory_sends_unfilled_batches() -> None:
    producer = ProducerHarness(
        World(2),
        batch_size=10_000,
        max_request_size=10_000,
        buffer_memory=10_000,
        linger_ms=1_000,
        delivery_timeout_ms=10_000,
    )
    assert producer.core.send(TOPIC, b"v", partition=0, now_ms=producer.now_ms) is not None
    assert producer.core.send(TOPIC, b"v", partition=1, now_ms=producer.now_ms) is None
    producer.tick()
    assert producer.payload_values() == [b"v"]


# --- partitions -----------------------------------------------------------------------------------


def test_keyless_records_stick_to_a_partition_for_a_batch_worth_of_bytes() -> None:
    producer = ProducerHarness(World(3), batch_size=1_000, linger_ms=50)
    places = [
        producer.core.send(TOPIC, bytes(80), now_ms=producer.now_ms).partition for _ in range(100)
    ]
    runs = [0]
    for before, after in pairwise(places):
        if before == after:
            runs[-1] += 1
        else:
            runs.append(0)
    assert len(runs) > 5
    assert min(runs[:-1]) >= 8


def test_keys_go_where_their_hash_says() -> None:
    producer = ProducerHarness(World(12))
    keys = {b"a": 2, b"abc": 6, b"key-1": 4}
    for key, partition in keys.items():
        handle = producer.core.send(TOPIC, b"v", key, now_ms=producer.now_ms)
        assert handle.partition == partition


def test_round_robin_takes_turns() -> None:
    producer = ProducerHarness(World(3), partitioner="round_robin")
    places = [
        producer.core.send(TOPIC, b"v", b"same", now_ms=producer.now_ms).partition for _ in range(6)
    ]
    assert places == [0, 1, 2, 0, 1, 2]


# --- the cluster ----------------------------------------------------------------------------------


def test_bootstrap_is_asked_again_when_all_known_nodes_are_gone() -> None:
    producer = ProducerHarness(World(1), bootstrap_servers="host:9001,host:9002")
    producer.answers_metadata = False
    producer.send_each(b"a")
    producer.world.move(-1)
    for peer in (1, 2, 3):
        producer.feed(Disconnected(peer))
    producer.advance(1_000)
    asked = {send.peer for send in producer.sent}
    assert asked & {-1, -2}


def test_a_silent_broker_does_not_hold_up_the_metadata() -> None:
    producer = ProducerHarness()
    producer.answers_metadata = False
    producer.send_each(b"a")
    producer.reply(E.NOT_LEADER_OR_FOLLOWER)
    first = [send.peer for send in producer.sent]
    producer.advance(400)
    second = [send.peer for send in producer.sent]
    assert len(set(first)) == 1
    assert len(set(second)) > 1, "another broker is asked after a while"


def test_overridden_addresses_are_used() -> None:
    producer = ProducerHarness(address_overrides={1: "proxy:1"})
    producer.send_each(b"a")
    assert producer.produces()[0].address == "proxy:1"
