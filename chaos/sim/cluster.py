"""A whole cluster in one thread of virtual time: nodes, network, disks, clients, one seed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from broker.config import NodeConfig, VoterAddress
from broker.core import Identity
from broker.events import Fact
from broker.lifecycle import REPLACED
from chaos.sim.choices import Choices
from chaos.sim.client import SimProducer
from chaos.sim.clock import SimClock
from chaos.sim.network import SimNetwork
from chaos.sim.node import SimNode
from client.delivery import ProducerBatch

CLUSTER_ID = "simulated"


@dataclass(slots=True)
class Trace:
    """A running checksum over all that happened, and the last lines of it for people."""

    checksum: int = 0
    count: int = 0
    lines: list[str] = field(default_factory=list)
    keep_all: bool = False

    def add(self, line: str) -> None:
        self.checksum = zlib.crc32(line.encode(), self.checksum)
        self.count += 1
        self.lines.append(line)
        if not self.keep_all and len(self.lines) > 2_000:
            del self.lines[:1_000]


class SimCluster:
    """Combined nodes (controller and broker), beyond `voter_count` only brokers; everything drawn
    from `choices`."""

    def __init__(self, node_count: int, choices: Choices, voter_count: int | None = None) -> None:
        self.choices = choices
        self.clock = SimClock()
        self.network = SimNetwork(self.clock, choices)
        self.trace = Trace()
        self.steps = 0
        self.sync_ms_max = 4
        self.crash_between_effects = False
        self.violations: list[str] = []
        self.leaders: dict[tuple[str, int, int], int] = {}
        """Who was seen to lead (topic id, partition, leader epoch)."""
        self.leader_changes = 0
        self.crashes = 0
        places = tuple(
            VoterAddress(node_id, f"disk{node_id}", "127.0.0.1", 20_000 + node_id)
            for node_id in range(1, node_count + 1)
        )
        voters = places[:voter_count]
        self.nodes: dict[int, SimNode] = {}
        for place in places:
            config = NodeConfig(
                node_id=place.node_id,
                cluster_id=CLUSTER_ID,
                data_dir="simulated",
                roles=("controller", "broker") if place in voters else ("broker",),
                broker_port=10_000 + place.node_id,
                controller_port=place.port,
                voters=voters,
                log_index_interval_bytes=256,
                facts="all",
            )
            identity = Identity(CLUSTER_ID, place.node_id, place.disk_id)
            self.nodes[place.node_id] = SimNode(self, config, identity)

    def node_at(self, address: str) -> int:
        port = int(address.rpartition(":")[2])
        return port - 10_000

    def start_all(self) -> None:
        for node in self.nodes.values():
            if not node.is_up:
                node.start()

    # -- what nodes tell -------------------------------------------------------------------------

    def on_fact(self, node: SimNode, fact: Fact) -> None:
        self.trace.add(
            f"{self.clock.now_ms} {node.name} {fact.kind} {fact.partition} LE={fact.leader_epoch} "
            f"PE={fact.partition_epoch} leo={fact.log_end_offset} hw={fact.high_watermark} "
            f"{fact.details}"
        )
        if fact.kind == "BecameLeader":
            self.leader_changes += 1
            key = (fact.topic_id, fact.partition, fact.leader_epoch)
            other = self.leaders.setdefault(key, node.config.node_id)
            if other != node.config.node_id:
                self.violations.append(f"{key} is led by {other} and by {node.config.node_id}")

    def on_halt(self, node: SimNode, reason: str) -> None:
        """A node gave up, which no fault here may bring about but one: the registration of a dead
        process that arrives late, and before any other of it, looks like a newer life. The living
        one ends then, as it must, and is started again like any other."""
        self.trace.add(f"{self.clock.now_ms} {node.name} halts: {reason}")
        if not (self.network.duplicate_percent and reason == REPLACED):
            self.violations.append(f"{node.name} halted: {reason}")
        node.crash(power_loss=False)

    def on_completed(self, producer: SimProducer, batch: ProducerBatch) -> None:
        self.trace.add(f"{self.clock.now_ms} {producer.name} done {batch.outcome!r}")

    def maybe_crash_between(self, node: SimNode) -> bool:
        """With the switch on, now and then a process ends between two of its effects."""
        if not self.crash_between_effects or self.choices.draw("crash_here", 1, 4_000) > 1:
            return False
        self.crash(node, power_loss=self.choices.chance("power_loss", 50))
        return True

    def crash(self, node: SimNode, *, power_loss: bool) -> None:
        self.crashes += 1
        self.trace.add(f"{self.clock.now_ms} {node.name} crashes power_loss={power_loss}")
        node.crash(power_loss=power_loss)

    # -- convergence -----------------------------------------------------------------------------

    def converged(self) -> bool:
        """All nodes up; all replicas of each partition in the ISR, their ends and marks equal."""
        images = []
        for node in self.nodes.values():
            if node.core is None or node.core.broker is None:
                return False
            if not node.core.broker.replicas.is_active:
                return False
            images.append(node.core.image.index)
        if len(set(images)) != 1 or not images[0]:
            return False
        for topic in next(iter(self.nodes.values())).core.image.topics.values():  # type: ignore[union-attr]
            for number, partition in enumerate(topic.partitions):
                if len(partition.isr) < len(partition.replicas):
                    return False
                ends = set()
                for node_id in partition.replicas:
                    replica = self._replica(node_id, topic.topic_id, number)
                    if replica is None:
                        return False
                    ends.add(replica)
                if len(ends) != 1 or any(end != mark for end, mark in ends):
                    return False
        return True

    def _replica(self, node_id: int, topic_id: str, number: int) -> tuple[int, int] | None:
        core = self.nodes[node_id].core
        assert core is not None
        assert core.broker is not None
        replica = core.broker.replicas.partitions.get((topic_id, number))
        return (replica.log.log_end_offset, replica.high_watermark) if replica else None

    def wait(self, limit_ms: int, what: str, done: object) -> bool:
        """Run until `done()` is true, at most `limit_ms`; a miss is a violation (L1)."""
        assert callable(done)
        end_ms = self.clock.now_ms + limit_ms
        while self.clock.now_ms < end_ms:
            if done():
                return True
            self.clock.run_until(self.clock.now_ms + 50)
        self.violations.append(f"not within {limit_ms} ms of virtual time: {what}")
        return False
