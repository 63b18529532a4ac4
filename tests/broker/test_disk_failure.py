"""A disk that fails: nothing is claimed of it any more, others lead at once, then the node halts.
One that is full only refuses, and takes up again when there is room."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from broker.events import Effect, Send, Sync, SyncFailed
from broker.quorum.records import BrokerFenced, TopicDeleted
from broker.replica.partition import PartitionRole
from broker.wire.errors import ErrorCode
from broker.wire.messages import BrokerHeartbeatRequest
from chaos.sim.admin import TopicCreation, create_request
from chaos.sim.choices import Choices, from_seed
from chaos.sim.cluster import SimCluster
from chaos.sim.plan import Setup
from tests.replica.stage import OTHER_TOPIC, TOPIC, Stage, batch


def leading() -> Stage:
    stage = Stage()
    stage.start()
    stage.create_topic(leader=1)
    return stage


def asks_to_leave(effects: list[Effect]) -> bool:
    return any(
        isinstance(effect, Send)
        and isinstance(effect.body, BrokerHeartbeatRequest)
        and effect.body.want_fence
        for effect in effects
    )


def fail_a_sync(stage: Stage) -> list[Effect]:
    stage.produce("a", acks=0)
    return stage.handle(SyncFailed(stage.syncs.pop().token, "input/output error"))


def fail_a_write(stage: Stage) -> list[Effect]:
    stage.disk.fail_next("append", cut_back=False)
    stage.produce("a")
    return stage.handle()


@pytest.mark.parametrize("fail", [fail_a_sync, fail_a_write])
def test_a_broker_whose_disk_failed_asks_to_be_fenced_and_halts_when_it_is(
    fail: Callable[[Stage], object],
) -> None:
    stage = leading()
    asked_before = len(stage.sent(BrokerHeartbeatRequest))
    fail(stage)
    assert asks_to_leave(stage.effects[asked_before:])
    assert [fact.details["reason"] for fact in stage.facts("DiskFailed")]
    assert not stage.halts, "its leaderships are to move first"
    stage.metadata(stage.changed(leader=2, isr=(2, 3)), BrokerFenced(1, stage.epochs[1], True))
    [reason] = stage.halts
    assert reason.startswith("the disk failed: ")


def test_it_halts_all_the_same_when_no_controller_answers() -> None:
    stage = leading()
    fail_a_sync(stage)
    stage.later(stage.config.controlled_shutdown_timeout_ms - 1)
    assert not stage.halts
    stage.later(1)
    assert stage.halts


def test_meanwhile_it_leads_nothing_and_asks_nothing_more_of_the_disk() -> None:
    stage = leading()
    parked = stage.fetch_event(-1, 0, wait_ms=500)
    stage.handle(parked)
    assert stage.fetched(parked.correlation_id) is None
    stage.produce("a")
    in_flight = stage.syncs[-1]
    stage.disk.fail_next("append", cut_back=False)
    stage.produce("b")
    answer = stage.fetched(parked.correlation_id)
    assert answer is not None, "who waits is not left waiting"
    assert answer.error is ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert stage.partition().role is PartitionRole.OFFLINE
    before = len(stage.effects)
    assert stage.verdict(stage.produce("c")) == "NOT_LEADER_OR_FOLLOWER NO"
    stage.syncs = [in_flight]
    stage.sync()
    stage.metadata(stage.changed(isr=(1, 2)))
    stage.later(600)
    assert not stage.of(Sync, stage.effects[before:])
    assert stage.ends[2] == 0, "a sync that ends after another has failed proves nothing"


def test_others_lead_before_it_is_missed() -> None:
    """In virtual time: far less than the session, which lasts 1,500 ms."""
    cluster = SimCluster(3, Choices(from_seed(5)))
    cluster.start_all()
    creation = TopicCreation(cluster, create_request("t", Setup(partitions=3)))
    assert cluster.wait(20_000, "the topic is created", lambda: creation.is_done)
    for node in list(cluster.nodes.values()):
        assert cluster.wait(20_000, "all is well", cluster.converged)
        began_ms = cluster.clock.now_ms
        core = node.core
        assert core is not None
        core._on_disk_failed("as told", node.clock.now_ms)
        node.disk_fails_until_ms = cluster.clock.now_ms + 2_000
        node.wake()
        assert cluster.wait(5_000, "it has halted", lambda node=node: not node.is_up)
        assert cluster.clock.now_ms - began_ms < 400
        image = cluster.newest_image()
        assert image is not None
        for _, _, partition in image.all_partitions():
            assert partition.leader not in (node.config.node_id, -1)
            assert node.config.node_id not in partition.isr
        node.start()


def test_a_topic_that_finds_no_room_is_created_when_there_is_some() -> None:
    stage = Stage()
    stage.start()
    stage.disk.fail_next("make_dir", error=errno.ENOSPC)
    stage.create_topic(leader=1)
    assert not stage.halts
    assert (TOPIC, 0) not in stage.broker.replicas.partitions
    assert stage.verdict(stage.produce(batch("a"))) == "NOT_LEADER_OR_FOLLOWER NO"
    stage.later(stage.config.replica_fetch_backoff_ms)
    stage.sync()
    assert stage.partition().role is PartitionRole.LEADER


def test_a_topic_that_finds_no_room_and_is_deleted_leaves_nothing_behind() -> None:
    stage = Stage()
    stage.start()
    stage.disk.fail_next("make_dir", error=errno.ENOSPC)
    stage.create_topic(leader=1, topic_id=OTHER_TOPIC)
    stage.metadata(TopicDeleted(OTHER_TOPIC))
    stage.later(stage.config.replica_fetch_backoff_ms)
    assert not stage.broker.replicas.partitions
    assert not stage.broker.replicas.without_log
