"""A broker's standing: recover, register, catch up, serve; and what ends it."""

from __future__ import annotations

import pytest

from broker.broker_part import CLEAN, SHUTDOWN_PATH
from broker.config import NodeConfig, VoterAddress
from broker.core import Identity, NodeCore
from broker.events import Answered, Halt, Paused, Plane, Received, Send, SyncFailed, Unsent
from broker.lifecycle import Phase
from broker.quorum.records import BrokerFenced, TopicDeleted
from broker.wire.errors import ErrorCode
from broker.wire.messages import (
    BrokerHeartbeatRequest,
    BrokerHeartbeatResponse,
    BrokerRegistrationRequest,
    BrokerRegistrationResponse,
    CreateTopicRequest,
    CreateTopicResponse,
    DeleteTopicRequest,
    DeleteTopicResponse,
    InitProducerIdRequest,
    MetadataRequest,
    MetadataResponse,
)
from chaos.sim.disk import SimDisk
from tests.replica.stage import CLIENT, OTHER_TOPIC, TOPIC, VOTER, Stage, batch


def registered_with(stage: Stage, error: ErrorCode, broker_epoch: int = -1) -> None:
    stage.later(200)
    request = stage.sent(BrokerRegistrationRequest)[-1]
    body = BrokerRegistrationResponse(error, "", broker_epoch)
    stage.handle(Answered(VOTER, Plane.CONTROLLER, request.correlation_id, body))


def test_no_registration_before_everything_kept_is_durable() -> None:
    """Recovered is not durable: bytes found after a crash may never have reached the disk."""
    first = Stage()
    first.start()
    first.create_topic(leader=1, replicas=(1,), min_isr=1)
    first.produce("a")
    first.disk.process_crash()
    again = Stage(first.disk, "second")
    again.metadata()
    again.later(500)
    assert again.broker.lifecycle.phase is Phase.RECOVERING
    assert not again.sent(BrokerRegistrationRequest)
    again.sync()
    again.later(200)
    assert again.sent(BrokerRegistrationRequest)


def test_it_asks_again_until_it_is_registered() -> None:
    stage = Stage()
    stage.sync()
    stage.metadata(*stage.registration(2))
    for error in (ErrorCode.NOT_CONTROLLER, ErrorCode.DUPLICATE_BROKER_REGISTRATION):
        registered_with(stage, error)
        sent = len(stage.sent(BrokerRegistrationRequest))
        stage.later(100)
        assert len(stage.sent(BrokerRegistrationRequest)) == sent + 1, error
    stage.later(1_000)
    stage.later(100)
    assert len(stage.sent(BrokerRegistrationRequest)) == sent + 2, "no answer is none"
    assert not stage.halts


@pytest.mark.parametrize("error", [ErrorCode.INCONSISTENT_CLUSTER_ID, ErrorCode.STALE_BROKER_EPOCH])
def test_a_registration_that_can_never_succeed_ends_it(error: ErrorCode) -> None:
    stage = Stage()
    stage.sync()
    stage.metadata(*stage.registration(2))
    registered_with(stage, error)
    assert len(stage.halts) == 1


def test_it_asks_to_stay_fenced_until_it_serves() -> None:
    stage = Stage()
    stage.sync()
    stage.metadata(*stage.registration(2))
    stage.register()
    stage.later(200)
    waiting = stage.sent(BrokerHeartbeatRequest)[-1].body
    assert isinstance(waiting, BrokerHeartbeatRequest)
    assert waiting.want_fence
    assert stage.broker.lifecycle.phase is Phase.CATCHING_UP
    stage.metadata()
    stage.later(200)
    serving = stage.sent(BrokerHeartbeatRequest)[-1].body
    assert isinstance(serving, BrokerHeartbeatRequest)
    assert not serving.want_fence
    assert serving.broker_epoch == stage.epochs[1]


def test_a_newer_life_of_this_broker_ends_this_one() -> None:
    stage = Stage()
    stage.start()
    stage.later(200)
    request = stage.sent(BrokerHeartbeatRequest)[-1]
    body = BrokerHeartbeatResponse(ErrorCode.STALE_BROKER_EPOCH, True, False)
    stage.core.channel.call(request.body, stage.now_ms)
    correlation_id = next(reversed(stage.core.channel._calls))
    stage.handle(Answered(VOTER, Plane.CONTROLLER, correlation_id, body))
    assert stage.halts


def test_a_heartbeat_that_got_lost_is_followed_by_another() -> None:
    stage = Stage()
    stage.start()
    before = len(stage.sent(BrokerHeartbeatRequest))
    for _ in range(10):
        stage.later(200)
    assert len(stage.sent(BrokerHeartbeatRequest)) >= before + 9


# -- requests that come early ----------------------------------------------------------------------


def test_questions_wait_until_the_broker_serves_and_are_answered_once() -> None:
    stage = Stage()
    stage.handle(Received(CLIENT, 71, MetadataRequest(None)))
    stage.handle(Received(CLIENT, 72, InitProducerIdRequest(1_000)))
    stage.handle(Received(CLIENT, 73, CreateTopicRequest("t", 1, 1, (), (), 1_000)))
    stage.handle(Received(CLIENT, 74, DeleteTopicRequest("t", 1_000)))
    assert not any(stage.replies(number) for number in (71, 72, 73, 74))
    stage.start()
    body = stage.replies(71)[0].body
    assert isinstance(body, MetadataResponse)
    assert body.metadata_index >= stage.epochs[1], "nothing older than its own registration"
    assert len(stage.sent(CreateTopicRequest)) == len(stage.sent(DeleteTopicRequest)) == 1


def test_a_flood_of_early_questions_is_bounded() -> None:
    stage = Stage()
    for number in range(1_100):
        stage.handle(Received(CLIENT, 2_000 + number, MetadataRequest(())))
    stage.start()
    answered = [number for number in range(1_100) if stage.replies(2_000 + number)]
    assert answered == list(range(1_000))


# -- operations on topics go to the controller -----------------------------------------------------


def test_what_the_controller_says_goes_back_to_who_asked() -> None:
    stage = Stage()
    stage.start()
    stage.handle(Received(CLIENT, 71, DeleteTopicRequest("t", 1_000)))
    send = stage.sent(DeleteTopicRequest)[-1]
    body = DeleteTopicResponse(ErrorCode.NONE, "", False)
    stage.handle(Answered(VOTER, Plane.CONTROLLER, send.correlation_id, body))
    assert [reply.body for reply in stage.replies(71)] == [body]


def test_no_answer_is_an_unknown_outcome() -> None:
    stage = Stage()
    stage.start()
    stage.handle(Received(CLIENT, 71, CreateTopicRequest("t", 1, 1, (), (), 1_000)))
    stage.later(1_000)
    body = stage.replies(71)[0].body
    assert isinstance(body, CreateTopicResponse)
    assert (body.error, body.maybe_done) == (ErrorCode.REQUEST_TIMED_OUT, True)
    send = stage.sent(CreateTopicRequest)[-1]
    late = CreateTopicResponse(ErrorCode.NONE, "", TOPIC, False)
    stage.handle(Answered(VOTER, Plane.CONTROLLER, send.correlation_id, late))
    assert len(stage.replies(71)) == 1


def test_what_did_not_leave_was_certainly_not_done() -> None:
    stage = Stage()
    stage.start()
    stage.handle(Received(CLIENT, 71, CreateTopicRequest("t", 1, 1, (), (), 1_000)))
    send = stage.sent(CreateTopicRequest)[-1]
    stage.handle(Unsent(VOTER, Plane.CONTROLLER, send.correlation_id))
    body = stage.replies(71)[0].body
    assert isinstance(body, CreateTopicResponse)
    assert (body.error, body.maybe_done) == (ErrorCode.NOT_CONTROLLER, False)


# -- pauses and stops ------------------------------------------------------------------------------


def test_nobody_lags_in_a_time_in_which_we_were_deaf() -> None:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1)
    stage.produce("a")
    stage.sync()
    stage.now_ms += 10_000
    stage.handle(Paused(10_000))
    assert not stage.facts("IsrProposed")
    stage.later(3_100)
    assert stage.facts("IsrProposed")


def test_a_clean_stop_syncs_what_was_written_during_a_sync() -> None:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1, replicas=(1,), min_isr=1, flush="async", segment_bytes=1_024)
    while not stage.syncs:
        stage.produce("v" * 300, acks=1)
    stage.produce("last", acks=1)
    stage.stop()
    assert not stage.core.is_stopped
    stage.sync()
    assert stage.core.is_stopped
    assert stage.ends[0] == stage.ends[1]


def test_a_stopping_broker_takes_nothing_new() -> None:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1, replicas=(1,), min_isr=1)
    stage.produce("a")
    stage.stop()
    assert stage.verdict(stage.produce("b")) == "none"
    assert stage.ends[0] == 1
    stage.sync()
    assert stage.core.is_stopped


# -- loops that never rest, nodes that fall over ---------------------------------------------------


def test_an_idle_broker_rests() -> None:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1)
    stage.sync()
    stage.metadata(TopicDeleted(TOPIC))
    for _ in range(100):
        until_ms = stage.core.next_deadline_ms() - stage.now_ms
        assert until_ms > 0, "a deadline in the past after a turn"
        stage.later(until_ms)


def test_a_voter_with_another_disk_and_nobody_to_ask_says_so() -> None:
    config = NodeConfig(
        node_id=1,
        cluster_id="staged",
        data_dir="staged",
        broker_port=1,
        controller_port=2,
        voters=(VoterAddress(1, "disk1", "127.0.0.1", 2),),
    )
    identity = Identity("staged", 1, "another disk")
    core = NodeCore(config, identity, SimDisk(), "first", lambda label, low, high: low, lambda: 0)
    effects = core.start(0)
    assert len(effects) == 1
    assert isinstance(effects[0], Halt)
    assert "another disk" in effects[0].reason


@pytest.mark.parametrize("end", ["all fail", "the last fails", "the topic is deleted"])
def test_a_checkpoint_that_came_to_nothing_does_not_keep_the_next_from_beginning(end: str) -> None:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1, replicas=(1,), min_isr=1)
    stage.produce("a")
    stage.sync()
    broker = stage.broker
    requests = broker.logs.begin_checkpoint({(TOPIC, 0): 1})
    assert len(requests) == 2, "the leader epochs, and the watermarks"
    if end == "the topic is deleted":
        stage.metadata(TopicDeleted(TOPIC))
        for request in requests:
            broker.on_store_failed(request.path, "no such directory")
        stage.create_topic(leader=1, topic_id=OTHER_TOPIC, replicas=(1,), min_isr=1)
    elif end == "all fail":
        for request in requests:
            broker.on_store_failed(request.path, "no space")
    else:
        assert not broker.logs.begin_checkpoint({}), "one at a time"
        broker.on_stored(requests[0].path, 0, stage.now_ms)
        broker.on_store_failed(requests[1].path, "no space")
    assert not stage.halts
    assert broker.logs.begin_checkpoint({})


def test_a_sync_of_the_log_that_fails_ends_the_node_even_without_anybody_waiting() -> None:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1)
    stage.produce(batch("a"), acks=0)
    stage.handle(SyncFailed(stage.syncs[-1].token, "input/output error"))
    stage.later(stage.config.controlled_shutdown_timeout_ms)
    assert stage.halts


# -- leaving -------------------------------------------------------------------------------------


def test_a_broker_that_stops_asks_to_be_fenced_and_serves_until_it_is() -> None:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1, replicas=(1, 2), min_isr=1)
    stage.core.stop(stage.now_ms)
    asked = [
        effect.body
        for effect in stage.handle()
        if isinstance(effect, Send) and isinstance(effect.body, BrokerHeartbeatRequest)
    ]
    assert [request.want_fence for request in asked] == [True]
    stage.produce("a")
    assert stage.ends[0] == 1, "it serves until its image says that it is out"
    epoch = stage.epochs[1]
    stage.metadata(
        stage.changed(leader=2, isr=(2,)),
        BrokerFenced(1, epoch, True),
    )
    assert stage.verdict(stage.produce("b")) == "none"
    stage.sync()
    assert stage.core.is_stopped
    assert stage.disk.read_whole(SHUTDOWN_PATH) == CLEAN


def test_a_broker_that_nobody_fences_stops_all_the_same() -> None:
    stage = Stage()
    stage.start()
    stage.core.stop(stage.now_ms)
    stage.handle()
    stage.later(stage.config.controlled_shutdown_timeout_ms - 1)
    assert not stage.core.is_stopped
    stage.later(1)
    assert stage.core.is_stopped
