"""What a cluster says of itself, gathered from every node, and what is still missing.

Plain rows, so that waiting (`prozess up`), showing (`prozess status`) and choosing victims (the
nemesis) work on the same picture. `observe` fills them by asking each node directly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chaos.proc.layout import ClusterSpec

NO_NODE = -1


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica as its own node sees it."""

    topic_id: str
    partition: int
    role: str
    leader_epoch: int
    log_start_offset: int
    log_end_offset: int
    synced_end: int
    high_watermark: int
    damaged: bool


@dataclass(frozen=True, slots=True)
class NodeView:
    node_id: int
    answered: bool
    pid: int = 0
    roles: tuple[str, ...] = ()
    broker_epoch: int = -1
    fenced: bool = True
    raft_role: str = ""
    raft_term: int = 0
    raft_leader_id: int = NO_NODE
    commit_index: int = 0
    applied_index: int = 0
    replicas: tuple[ReplicaView, ...] = ()


@dataclass(frozen=True, slots=True)
class PartitionView:
    """One partition by the newest metadata that any node answered with."""

    topic: str
    topic_id: str
    partition: int
    leader: int
    leader_epoch: int
    partition_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    high_watermark: int = -1
    """By the leader; -1 when it was not heard."""
    log_end_offset: int = -1

    @property
    def is_under_replicated(self) -> bool:
        return len(self.isr) < len(self.replicas)


@dataclass(frozen=True, slots=True)
class ClusterView:
    nodes: tuple[NodeView, ...]
    partitions: tuple[PartitionView, ...]
    has_metadata: bool

    @property
    def controller_id(self) -> int:
        """The active controller: the leader named by the newest term heard; NO_NODE without."""
        heard = [(n.raft_term, n.raft_leader_id) for n in self.nodes if n.answered]
        return max(heard, default=(0, NO_NODE))[1]

    def node(self, node_id: int) -> NodeView:
        for view in self.nodes:
            if view.node_id == node_id:
                return view
        return NodeView(node_id, answered=False)


Observe = Callable[[ClusterSpec], ClusterView]


def problems(view: ClusterView, spec: ClusterSpec) -> list[str]:
    """What keeps the cluster from being whole, in words; empty when nothing does."""
    silent = [node.node_id for node in spec.nodes if not view.node(node.node_id).answered]
    found = [f"node {node_id} does not answer" for node_id in silent]
    if len(silent) == len(spec.nodes):
        return found
    if view.controller_id == NO_NODE:
        return [*found, "the quorum has no leader"]
    for node in spec.nodes:
        seen = view.node(node.node_id)
        if seen.answered and "broker" in node.roles and seen.fenced:
            found.append(f"broker {node.node_id} is fenced")
    if not view.has_metadata:
        found.append("no node answers with metadata")
    for part in view.partitions:
        name = f"{part.topic}-{part.partition}"
        if part.leader == NO_NODE:
            found.append(f"{name} has no leader")
        if part.is_under_replicated:
            missing = [str(n) for n in part.replicas if n not in part.isr]
            found.append(f"{name} is under-replicated: {', '.join(missing)} not in sync")
    return found


def replica_ends(view: ClusterView, part: PartitionView) -> dict[int, tuple[int, int]]:
    """Node id -> (log end, high watermark) of each replica that was heard."""
    return {
        node.node_id: (replica.log_end_offset, replica.high_watermark)
        for node in view.nodes
        for replica in node.replicas
        if (replica.topic_id, replica.partition) == (part.topic_id, part.partition)
    }


def is_converged(view: ClusterView, spec: ClusterSpec, topic: str | None = None) -> bool:
    """Nothing is missing, and every replica has the same end, all committed.

    `topic` leaves the other topics' ends out.
    """
    if problems(view, spec):
        return False
    for part in view.partitions:
        if topic is not None and part.topic != topic:
            continue
        ends = set(replica_ends(view, part).values())
        if len(ends) != 1 or any(end != mark for end, mark in ends):
            return False
    return True
