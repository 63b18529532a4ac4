"""One line of status for an expert's eye; its legend is in chaos/README.md."""

from __future__ import annotations

from broker.replica.partition import PartitionRole
from chaos.sim.cluster import SimCluster
from chaos.sim.node import SimNode
from chaos.sim.plan import TOPIC

LETTERS = {PartitionRole.LEADER: "L", PartitionRole.FOLLOWER: "F", PartitionRole.OFFLINE: "-"}


def status_line(cluster: SimCluster) -> str:
    """`1840 | C1 c2 !3 | 0 e3 L12/12/9 F9/9/9 - |`"""
    nodes = " ".join(_node(node) for node in cluster.nodes.values())
    image = cluster.newest_image()
    topic = image.topic_named(TOPIC) if image is not None else None
    parts = []
    for number, partition in enumerate(topic.partitions if topic is not None else ()):
        replicas = " ".join(
            _replica(cluster.nodes[node_id], topic.topic_id, number)
            for node_id in partition.replicas
            if topic is not None
        )
        isr = "".join(map(str, partition.isr)) or "-"
        elr = f"+{''.join(map(str, partition.elr))}" if partition.elr else ""
        parts.append(f"{number} e{partition.leader_epoch} {isr}{elr} {replicas}")
    return f"{cluster.clock.now_ms:>6} | {nodes} | {' | '.join(parts)}"


def _node(node: SimNode) -> str:
    node_id = node.config.node_id
    if node.core is None:
        return f"!{node_id}"
    if node.paused:
        return f"z{node_id}"
    driver = node.core.driver
    letter = "."
    if driver is not None:
        letter = "C" if driver.is_leader else "c"
    broker = node.core.broker
    if broker is not None and not broker.replicas.is_active:
        return f"{letter}{node_id}?"
    return f"{letter}{node_id}"


def _replica(node: SimNode, topic_id: str, number: int) -> str:
    name = f"{node.config.node_id}"
    broker = node.core.broker if node.core is not None else None
    replica = broker.replicas.partitions.get((topic_id, number)) if broker is not None else None
    if replica is None:
        return f"{name}:"
    log = replica.log
    return (
        f"{name}:{LETTERS[replica.role]}{replica.leader_epoch} "
        f"{log.log_end_offset}/{log.synced_end}/{replica.high_watermark}"
    )
