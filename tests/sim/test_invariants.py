"""The watcher notices: each invariant, broken by hand behind the brokers' backs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.events import Fact
from broker.replica.partition import Partition as Replica
from broker.replica.partition import PartitionRole
from chaos.history import Header, HistoryWriter
from chaos.sim.admin import TopicCreation, create_request
from chaos.sim.choices import Choices, from_seed
from chaos.sim.client import SimProducer, SimStopwatch
from chaos.sim.cluster import SimCluster
from chaos.sim.invariants import Invariants
from chaos.sim.node import SimNode
from chaos.sim.plan import Load, Plan, Setup
from chaos.workload import ClientPlan

pytestmark = pytest.mark.simulation

SETUP = Setup(consumers=0)


class Stage:
    """A calm cluster with acknowledged records."""

    def __init__(self) -> None:
        self.cluster = SimCluster(3, Choices(from_seed(1)))
        self.invariants = Invariants(self.cluster)
        self.cluster.start_all()
        creation = TopicCreation(self.cluster, create_request("t", SETUP))
        assert self.cluster.wait(20_000, "the topic is created", lambda: creation.is_done)
        history = HistoryWriter(lambda data: None, Header("simulated", "simulated", 1))
        plan = Plan(SETUP, Load())
        watch = SimStopwatch(self.cluster)
        producer = SimProducer(self.cluster, plan, "t", ClientPlan(0, "producer"), history, watch)
        self.run(1_500)
        producer.stop_sending()
        self.run(500)
        assert producer.counts["ok"] > 10
        producer.end()
        self.invariants.check_all()
        assert not self.cluster.violations

    def run(self, milliseconds: int) -> None:
        self.cluster.clock.run_until(self.cluster.clock.now_ms + milliseconds)

    def replica(self, role: PartitionRole) -> tuple[SimNode, Replica]:
        for node in self.cluster.nodes.values():
            assert node.core is not None
            assert node.core.broker is not None
            for replica in node.core.broker.replicas.partitions.values():
                if replica.role is role:
                    return node, replica
        raise AssertionError(f"nobody is {role.value}")

    def leader(self) -> tuple[SimNode, Replica]:
        return self.replica(PartitionRole.LEADER)

    def follower(self) -> tuple[SimNode, Replica]:
        return self.replica(PartitionRole.FOLLOWER)


def second_leader(stage: Stage) -> None:
    node, replica = stage.follower()
    fact = Fact("BecameLeader", *replica.key, leader_epoch=replica.leader_epoch)
    stage.cluster.on_fact(node, fact)


def refused_although_next(stage: Stage) -> None:
    """As a leader would that has lost its table: the batch is in its log."""
    node, replica = stage.leader()
    log = replica.log
    header = next(iter(log.headers(log.log_start_offset, log.log_end_offset)))
    details: dict[str, int | str | bool | tuple[int, ...]] = {
        "error": "UNKNOWN_PRODUCER_ID",
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "sequence": header.last_offset_delta + 1,
    }
    end = header.next_offset
    fact = Fact("ProduceRefused", *replica.key, log_end_offset=end, details=details)
    stage.cluster.on_fact(node, fact)


def other_bytes(stage: Stage) -> None:
    node, replica = stage.follower()
    replica.log.segments[0].file.append([bytes(61)])
    path = replica.log.segments[0].path
    node.disk.sync((path,))
    node.disk.corrupt(path, 17, 1)
    fresh = Invariants(stage.cluster)
    fresh.check_all()


def lost_bytes(stage: Stage) -> None:
    node, replica = stage.follower()
    replica.log.segments[0].file.truncate(0)
    node.disk.sync((replica.log.segments[0].path,))
    stage.invariants.check_all()


def too_high_watermark(stage: Stage) -> None:
    _, replica = stage.leader()
    replica.high_watermark += 5
    stage.invariants.check_all()


def too_small_isr(stage: Stage) -> None:
    node, replica = stage.leader()
    replica.isr = (node.config.node_id,)
    stage.invariants.check_all()


def nobody_left(stage: Stage) -> None:
    for node in stage.cluster.nodes.values():
        stage.invariants.on_wiped(node)
    stage.invariants.check_all()


def forgotten_vote(stage: Stage) -> None:
    for node in stage.cluster.nodes.values():
        assert node.core is not None
        assert node.core.driver is not None
        raft_node = node.core.driver.node
        assert raft_node is not None
        if raft_node.voted_for is not None:
            raft_node._state.voted_for = None
            raft_node._state.log.commit_index -= 1
            stage.invariants.after_turn(node)
            return
    raise AssertionError("nobody voted")


@pytest.mark.parametrize(
    ("break_it", "name"),
    [
        (second_leader, "one-leader"),
        (other_bytes, "log-matching"),
        (lost_bytes, "acked-durable"),
        (nobody_left, "acked-durable"),
        (too_high_watermark, "watermark"),
        (too_small_isr, "maximal-isr"),
        (refused_although_next, "false-refusal"),
        (forgotten_vote, "raft-memory"),
    ],
)
def test_a_broken_invariant_is_told_by_name(break_it: Callable[[Stage], None], name: str) -> None:
    stage = Stage()
    break_it(stage)
    assert any(line.startswith(f"{name}: ") for line in stage.cluster.violations), (
        stage.cluster.violations
    )


def test_a_node_that_gives_up_without_a_reason_is_a_violation() -> None:
    stage = Stage()
    node, _ = stage.follower()
    stage.cluster.on_halt(node, "no reason")
    assert stage.cluster.violations == [f"halt: {node.name}: no reason"]


def test_what_survives_is_read_from_the_disk_and_not_from_the_broker() -> None:
    """A broker that believes in more than its disk holds convinces nobody."""
    stage = Stage()
    node, replica = stage.leader()
    view = node.disk.look(replica.log.directory, ".log", durable=True)
    assert view is not None
    view.files()[0].data.clear()
    fresh = Invariants(stage.cluster)
    fresh.after_turn(node)
    assert any(line.startswith("watermark: ") for line in stage.cluster.violations)
