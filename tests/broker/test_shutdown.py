"""A stop in good order: the mark of it, and that nobody has to wait for the one who goes."""

from __future__ import annotations

from broker.broker_part import CLEAN, RUNNING, SHUTDOWN_PATH, shutdown_was_clean
from chaos.sim.admin import TopicCreation, create_request
from chaos.sim.choices import Choices, from_seed
from chaos.sim.cluster import SimCluster
from chaos.sim.node import SimNode
from chaos.sim.plan import Setup


def started() -> tuple[SimCluster, SimNode]:
    cluster = SimCluster(1, Choices(from_seed(5)))
    cluster.start_all()
    setup = Setup(nodes=1, voters=1, replication_factor=1, min_isr=1, flush="async")
    creation = TopicCreation(cluster, create_request("t", setup))
    assert cluster.wait(20_000, "the topic is created", lambda: creation.is_done)
    return cluster, cluster.nodes[1]


def test_a_running_process_has_no_mark() -> None:
    _, node = started()
    assert node.disk.read_whole(SHUTDOWN_PATH) == RUNNING
    assert not shutdown_was_clean(node.disk)


def test_a_stop_in_good_order_leaves_it_and_power_loss_does_not_take_it() -> None:
    cluster, node = started()
    node.stop()
    assert cluster.wait(5_000, "the node has stopped", lambda: not node.is_up)
    node.disk.power_loss(cluster.choices.draw)
    assert node.disk.read_whole(SHUTDOWN_PATH) == CLEAN
    node.start()
    assert cluster.wait(5_000, "it runs again", cluster.converged)
    assert not shutdown_was_clean(node.disk)


def test_a_crash_leaves_none() -> None:
    _, node = started()
    node.crash(power_loss=False)
    assert not shutdown_was_clean(node.disk)


def test_whoever_leads_has_successors_before_it_is_gone() -> None:
    """Leaderships of partitions, places in ISRs and the metadata quorum: nobody misses it for as
    long as a session or an election timeout lasts."""
    cluster = SimCluster(3, Choices(from_seed(5)))
    cluster.start_all()
    setup = Setup(partitions=3)
    creation = TopicCreation(cluster, create_request("t", setup))
    assert cluster.wait(20_000, "the topic is created", lambda: creation.is_done)
    for node in list(cluster.nodes.values()):
        assert cluster.wait(20_000, "all is well", cluster.converged)
        began_ms = cluster.clock.now_ms
        node.stop()
        assert cluster.wait(5_000, "it has stopped", lambda node=node: not node.is_up)
        others = [other for other in cluster.nodes.values() if other is not node]
        images = [other.core.image for other in others if other.core is not None]
        image = max(images, key=lambda image: image.index)
        for _, _, partition in image.all_partitions():
            assert partition.leader in (other.config.node_id for other in others)
            assert node.config.node_id not in partition.isr
        drivers = [other.core.driver for other in others if other.core is not None]
        assert any(driver is not None and driver.is_leader for driver in drivers)
        assert cluster.clock.now_ms - began_ms < 400, "well below every time-out"
        node.start()
