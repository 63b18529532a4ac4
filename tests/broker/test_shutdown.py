"""The mark of a clean stop: there after one, gone as soon as the next process runs."""

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
