"""A whole cluster in one thread of virtual time: nodes, network, disks, one source of chance."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from broker.config import NodeConfig, VoterAddress
from broker.core import Identity
from broker.events import Fact
from broker.lifecycle import REPLACED
from broker.quorum.image import MetadataImage
from chaos.sim.choices import Choices
from chaos.sim.clock import SimClock
from chaos.sim.network import SimNetwork
from chaos.sim.node import SimNode
from chaos.sim.trace import Trace

CLUSTER_ID = "simulated"
BROKER_PORT = 10_000
CONTROLLER_PORT = 20_000
DISK_STALL_MS = 2_000
START_AGAIN_MS = 500
"""After an end that a late message made it come to."""


@dataclass(frozen=True, slots=True)
class Rot:
    """A byte of a log that changed on the disk of a running node, and nobody told it."""

    node: SimNode
    log: tuple[str, int]
    path: str
    position: int
    around: bytes
    """It and its neighbours, from `position` on."""

    @property
    def is_there(self) -> bool:
        end = self.position + len(self.around)
        return self.node.disk.content_of(self.path)[self.position : end] == self.around


class Watcher:
    """Somebody who looks on: hears every fact, and looks at a node after each of its turns. It
    changes nothing."""

    def on_fact(self, node: SimNode, fact: Fact) -> None:
        """Something became true on a node."""

    def after_turn(self, node: SimNode) -> None:
        """A living node has carried out the effects of a turn."""

    def before_crash(self, node: SimNode) -> None:
        """A node's process is about to end without warning."""

    def on_wiped(self, node: SimNode) -> None:
        """A node lost what was on its disk, or some of it; its next registration tells."""


class SimCluster:
    """Combined nodes (controller and broker), beyond `voter_count` only brokers; everything drawn
    from `choices`."""

    def __init__(
        self,
        node_count: int,
        choices: Choices,
        voter_count: int | None = None,
        *,
        keep_trace: bool = False,
        node_settings: Mapping[str, int] | None = None,
    ) -> None:
        self.choices = choices
        self.clock = SimClock()
        self.network = SimNetwork(self.clock, choices)
        self.trace = Trace(keep_trace)
        self.watchers: list[Watcher] = []
        self.client_count = 0
        self.event_count = 0
        """Events and turns that cores have handled."""
        self.sync_ms_max = 4
        self.violations: list[str] = []
        """`name: what`, where the name is an invariant's or an anomaly's."""
        self.leader_changes = 0
        self.crashes = 0
        self.fact_counts: dict[str, int] = {}
        self.rot: list[Rot] = []
        self.late_registrations_may_come = False
        """Messages between nodes are duplicated much later: see `on_halt`."""
        places = tuple(
            VoterAddress(node_id, f"disk{node_id}", "127.0.0.1", CONTROLLER_PORT + node_id)
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
                broker_port=BROKER_PORT + place.node_id,
                controller_port=place.port,
                voters=voters,
                log_index_interval_bytes=256,
                disk_stall_ms_max=DISK_STALL_MS,
                facts="all",
            )
            config = replace(config, **(node_settings or {}))  # type: ignore[arg-type]
            identity = Identity(CLUSTER_ID, place.node_id, place.disk_id)
            self.nodes[place.node_id] = SimNode(self, config, identity)

    @property
    def bootstrap(self) -> str:
        return ",".join(f"127.0.0.1:{node.config.broker_port}" for node in self.nodes.values())

    def node_at(self, address: str) -> int:
        return int(address.rpartition(":")[2]) - BROKER_PORT

    def start_all(self) -> None:
        for node in self.nodes.values():
            if not node.is_up:
                node.start()

    # -- what is told ----------------------------------------------------------------------------

    def tell(self, who: str, kind: str, text: str, place: str = "") -> None:
        self.trace.add(self.clock.now_ms, who, kind, place, text)

    def violate(self, name: str, text: str) -> None:
        """Something happened that must not. The same thing is told once."""
        line = f"{name}: {text}"
        if line not in self.violations:
            self.violations.append(line)
            self.tell("-", "violation", line)

    def on_fact(self, node: SimNode, fact: Fact) -> None:
        place = f"{fact.topic_id}-{fact.partition}" if fact.partition >= 0 else ""
        self.tell(
            node.name,
            fact.kind,
            f"LE={fact.leader_epoch} PE={fact.partition_epoch} leo={fact.log_end_offset} "
            f"synced={fact.synced_end} hw={fact.high_watermark} {fact.details}",
            place,
        )
        self.fact_counts[fact.kind] = self.fact_counts.get(fact.kind, 0) + 1
        if fact.kind == "BecameLeader":
            self.leader_changes += 1
        elif fact.kind == "DiskFailed" and node.disk_fails:
            node.leaves_since = node.incarnation
        for watcher in self.watchers:
            watcher.on_fact(node, fact)

    def after_turn(self, node: SimNode) -> None:
        for watcher in self.watchers:
            watcher.after_turn(node)

    # -- processes end ---------------------------------------------------------------------------

    def on_halt(self, node: SimNode, reason: str) -> None:
        """A node gave up. It may when its disk fails; and by one fault more: the registration of a
        dead process that arrives late, and before any other of it, looks like a newer life. The
        living one ends then, as it must, and is started again like any other."""
        self.tell(node.name, "halt", reason)
        if self.late_registrations_may_come and reason == REPLACED:
            self.clock.after(START_AGAIN_MS, lambda: self.start(node))
        elif node.leaves_since == node.incarnation:
            # It said so in time, and was held up before it had left.
            self.clock.after(START_AGAIN_MS, lambda: self.start(node))
        elif not (node.disk_fails or node.starts_on_full_disk):
            self.violate("halt", f"{node.name}: {reason}")
        # What a failing disk has not confirmed is not on it.
        is_lost = node.disk_fails or node.leaves_since == node.incarnation
        self.end(node, power_loss=is_lost)

    def on_assertion(self, node: SimNode, error: AssertionError) -> None:
        place = traceback.extract_tb(error.__traceback__)[-1]
        what = str(error) or place.line
        self.violate("assertion", f"{node.name}: {place.name}: {what}")
        self.end(node, power_loss=False)

    def crash(self, node: SimNode, *, power_loss: bool) -> None:
        self.crashes += 1
        self.tell(node.name, "crash", "loses power" if power_loss else "is killed")
        self.end(node, power_loss=power_loss)

    def crash_as_drawn(self, node: SimNode) -> None:
        """A process ends in the middle of something: its power may be gone too, or not."""
        self.crash(node, power_loss=self.choices.chance("crash: power loss", 50))

    def end(self, node: SimNode, *, power_loss: bool) -> None:
        for watcher in self.watchers:
            watcher.before_crash(node)
        self.lose_what_rots(node)
        node.crash(power_loss=power_loss)

    def lose_what_rots(self, node: SimNode) -> None:
        """A process ends: the next one may find rot, and begin anew before anybody is told."""
        if any(rot.node is node and rot.is_there for rot in self.rot):
            self.lose(node)

    def wipe(self, node: SimNode) -> None:
        self.crashes += 1
        self.tell(node.name, "wipe", "loses its disk")
        for watcher in self.watchers:
            watcher.before_crash(node)
        node.wipe()
        self.lose(node)

    def lose(self, node: SimNode) -> None:
        """Something that a node vouched for is no longer on its disk."""
        for watcher in self.watchers:
            watcher.on_wiped(node)

    def rots(self, node: SimNode, log: tuple[str, int]) -> bool:
        """Whether a log of a node lacks something of which it does not know."""
        return any(rot.node is node and rot.log == log and rot.is_there for rot in self.rot)

    def start(self, node: SimNode) -> None:
        """Start it, or if it is about to stop let it start again then."""
        if not node.is_up:
            self.tell(node.name, "start", "starts")
            node.start()
        else:
            node.starts_again = True

    # -- looking ---------------------------------------------------------------------------------

    def newest_image(self) -> MetadataImage | None:
        """The metadata of the living node that has applied most; None if none lives."""
        newest: MetadataImage | None = None
        for node in self.nodes.values():
            if node.core is not None and (newest is None or node.core.image.index > newest.index):
                newest = node.core.image
        return newest

    def converged(self) -> bool:
        """All nodes up; all replicas of each partition in the ISR, their ends and marks equal."""
        images = []
        if any(rot.is_there for rot in self.rot):
            return False
        for node in self.nodes.values():
            if node.core is None or node.core.broker is None:
                return False
            if not node.core.broker.replicas.is_active:
                return False
            images.append(node.core.image)
        if len({image.index for image in images}) != 1 or not images[0].index:
            return False
        for topic, number, partition in images[0].all_partitions():
            if len(partition.isr) < len(partition.replicas):
                return False
            ends = [self._ends(node_id, topic.topic_id, number) for node_id in partition.replicas]
            if ends[0] is None or any(other != ends[0] for other in ends):
                return False
        return True

    def _ends(self, node_id: int, topic_id: str, number: int) -> tuple[int, int] | None:
        """(log end offset, high watermark) if they are equal, else None."""
        core = self.nodes[node_id].core
        assert core is not None
        assert core.broker is not None
        replica = core.broker.replicas.partitions.get((topic_id, number))
        if replica is None or replica.log.log_end_offset != replica.high_watermark:
            return None
        return replica.log.log_end_offset, replica.high_watermark

    def wait(self, limit_ms: int, what: str, done: Callable[[], bool]) -> bool:
        """Run until `done()` is true, at most `limit_ms`; a miss is a violation (L1)."""
        end_ms = self.clock.now_ms + limit_ms
        while self.clock.now_ms < end_ms:
            if done():
                return True
            self.clock.run_until(self.clock.now_ms + 50)
        self.violate("not-converged", f"not within {limit_ms} ms of virtual time: {what}")
        return False
