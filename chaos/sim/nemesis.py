"""Faults, as drawn: who crashes, stops, pauses, is cut off, loses messages or a disk, and for how
long."""

from __future__ import annotations

from chaos.sim.cluster import SimCluster
from chaos.sim.node import SimNode
from chaos.sim.setup import Setup


def inject_fault(cluster: SimCluster, setup: Setup) -> None:
    choices, clock = cluster.choices, cluster.clock
    nodes = tuple(cluster.nodes)
    node = cluster.nodes[choices.pick("node", nodes)]
    kind = choices.draw("fault", 0, 5)
    lasting_ms = choices.draw("lasting", 50, 3_000)
    if kind <= 1 and setup.wipes and _may_lose_its_disk(cluster, node):
        cluster.trace.add(f"{clock.now_ms} {node.name} loses its disk")
        node.wipe()
        clock.after(lasting_ms, lambda: None if node.is_up else node.start())
    elif kind <= 1 and (setup.flush == "async" or (setup.stops and choices.chance("stop", 50))):
        _stop_and_restart(cluster, node, down_ms=lasting_ms)
    elif kind <= 1:
        _crash_and_restart(cluster, node, power_loss=kind == 1, down_ms=lasting_ms)
    elif kind == 2 and node.is_up:
        cluster.trace.add(f"{clock.now_ms} {node.name} pauses for {lasting_ms} ms")
        node.pause()
        clock.after(lasting_ms, node.resume)
    elif kind == 3:
        _cut_between(cluster, node, lasting_ms)
    elif kind == 4:
        other = cluster.nodes[choices.pick("other", nodes)]
        cluster.trace.add(f"{clock.now_ms} cut {node.name} -> {other.name} one way")
        cluster.network.set_cut(node.name, other.name, True)
        clock.after(lasting_ms, lambda: cluster.network.set_cut(node.name, other.name, False))
    else:
        cluster.network.loss_percent = choices.draw("loss_percent", 1, 10)
        clock.after(lasting_ms, lambda: setattr(cluster.network, "loss_percent", 0))


def _may_lose_its_disk(cluster: SimCluster, node: SimNode) -> bool:
    """All agree on the metadata, in which every partition has another member in ISR or ELR, and no
    other loss of a disk is still unknown to the controller. (With two unknown losses it could
    fence the last who holds the records, and keep the two.)"""
    images = [other.core.image for other in cluster.nodes.values() if other.core is not None]
    if node.config.is_controller or len(images) < len(cluster.nodes):
        return False  # a voter that lost its disk could not vote any more
    image = images[0]
    return (
        len({other.index for other in images}) == 1
        and all(
            node_id in image.brokers and image.brokers[node_id].disk_id == other.identity.disk_id
            for node_id, other in cluster.nodes.items()
        )
        and all(
            {*partition.isr, *partition.elr} - {node.config.node_id}
            for _, _, partition in image.all_partitions()
        )
    )


def _stop_and_restart(cluster: SimCluster, node: SimNode, *, down_ms: int) -> None:
    if node.is_up and not node.paused:
        cluster.trace.add(f"{cluster.clock.now_ms} {node.name} stops")
        node.stop()
    cluster.clock.after(down_ms, lambda: None if node.is_up else node.start())


def _crash_and_restart(
    cluster: SimCluster, node: SimNode, *, power_loss: bool, down_ms: int
) -> None:
    if node.is_up:
        cluster.crash(node, power_loss=power_loss)
    cluster.clock.after(down_ms, lambda: None if node.is_up else node.start())


def _cut_between(cluster: SimCluster, node: SimNode, lasting_ms: int) -> None:
    """Isolate a node from the others, or from the clients too."""
    names = [other.name for other in cluster.nodes.values() if other is not node]
    if cluster.choices.chance("clients_too", 50):
        names += ["c0", "c1", "c2"]
    cluster.trace.add(f"{cluster.clock.now_ms} isolate {node.name} from {names}")

    def set_all(is_cut: bool) -> None:
        for name in names:
            cluster.network.set_cut(node.name, name, is_cut)
            cluster.network.set_cut(name, node.name, is_cut)

    set_all(True)
    cluster.clock.after(lasting_ms, lambda: set_all(False))
